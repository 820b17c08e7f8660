"""Budgets instead of luck: a token bucket for each API family of an account and region.

Callers wait their turn, first come first served. A throttle halves the rate at once; each quiet
second wins a little of it back, so that a shared account finds its level.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from bridge.adapter import Rate
from bridge.errors import Throttled

_T = TypeVar("_T")

RECOVERY = 0.02
"""The part of the full rate that comes back in each second after a throttle."""
LOWEST = 0.05
"""The part of the full rate below which throttles do not push it."""


class Bucket:
    """One API family's budget. `clock` gives seconds that never go back."""

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._full = rate.per_second * rate.share
        self._burst = max(1.0, rate.burst * rate.share)
        self._rate = self._full
        self._tokens = self._burst
        self._clock = clock
        self._at = clock()
        self._turn = asyncio.Lock()

    @property
    def per_second(self) -> float:
        """The rate in force."""
        return self._rate

    async def take(self) -> None:
        """Waits for one call's turn."""
        async with self._turn:
            self._refill()
            while self._tokens < 1:
                await asyncio.sleep((1 - self._tokens) / self._rate)
                self._refill()
            self._tokens -= 1

    def throttled(self) -> None:
        """The other side said too much: half the rate, and nothing saved up."""
        self._refill()
        self._rate = max(self._full * LOWEST, self._rate / 2)
        self._tokens = min(self._tokens, 0.0)

    def _refill(self) -> None:
        now = self._clock()
        elapsed, self._at = now - self._at, now
        self._tokens = min(self._burst, self._tokens + elapsed * self._rate)
        self._rate = min(self._full, self._rate + elapsed * self._full * RECOVERY)


class Budgets:
    """Those of one backend, by family; a family without a documented limit never waits."""

    def __init__(
        self, rates: Mapping[str, Rate], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._buckets = {family: Bucket(rate, clock) for family, rate in rates.items()}

    async def call(self, make: Callable[[], Awaitable[_T]], *families: str) -> _T:
        """Makes one call when it is its turn in each of these families."""
        buckets = [found for one in families if (found := self._buckets.get(one)) is not None]
        for one in buckets:
            await one.take()
        try:
            return await make()
        except Throttled:
            for one in buckets:
                one.throttled()
            raise
