"""What is to go wrong, how often, and whether it does now."""

from __future__ import annotations

from collections.abc import Mapping

from adapters.simulators.aws.buckets import throttled
from adapters.simulators.aws.ecs.refusals import CONCURRENT, client, invalid
from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.settings import Fault
from adapters.simulators.common.faults import Chances


class Faults(Chances[Fault]):
    """All faults of the account."""

    def of_call(self, service: str, action: str, key: str | None = None) -> list[Fault]:
        """What befalls this call. `key`: the access key of who calls; None: AWS itself does."""
        return self.striking(
            lambda one: bool(
                one.befalls_calls
                and one.service in ("*", service)
                and one.action in ("*", action)
                and (one.kind != "expired-token" or (key and one.key in ("", key)))
            )
        )

    def of_task(self) -> list[Fault]:
        """What befalls a task that is about to be launched."""
        return self.striking(lambda one: one.befalls_tasks)

    def of_page(self) -> bool:
        """Whether a page of GetLogEvents comes empty, though there is more."""
        return bool(self._struck("empty-page"))

    def of_event(self) -> list[float]:
        """When an event comes: in how many seconds of the cloud's, once for each time it does."""
        late = max((one.seconds for one in self._struck("late-event")), default=0.0)
        return [late, *(late + one.seconds for one in self._struck("repeat-event"))]

    def _struck(self, kind: str) -> list[Fault]:
        """Those of that kind that strike now."""
        return self.striking(lambda one: one.kind == kind)


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
