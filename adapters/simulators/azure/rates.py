"""How often a subscription may call: ARM's token buckets, and the provider's windows.

Sources: "Understand how Azure Resource Manager throttles requests" (buckets by subscription,
principal and kind, and 15 times that for all principals together); "Resource availability & quota
limits for ACI" (creates and deletes in 5 minutes and an hour). The remaining calls are told by the
headers that ARM and ACI are seen to send.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from adapters.simulators.azure.errors import ArmError
from adapters.simulators.azure.settings import Settings
from adapters.simulators.common.buckets import Levels, Limit
from adapters.simulators.common.clock import Clock

LIMITS: Mapping[str, Limit] = {
    "reads": Limit(250, 25),
    "writes": Limit(200, 10),
    "deletes": Limit(200, 10),
}
_ALL = 15
"""So many times a principal's limit is that of a subscription."""
_SPANS = (("pt5m", "00:05:00", 300.0), ("pt1h", "01:00:00", 3600.0))
_ACTIONS = {"PUT": "ContainerGroupCreation", "DELETE": "ContainerGroupDeletion"}
_KINDS = {"GET": "reads", "HEAD": "reads", "DELETE": "deletes"}


def kind_of(method: str) -> str:
    """`reads`, `writes` or `deletes`."""
    return _KINDS.get(method, "writes")


class Rates:
    """All that is counted."""

    def __init__(self, clock: Clock, settings: Settings) -> None:
        self._clock = clock
        self._subscription = settings.subscription
        limits: dict[str, Limit] = dict(LIMITS)
        for given, bucket in settings.buckets.items():
            limits[given] = Limit(bucket.burst, bucket.per_second)
        for name, one in list(limits.items()):
            limits[f"global-{name}"] = Limit(_ALL * one.burst, _ALL * one.per_second)
        self._levels = Levels(clock, limits)
        self._allowed = {"PUT": settings.creates, "DELETE": settings.deletes}
        self._called: dict[tuple[str, str], deque[float]] = {}

    def arm(self, method: str, caller: str) -> dict[str, str]:
        """Takes one call from ARM's buckets; the headers of its answer. ArmError 429."""
        kind = kind_of(method)
        own, everybody = f"{kind}/{caller}", f"global-{kind}"
        if not self._levels.takes({own: 1.0, everybody: 1.0}):
            wait = max(self._wait(own), self._wait(everybody))
            raise self.throttled(method, caller, wait)
        return {
            f"x-ms-ratelimit-remaining-subscription-{kind}": str(int(self._levels.level(own))),
            f"x-ms-ratelimit-remaining-subscription-{everybody}": str(
                int(self._levels.level(everybody))
            ),
        }

    def _wait(self, bucket: str) -> float:
        """Seconds until it has a token."""
        return (1.0 - self._levels.level(bucket)) / self._levels.limit(bucket).per_second

    def provider(self, method: str, location: str) -> dict[str, str]:
        """Counts a create or a delete in a region; the headers of its answer. ArmError 429."""
        called = self._called.setdefault((method, location), deque())
        while called and self._clock.passed(called[0]) >= _SPANS[-1][-1]:
            called.popleft()
        left = {}
        for allowed, (name, interval, span) in zip(self._allowed[method], _SPANS, strict=True):
            recent = [at for at in called if self._clock.passed(at) < span]
            if len(recent) >= allowed:
                # As soon as so many are left in the span that one more is allowed.
                wait = span - self._clock.passed(recent[-allowed]) if allowed else span
                raise self._too_many(method, allowed, interval, wait)
            left[name] = allowed - len(recent) - 1
        called.append(self._clock.now())
        header = "x-ms-ratelimit-remaining-subscription-resource-requests"
        return {f"{header}-{name}": str(count) for name, count in left.items()}

    def throttled(self, method: str, caller: str, seconds: float) -> ArmError:
        """ARM's own refusal, for so many seconds of the cloud's."""
        after = self._after(seconds)
        words = (
            f"Number of '{kind_of(method).removesuffix('s')}' requests for subscription"
            f" '{self._subscription}' actor '{caller}' exceeded. Please try again after"
            f" '{after}' seconds."
        )
        return ArmError(429, "SubscriptionRequestsThrottled", words, {"Retry-After": after})

    def too_many(self, method: str, seconds: float) -> ArmError:
        """The provider's refusal, for so many seconds of the cloud's."""
        known = method if method in _ACTIONS else "PUT"
        return self._too_many(known, self._allowed[known][0], _SPANS[0][1], seconds)

    def _too_many(self, method: str, allowed: int, interval: str, seconds: float) -> ArmError:
        after = self._after(seconds)
        words = (
            f"Number of requests for action '{_ACTIONS[method]}' exceeded the limit of '{allowed}'"
            f" for time interval '{interval}'. Please try again after '{int(after) / 60:.2f}'"
            " minutes."
        )
        return ArmError(429, "TooManyRequests", words, {"Retry-After": after})

    def _after(self, seconds: float) -> str:
        """Of this machine's seconds, whole ones."""
        return str(max(1, math.ceil(self._clock.real(seconds))))
