"""Time as the simulated cloud keeps it: this machine's clock, and durations that can be shortened.

Timestamps are real ones, so that they can be compared with everybody else's. Every duration that
the cloud keeps (provisioning, retention, timeouts, a bucket's refill) takes `scale` times less.
"""

from __future__ import annotations

import asyncio
import time


class Clock:
    """`scale` 60: a minute of the cloud's takes a second."""

    def __init__(self, scale: float = 1.0) -> None:
        if scale <= 0:
            raise ValueError(f"a time scale is above 0, not {scale}")
        self.scale = scale

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def passed(self, since: float) -> float:
        """Seconds of the cloud's that have passed since that moment."""
        return (self.now() - since) * self.scale

    def real(self, seconds: float) -> float:
        """What so many seconds of the cloud's take here."""
        return seconds / self.scale

    async def sleep(self, seconds: float) -> None:
        """Waits so many seconds of the cloud's."""
        await asyncio.sleep(self.real(seconds))
