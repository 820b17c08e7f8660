"""Budgets instead of luck: a token bucket for each API family of a backend's account and region.

Callers wait their turn, first come first served. A throttle halves the rate at once; each quiet
second wins a little of it back, so that a shared account finds its level.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from bridge.adapter import Rate
from bridge.bucket import Bucket
from bridge.errors import Throttled

T = TypeVar("T")


class Budgets:
    """The budgets of one backend by family; a family without a documented limit never waits."""

    def __init__(
        self, rates: Mapping[str, Rate], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._buckets = {family: Bucket(rate, clock) for family, rate in rates.items()}

    async def call(self, family: str, make: Callable[[], Awaitable[T]]) -> T:
        """Makes one call when it is its turn."""
        bucket = self._buckets.get(family)
        if bucket is None:
            return await make()
        await bucket.take()
        try:
            return await make()
        except Throttled:
            bucket.throttled()
            raise
