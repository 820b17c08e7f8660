"""How long a container that has ended waits for its next run (CrashLoopBackOff). Pure."""

from __future__ import annotations

from bridge.workload import Exit, Identity

FIRST_BACKOFF = 10.0
"""Seconds (kubelet.go backOffPeriod); doubled at each further restart."""
LONGEST_BACKOFF = 300.0
"""Seconds (MaxContainerBackOff)."""
QUIET = 600.0
"""Seconds: a run longer than this clears the back-off (crashLoopBackOff.HasExpiredFunc)."""

_CLOCK_SLACK = 2.0
"""Seconds: recorded times have no fractions, and two clocks may have made them."""


def backoff(restart: int, last: Exit, previous: Exit | None) -> float:
    """Seconds from the end of run number `restart` to its next start.

    The kubelet keeps the back-off in memory; this is worked out from what survives a restart: the
    count, the last run and the one before. How long that last start had to wait shows whether the
    back-off was cleared some runs ago.
    """
    started = last.started_at
    if restart == 0 or (started is not None and last.finished_at - started > QUIET):
        return 0.0
    delay = float(min(FIRST_BACKOFF * 2.0 ** min(restart - 1, 10), LONGEST_BACKOFF))
    if previous is None:
        return delay
    if previous.started_at is not None and previous.finished_at - previous.started_at > QUIET:
        return FIRST_BACKOFF
    if started is None:
        return delay
    waited = started - previous.finished_at + _CLOCK_SLACK
    reached = FIRST_BACKOFF
    while reached <= waited and reached < LONGEST_BACKOFF:
        reached *= 2
    return min(delay, reached)


def backoff_of_killed(restart: int, last: Exit, previous: Exit | None) -> float:
    """`backoff` where a run did not end by itself but was killed, for a failed probe say.

    The kubelet looks for the run that ended last before it kills, so what counts is the run before:
    whoever ran on for longer than that back-off starts at once.
    """
    if previous is None:
        return 0.0
    delay = backoff(restart - 1, previous, None)
    return 0.0 if previous.finished_at + delay <= last.finished_at else delay


def backoff_message(identity: Identity, container: str, delay: float) -> str:
    """The kubelet's words for CrashLoopBackOff."""
    pod = f"{identity.name}_{identity.namespace}({identity.uid})"
    return f"back-off {_duration(delay)} restarting failed container={container} pod={pod}"


def _duration(seconds: float) -> str:
    """As Go prints a duration of whole seconds: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
