"""How long a Job waits before it replaces failed pods: 10 s, doubling, at most 10 minutes.

Both numbers are the Job controller's own (DefaultJobPodFailureBackOff, MaxJobPodFailureBackOff).
"""

from __future__ import annotations

from collections.abc import Sequence

from bridge.local.jobs.views import PodView, finish_time

FIRST_BACKOFF = 10.0
LONGEST_BACKOFF = 600.0


def job_retry_at(succeeded: Sequence[PodView], failed: Sequence[PodView]) -> float:
    """When (epoch seconds) the Job may create pods again; 0.0 at once.

    Only failures after the newest success count, and all of them do: those that
    podFailurePolicy ignores as well.
    """
    if not failed:
        return 0.0
    last_success = max((finish_time(view.pod) for view in succeeded), default=float("-inf"))
    times = [finish_time(view.pod) for view in failed]
    return _retry_at(sum(time > last_success for time in times), max(times))


def index_retry_at(last_failed: PodView | None) -> float:
    """When (epoch seconds) an index of its own back-off may be tried again; 0.0 at once."""
    if last_failed is None:
        return 0.0
    return _retry_at(last_failed.failures_before + 1, finish_time(last_failed.pod))


def _retry_at(failures: int, last_failure: float) -> float:
    if failures == 0:
        return 0.0
    # The exponent is bounded because 2.0 ** 1024 overflows.
    return last_failure + min(FIRST_BACKOFF * 2.0 ** min(failures - 1, 10), LONGEST_BACKOFF)
