"""Token buckets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adapters.simulators.common.clock import Clock


@dataclass(frozen=True, slots=True)
class Limit:
    """So many calls at once, refilled at so many a second of the cloud's."""

    burst: float
    per_second: float


class Levels:
    """Buckets by their names, all full at first."""

    def __init__(self, clock: Clock, limits: Mapping[str, Limit]) -> None:
        self._clock = clock
        self._limits = limits
        self._levels: dict[str, tuple[float, float]] = {}
        """By bucket: tokens, and when there were that many."""

    def takes(self, wanted: Mapping[str, float]) -> bool:
        """Takes from all of the buckets or, where one has too little, from none: False."""
        levels = {name: self.level(name) for name in wanted}
        if any(levels[name] < amount for name, amount in wanted.items()):
            return False
        now = self._clock.now()
        for name, amount in wanted.items():
            self._levels[name] = (levels[name] - amount, now)
        return True

    def limit(self, name: str) -> Limit:
        """What a bucket holds: those that nobody has named are like the one before the first /."""
        return self._limits.get(name) or self._limits[name.partition("/")[0]]

    def level(self, name: str) -> float:
        """Tokens that are in a bucket now."""
        limit = self.limit(name)
        tokens, at = self._levels.get(name, (limit.burst, self._clock.now()))
        return min(limit.burst, tokens + self._clock.passed(at) * limit.per_second)
