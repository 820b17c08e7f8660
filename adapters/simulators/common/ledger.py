"""Who called what, when and with which answer. Never any values."""

from __future__ import annotations

from collections import Counter

from adapters.simulators.common.clock import Clock
from adapters.simulators.common.web import Json

SECONDS = 3600
"""How many of the latest seconds with calls are kept."""


class Calls:
    """Everything since the start."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._actions: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._throttled: Counter[str] = Counter()
        self._callers: Counter[str] = Counter()
        self._seconds: dict[int, Counter[str]] = {}

    def count(self, action: str, caller: str, code: str, *, throttled: bool) -> None:
        """One call; `code` is that of its error, empty where it succeeded."""
        self._actions[action] += 1
        self._callers[caller] += 1
        second = int(self._clock.now())
        if second not in self._seconds:
            while len(self._seconds) >= SECONDS:
                del self._seconds[next(iter(self._seconds))]
            self._seconds[second] = Counter()
        self._seconds[second][action] += 1
        if code:
            self._errors[f"{action} {code}"] += 1
        if throttled:
            self._throttled[action] += 1

    def calls(self) -> Json:
        """For the control API."""
        return {
            "total": sum(self._actions.values()),
            "byAction": dict(self._actions),
            "byCaller": dict(self._callers),
            "bySecond": [
                {"second": second, "calls": dict(counts)}
                for second, counts in self._seconds.items()
            ],
            "errors": dict(self._errors),
            "throttled": dict(self._throttled),
        }
