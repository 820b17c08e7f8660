"""AWS's errors as ours: by code and, where the code says nothing, by message."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from botocore import exceptions as sdk

from bridge.errors import (
    Ambiguous,
    BridgeError,
    NotFound,
    OutOfCapacity,
    QuotaExceeded,
    Throttled,
    Unauthorized,
    Unavailable,
)


class Refused(Unavailable):
    """AWS will not do it as it was asked: the configuration, or something of the account, has to
    be mended. Nothing says that it is the pod's fault."""

    kind = "Refused"


class Inactive(Refused):
    """The task definition was deregistered, by somebody else."""


class Conflict(BridgeError):
    """There is something of that name or token already, and it is another one. `of`: what AWS says
    that is, such as the ARNs of the tasks that a token has launched."""

    kind = "Conflict"

    def __init__(self, message: str = "", *, of: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.of = tuple(of)


def _any(*words: str) -> re.Pattern[str]:
    return re.compile("|".join(words), re.IGNORECASE)


_WORDS: Sequence[tuple[re.Pattern[str], type[BridgeError]]] = [
    # Throttles that have another code; the SDK's own retries do not know them.
    (_any("rate exceeded", "too many concurrent attempts", "errorcode: throttling"), Throttled),
    (_any("capacity is unavailable", "no capacity", "insufficient ?capacity"), OutOfCapacity),
    (_any("(free|available) (private )?(ip )?addresses", "InsufficientFreeAddr"), OutOfCapacity),
    (_any("task ?definition is inactive"), Inactive),
    (_any("unable to describe task definition", "referenced (cluster|task) was not"), NotFound),
    (_any("limit on the number of", "limit exceeded", "quota"), QuotaExceeded),
]
"""What is meant, by its words. First match."""

_CODES: Mapping[str, type[BridgeError]] = {
    **dict.fromkeys(
        (
            "ThrottlingException", "Throttling", "ThrottledException", "TooManyRequestsException",
            "RequestLimitExceeded", "RequestThrottled", "SlowDown", "BandwidthLimitExceeded",
            "PriorRequestNotComplete", "RequestThrottledException",
        ),
        Throttled,
    ),
    **dict.fromkeys(
        (
            "AccessDenied", "AccessDeniedException", "UnrecognizedClientException",
            "InvalidClientTokenId", "ExpiredToken", "ExpiredTokenException", "RequestExpired",
            "SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature",
            "MissingAuthenticationToken", "UnauthorizedOperation", "InvalidAccessKeyId",
            "NotAuthorized", "403",
        ),
        Unauthorized,
    ),
    **dict.fromkeys(
        (
            "ResourceNotFoundException", "ClusterNotFoundException", "NoSuchKey", "NoSuchBucket",
            "404", "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue",
        ),
        NotFound,
    ),
    **dict.fromkeys(
        (
            "ConflictException", "PreconditionFailed", "412", "ConditionalRequestConflict", "409",
            "ResourceExistsException", "ResourceAlreadyExistsException",
        ),
        Conflict,
    ),
    "LimitExceededException": QuotaExceeded,
    # The agent in a container has just begun, or has lost AWS.
    "TargetNotConnectedException": Unavailable,
}  # fmt: skip
"""What is meant, by its code."""

_UNSENT = (
    sdk.EndpointConnectionError,
    sdk.ConnectTimeoutError,
    sdk.ProxyConnectionError,
    sdk.NoRegionError,
    sdk.ParamValidationError,
)
"""After these nothing has happened there."""
_NO_CREDENTIALS = (
    sdk.NoCredentialsError,
    sdk.PartialCredentialsError,
    sdk.CredentialRetrievalError,
    sdk.TokenRetrievalError,
    sdk.ProfileNotFound,
)


def translated(error: Exception, action: str, *, changes: bool) -> BridgeError:
    """One of ours for what a call of the SDK raised. `changes`: whether it may have done something
    all the same. The SDK's own types go no further."""
    if isinstance(error, sdk.ClientError):
        return _answered(error, action, changes=changes)
    if isinstance(error, sdk.NoCredentialsError):
        words = "there are none: `aws configure` keeps some, AWS_PROFILE names others"
        return Unauthorized(f"{action}: {_short(str(error))}: {words}")
    if isinstance(error, _NO_CREDENTIALS):
        return Unauthorized(f"{action}: {_short(str(error))}")
    if isinstance(error, _UNSENT) or not changes:
        return Unavailable(f"{action}: {_short(str(error))}")
    return Ambiguous(f"{action}: the answer was lost: {_short(str(error))}")


def _answered(error: sdk.ClientError, action: str, *, changes: bool) -> BridgeError:
    said: Mapping[str, Any] = error.response.get("Error") or {}
    code, message = str(said.get("Code", "")), str(said.get("Message", ""))
    status = (error.response.get("ResponseMetadata") or {}).get("HTTPStatusCode", 0)
    words = f"{action}: {code}: {_short(message)}" if message else f"{action}: {code}"
    if (found := _CODES.get(code)) is Conflict:
        return Conflict(words, of=error.response.get("resourceIds") or ())
    if found is not None:
        return found(words)
    if (found := meant(message)) is not None:
        return found(words)
    if status >= 500:
        return Ambiguous(words) if changes else Unavailable(words)
    return Refused(words)


def meant(message: str) -> type[BridgeError] | None:
    """What a message says whose code says nothing; None: nothing known."""
    return next((kind for words, kind in _WORDS if words.search(message)), None)


def _short(message: str, most: int = 512) -> str:
    return message if len(message) <= most else f"{message[: most - 3]}..."
