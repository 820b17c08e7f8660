"""Errors of ours <-> google.rpc statuses: one table, read both ways."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from bridge import errors

DOMAIN = "podbridge.io"
"""ErrorInfo's domain: whose kinds these are."""

CODES: dict[type[errors.BridgeError], grpc.StatusCode] = {
    errors.Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unsupported: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unauthorized: grpc.StatusCode.PERMISSION_DENIED,
    errors.QuotaExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.OutOfCapacity: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Throttled: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Ambiguous: grpc.StatusCode.ABORTED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.SandboxFailed: grpc.StatusCode.UNAVAILABLE,
}
"""Each kind's code. Several kinds share one; ErrorInfo.reason tells them apart."""

_BY_KIND = {error.kind: error for error in CODES}

_BY_CODE: dict[grpc.StatusCode, type[errors.BridgeError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.Invalid,
    grpc.StatusCode.OUT_OF_RANGE: errors.Invalid,
    grpc.StatusCode.FAILED_PRECONDITION: errors.Unsupported,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unsupported,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthorized,
    grpc.StatusCode.PERMISSION_DENIED: errors.Unauthorized,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Throttled,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ABORTED: errors.Ambiguous,
    grpc.StatusCode.CANCELLED: errors.Ambiguous,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.Ambiguous,
    grpc.StatusCode.UNKNOWN: errors.Unavailable,
    grpc.StatusCode.INTERNAL: errors.Unavailable,
    grpc.StatusCode.DATA_LOSS: errors.Unavailable,
    grpc.StatusCode.ALREADY_EXISTS: errors.Ambiguous,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
}
"""What a status without our ErrorInfo means to the caller: a peer, a proxy, gRPC itself."""


def to_status(error: errors.BridgeError) -> status_pb2.Status:
    """A google.rpc.Status with the details that its kind has."""
    code = next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)
    details = [error_details_pb2.ErrorInfo(reason=error.kind, domain=DOMAIN)]
    packed = [_pack(detail) for detail in details]
    if error.violations:
        bad = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad.field_violations.add(field=violation.field, description=violation.message)
        packed.append(_pack(bad))
    if isinstance(error, errors.Throttled) and error.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        packed.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=code.value[0], message=error.message, details=packed)


def from_status(status: status_pb2.Status) -> errors.BridgeError:
    """The error that a google.rpc.Status says."""
    kind = ""
    violations: list[errors.Violation] = []
    retry_after: float | None = None
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            kind = info.reason
        elif detail.Unpack(bad):
            violations += [
                errors.Violation(one.field, one.description) for one in bad.field_violations
            ]
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    code = _code(status.code)
    error = _BY_KIND.get(kind) or _BY_CODE.get(code, errors.Unavailable)
    if error is errors.Throttled:
        return errors.Throttled(status.message, retry_after=retry_after)
    return error(status.message, violations=violations)


def from_rpc_error(error: grpc.RpcError) -> errors.BridgeError:
    """The error that a failed call says."""
    status = rpc_status.from_call(error)
    if status is None:
        status = status_pb2.Status(code=error.code().value[0], message=error.details() or "")
    return from_status(status)


def _code(number: int) -> grpc.StatusCode:
    for code in grpc.StatusCode:
        if code.value[0] == number:
            return code
    return grpc.StatusCode.UNKNOWN


def _pack(message: Message) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed
