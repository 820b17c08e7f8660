"""Errors, named by what the caller does about them.

Only a permanent error (`permanent = True`) may ever fail a pod; everything else leaves the pod as
it is and is tried again. No SDK's exception type leaves `adapters/`: each adapter maps its own to
these by table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with an input, and where.

    `field` is the path in the API's own spelling (`spec.containers[0].image`), empty where the
    input as a whole is meant. `message` says what was found and what is allowed. `source` is the
    file, with the document's number where the file has several ("job.yaml, document 2").
    """

    field: str
    message: str
    source: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.source, self.field, self.message) if part)


class BridgeError(Exception):
    """The base of every error that crosses a seam: a message, and where the input was wrong."""

    kind: ClassVar[str] = "Unknown"
    permanent: ClassVar[bool] = False

    def __init__(self, message: str = "", *, violations: Iterable[Violation] = ()) -> None:
        self.violations: tuple[Violation, ...] = tuple(violations)
        self.message = message or "; ".join(map(str, self.violations)) or self.kind
        super().__init__(self.message)


class Invalid(BridgeError):
    """The input is wrong: mend it. Nothing was started. The same call will never succeed."""

    kind = "Invalid"
    permanent = True


class Unsupported(BridgeError):
    """The input is right, but this backend cannot do it: use another, or drop the field."""

    kind = "Unsupported"
    permanent = True


class Unauthorized(BridgeError):
    """Credentials are missing, expired or too narrow: a person must mend that; pods stay."""

    kind = "Unauthorized"


class QuotaExceeded(BridgeError):
    """The account's or the operator's limit is reached: try elsewhere, or wait for room."""

    kind = "QuotaExceeded"


class OutOfCapacity(BridgeError):
    """The backend has no room of this kind now: try elsewhere, or later."""

    kind = "OutOfCapacity"


class Throttled(BridgeError):
    """Too many calls: wait `retry_after` seconds (None: by the caller's own back-off)."""

    kind = "Throttled"

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Ambiguous(BridgeError):
    """The answer was lost: it may have happened. Look and adopt; never simply do it again."""

    kind = "Ambiguous"


class NotFound(BridgeError):
    """There is no such thing (here, or yet)."""

    kind = "NotFound"


class Unavailable(BridgeError):
    """The other side does not answer: nothing is known to be wrong; try again later."""

    kind = "Unavailable"


class SandboxFailed(Unavailable):
    """The backend answers, and fails to make what a pod's containers share, through no fault of the
    pod that is known: a person must look at the backend; it is tried again."""

    kind = "FailedCreatePodSandBox"
