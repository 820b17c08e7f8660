"""One probe of one run of a container: when it asks, and what its answers come to.

As pkg/kubelet/prober/worker.go, with one difference: the kubelet's ticker has begun before the
container, so its first try comes up to a period after the initial delay; this one comes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from bridge.provider.probing.actions import Outcome, Result
from bridge.workload import Probe

TRIES = 3
"""How often a try that could not be made is made again at once (maxProbeRetries)."""


class Kind(Enum):
    """Which question a probe asks, in the kubelet's spelling."""

    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"


@dataclass(slots=True)
class Counter:
    """Counts answers of one kind in a row."""

    probe: Probe
    last: bool | None = None
    run: int = 0

    def add(self, good: bool) -> bool | None:
        """What the probe says now; None: too few in a row to say anything new."""
        self.run = self.run + 1 if good is self.last else 1
        self.last = good
        needed = self.probe.success_threshold if good else self.probe.failure_threshold
        return good if self.run >= needed else None


async def watch(
    kind: Kind,
    probe: Probe,
    ask: Callable[[], Awaitable[Outcome]],
    *,
    first: float,
    hear: Callable[[Kind, Outcome], None],
    tell: Callable[[Kind, bool], None],
) -> None:
    """Asks after `first` seconds and then every period.

    `hear` gets every answer, `tell` what the thresholds make of them. Ends where the kubelet's
    worker is on hold until the next run: a liveness probe that has failed, a startup probe that
    knows.
    """
    loop, counter = asyncio.get_running_loop(), Counter(probe)
    await asyncio.sleep(first)
    tick = loop.time()
    while True:
        outcome = await _ask(ask)
        hear(kind, outcome)
        if outcome.result is not Result.UNKNOWN:
            verdict = counter.add(outcome.result is not Result.FAILURE)
            if verdict is not None:
                tell(kind, verdict)
                if kind is Kind.STARTUP or (kind is Kind.LIVENESS and not verdict):
                    return
        # As Go's ticker: of the ticks that passed meanwhile one counts.
        late = (loop.time() - tick) // probe.period
        tick += probe.period * max(1.0, late)
        await asyncio.sleep(max(0.0, tick - loop.time()))


async def _ask(ask: Callable[[], Awaitable[Outcome]]) -> Outcome:
    outcome = await ask()
    for _ in range(TRIES - 1):
        if outcome.result is not Result.UNKNOWN:
            break
        outcome = await ask()
    return outcome
