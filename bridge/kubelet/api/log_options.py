"""Which part of a log is wanted: the query of a request, decoded and judged as the kubelet does it
(v1.PodLogOptions; ValidatePodLogOptions)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from aiohttp import web
from google.protobuf.timestamp_pb2 import Timestamp

from bridge.rpc.v1 import provider_pb2 as pb
from bridge.rpc.v1 import stream_pb2
from bridge.times import parse_rfc3339

_STREAMS = {
    "All": stream_pb2.STREAM_UNSPECIFIED,
    "Stdout": stream_pb2.STREAM_STDOUT,
    "Stderr": stream_pb2.STREAM_STDERR,
}
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,30}))?(Z|[+-]\d\d:\d\d)")
_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")
_LARGEST = 2**63 - 1


def log_request(query: Mapping[str, str]) -> pb.GetContainerLogsRequest:
    """The options of a request for a log; which pod's and container's is left open.

    HTTPBadRequest: a value is not of its type. HTTPUnprocessableEntity: one is not allowed.
    """
    asked = dict(query)
    if tail := asked.pop("tail", ""):
        # The name of old; "all" is what is given without it.
        asked.pop("tailLines", None)
        if tail != "all":
            asked["tailLines"] = tail
    request = pb.GetContainerLogsRequest(
        follow=_flag(asked, "follow"),
        previous=_flag(asked, "previous"),
        timestamps=_flag(asked, "timestamps"),
        since_seconds=_number(asked, "sinceSeconds"),
        since_time=_time(asked, "sinceTime"),
        tail_lines=_number(asked, "tailLines"),
        limit_bytes=_number(asked, "limitBytes"),
    )
    if wrong := _violations(request, asked.get("stream", "All")):
        text = json.dumps({"message": f"Invalid request. {'; '.join(wrong)}"})
        raise web.HTTPUnprocessableEntity(text=text)
    request.stream = _STREAMS[asked.get("stream", "All")]
    return request


def _violations(request: pb.GetContainerLogsRequest, stream: str) -> list[str]:
    wrong = []
    if request.HasField("tail_lines") and request.tail_lines < 0:
        wrong.append(
            f"tailLines: Invalid value: {request.tail_lines}: must be greater than or equal to 0"
        )
    if request.HasField("limit_bytes") and request.limit_bytes < 1:
        wrong.append(f"limitBytes: Invalid value: {request.limit_bytes}: must be greater than 0")
    if request.HasField("since_seconds"):
        if request.HasField("since_time"):
            wrong.append("Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified")
        elif request.since_seconds < 1:
            wrong.append(
                f"sinceSeconds: Invalid value: {request.since_seconds}: must be greater than 0"
            )
    if stream not in _STREAMS:
        allowed = ", ".join(f'"{name}"' for name in _STREAMS)
        wrong.append(
            f"stream: Unsupported value: {json.dumps(stream[:64])}: supported values: {allowed}"
        )
    elif stream != "All" and request.HasField("tail_lines"):
        wrong.append("Forbidden: `tailLines` and specific `stream` are mutually exclusive for now")
    return wrong


def _flag(query: Mapping[str, str], name: str) -> bool:
    """As Go has it: what is there and neither "0" nor "false" is true, the empty text too."""
    value = query.get(name)
    return value is not None and value != "0" and value.lower() != "false"


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or abs(int(text)) > _LARGEST:
        raise _undecodable()
    return int(text)


def _time(query: Mapping[str, str], name: str) -> Timestamp | None:
    text = query.get(name, "")
    if text in ("", "null"):
        return None
    if not (found := _TIME.fullmatch(text)):
        raise _undecodable()
    whole, fraction, zone = found.groups()
    try:
        seconds = parse_rfc3339(whole + zone)
    except (ValueError, OverflowError):
        raise _undecodable() from None
    return Timestamp(seconds=int(seconds), nanos=int((fraction or "")[:9].ljust(9, "0")))


def _undecodable() -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text='{"message": "Unable to decode query."}')
