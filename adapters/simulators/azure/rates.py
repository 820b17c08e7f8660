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
_SPANS = (("pt5m", 300.0), ("pt1h", 3600.0))
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
        taken = self._levels.takes({own: 1.0, everybody: 1.0})
        if not taken:
            per_second = self._levels.limit(own).per_second
            short = (1.0 - min(self._levels.level(own), self._levels.level(everybody))) / per_second
            raise self.throttled(method, caller, short)
        return {
            f"x-ms-ratelimit-remaining-subscription-{kind}": str(int(self._levels.level(own))),
            f"x-ms-ratelimit-remaining-subscription-{everybody}": str(
                int(self._levels.level(everybody))
            ),
        }

    def provider(self, method: str, location: str) -> dict[str, str]:
        """Counts a create or a delete in a region; the headers of its answer. ArmError 429."""
        called = self._called.setdefault((method, location), deque())
        while called and self._clock.passed(called[0]) >= _SPANS[-1][1]:
            called.popleft()
        left = {}
        for allowed, (name, span) in zip(self._allowed[method], _SPANS, strict=True):
            recent = [at for at in called if self._clock.passed(at) < span]
            if len(recent) >= allowed:
                wait = span - self._clock.passed(recent[0]) if recent else span
                raise self.too_many(wait)
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

    def too_many(self, seconds: float) -> ArmError:
        """The provider's refusal, for so many seconds of the cloud's."""
        words = "Too many requests for container groups in this region. Please try again later."
        return ArmError(429, "TooManyRequests", words, {"Retry-After": self._after(seconds)})

    def _after(self, seconds: float) -> str:
        """Of this machine's seconds, whole ones."""
        return str(max(1, math.ceil(self._clock.real(seconds))))
