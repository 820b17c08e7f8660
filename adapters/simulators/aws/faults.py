"""What is to go wrong, how often, and whether it does now."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from adapters.simulators.aws.buckets import throttled
from adapters.simulators.aws.ecs.refusals import CONCURRENT, client, invalid
from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.settings import Fault
from adapters.simulators.aws.shapes import Json


@dataclass(slots=True)
class Active:
    """A fault that is in force."""

    id: str
    fault: Fault
    happened: int = 0

    @property
    def is_spent(self) -> bool:
        """Whether it has happened as often as it should."""
        return self.fault.times is not None and self.happened >= self.fault.times

    def as_json(self) -> Json:
        """For the control API."""
        return {"id": self.id, "happened": self.happened, **self.fault.model_dump()}


class Faults:
    """All faults; chance is by one seed, so that the same calls meet the same faults."""

    def __init__(self, seed: int, faults: Iterable[Fault] = ()) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._active: dict[str, Active] = {}
        self._made = 0
        for one in faults:
            self.add(one)

    def add(self, fault: Fault) -> Active:
        """Puts it in force."""
        self._made += 1
        made = Active(f"fault-{self._made}", fault)
        self._active[made.id] = made
        return made

    def remove(self, id_: str) -> bool:
        """Takes it back; False where there is none."""
        return self._active.pop(id_, None) is not None

    def clear(self) -> None:
        """Takes all back."""
        self._active.clear()

    def all(self) -> Sequence[Active]:
        """Those in force and those that are spent."""
        return list(self._active.values())

    def of_call(self, service: str, action: str, key: str | None = None) -> list[Fault]:
        """What befalls this call. `key`: the access key of who calls; None: AWS itself does."""
        return [
            one.fault
            for one in self._active.values()
            if one.fault.befalls_calls
            and one.fault.service in ("*", service)
            and one.fault.action in ("*", action)
            and (one.fault.kind != "expired-token" or (key and one.fault.key in ("", key)))
            and self._strikes(one)
        ]

    def of_task(self) -> list[Fault]:
        """What befalls a task that is about to be launched."""
        return [
            one.fault
            for one in self._active.values()
            if one.fault.befalls_tasks and self._strikes(one)
        ]

    def of_page(self) -> bool:
        """Whether a page of GetLogEvents comes empty, though there is more."""
        return bool(self._struck("empty-page"))

    def of_event(self) -> list[float]:
        """When an event comes: in how many seconds of the cloud's, once for each time it does."""
        late = max((one.seconds for one in self._struck("late-event")), default=0.0)
        return [late, *(late + one.seconds for one in self._struck("repeat-event"))]

    def _struck(self, kind: str) -> list[Fault]:
        """Those of that kind that strike now."""
        return [
            one.fault
            for one in self._active.values()
            if one.fault.kind == kind and self._strikes(one)
        ]

    def _strikes(self, one: Active) -> bool:
        if one.is_spent or self._random.random() >= one.fault.probability:
            return False
        one.happened += 1
        return True


_THROTTLES: Mapping[str, ApiError] = {
    "s3": ApiError("SlowDown", "Please reduce your request rate.", 503),
    "sqs": ApiError(
        "com.amazonaws.sqs#RequestThrottled", "Rate exceeded", query_code="RequestThrottled"
    ),
    "sts": ApiError("Throttling", "Rate exceeded"),
}
"""Where it is not ThrottlingException."""
_EXPIRED_WORDS = "The security token included in the request is expired"
_EXPIRED: Mapping[str, ApiError] = {
    "s3": ApiError("ExpiredToken", "The provided token has expired."),
    "sqs": ApiError(
        "com.amazon.coral.service#ExpiredTokenException",
        _EXPIRED_WORDS,
        403,
        query_code="ExpiredToken",
    ),
    "sts": ApiError("ExpiredToken", _EXPIRED_WORDS, 403),
}
"""Where it is not ExpiredTokenException."""
_ERRORS: Mapping[str, str] = {
    "ecs": "ServerException",
    "events": "InternalException",
    "kms": "KMSInternalException",
    "logs": "ServiceUnavailableException",
    "s3": "InternalError",
    "secretsmanager": "InternalServiceError",
    "service-quotas": "ServiceException",
    "sqs": "InternalError",
    "ssm": "InternalServerError",
    "sts": "InternalFailure",
}
"""What a service calls an error of its own."""


def error_of(fault: Fault, service: str) -> ApiError | None:
    """What a fault that is an answer is answered with; None for other kinds."""
    if fault.kind == "error":
        words = "Service Unavailable. Please try again."
        return ApiError(_ERRORS[service], words, fault.status)
    if fault.kind == "expired-token":
        return _EXPIRED.get(service, ApiError("ExpiredTokenException", _EXPIRED_WORDS, 403))
    if fault.kind != "throttle":
        return None
    if fault.flavour == "concurrent-revision":
        return client(CONCURRENT)
    if fault.flavour == "ec2":
        return invalid("Error retrieving subnet information: Rate exceeded (ErrorCode: Throttling)")
    return _THROTTLES.get(service, throttled())
