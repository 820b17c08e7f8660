"""Time as the simulated cloud keeps it: this machine's clock, and durations that can be shortened.

Timestamps are real ones, so that they can be compared with everybody else's. Every duration that
the cloud keeps (provisioning, retention, timeouts, a bucket's refill) takes `scale` times less.
Some of its time can be skipped: then whatever waits or expires is so much older.
"""

from __future__ import annotations

import asyncio
import contextlib
import time


class Clock:
    """`scale` 60: a minute of the cloud's takes a second."""

    def __init__(self, scale: float = 1.0) -> None:
        if scale <= 0:
            raise ValueError(f"a time scale is above 0, not {scale}")
        self.scale = scale
        self._skips: list[tuple[float, float]] = []
        """When some of the cloud's time was skipped, and how many seconds."""
        self._skipped = asyncio.Event()

    def skip(self, seconds: float) -> None:
        """So many seconds of the cloud's pass at once. What containers do takes its own time."""
        self._skips.append((self.now(), seconds))
        self._skipped.set()
        self._skipped = asyncio.Event()

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def passed(self, since: float) -> float:
        """Seconds of the cloud's that have passed since that moment."""
        skipped = sum(seconds for at, seconds in self._skips if at >= since)
        return (self.now() - since) * self.scale + skipped

    def real(self, seconds: float) -> float:
        """What so many seconds of the cloud's take here."""
        return seconds / self.scale

    async def sleep(self, seconds: float) -> None:
        """Waits so many seconds of the cloud's."""
        begun = self.now()
        while (left := self.real(seconds - self.passed(begun))) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._skipped.wait()
