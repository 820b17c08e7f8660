"""Errors <-> google.rpc statuses: the table holds both ways."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from bridge import errors
from bridge.rpc.status import CODES, from_status, to_status

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type)]


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if issubclass(k, errors.BridgeError) and k is not errors.BridgeError]
)
def test_every_kind_survives_the_wire(kind: type[errors.BridgeError]) -> None:
    back = from_status(to_status(kind("words")))
    assert type(back) is kind
    assert back.message == "words"


def test_violations_and_retry_after_travel_as_details() -> None:
    wrong = errors.Violation("spec.hostNetwork", "not here")
    status = to_status(errors.Unsupported(violations=[wrong]))
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert bad.field_violations[0].field == "spec.hostNetwork"
    assert from_status(status).violations == (wrong,)
    throttled = from_status(to_status(errors.Throttled("slow", retry_after=2.5)))
    assert isinstance(throttled, errors.Throttled)
    assert throttled.retry_after == 2.5


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.Ambiguous),
        (grpc.StatusCode.UNIMPLEMENTED, errors.Unsupported),
        (grpc.StatusCode.UNAUTHENTICATED, errors.Unauthorized),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.Throttled),
        (grpc.StatusCode.INTERNAL, errors.Unavailable),
    ],
)
def test_a_status_without_our_details_is_read_by_its_code(
    code: grpc.StatusCode, kind: type[errors.BridgeError]
) -> None:
    assert type(from_status(status_pb2.Status(code=code.value[0], message="m"))) is kind


def test_codes_cover_every_kind_once() -> None:
    assert len(CODES) == len({kind.kind for kind in CODES})
