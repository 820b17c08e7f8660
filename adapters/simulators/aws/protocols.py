"""The JSON and query protocols: requests become values, answers and errors become bytes.

Values are those of `shapes`. Nothing here knows any service.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from botocore.model import OperationModel, Shape

from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.shapes import Json, Mismatch
from adapters.simulators.common import timestamps
from adapters.simulators.common.web import Answer


def parse_json(body: bytes, shape: Shape | None) -> Json:
    """A JSON request's values. Mismatch: a type that cannot be; ValueError: no JSON object."""
    raw = json.loads(body or b"{}")
    if not isinstance(raw, dict):
        raise ValueError("the body is not a JSON object")
    if shape is None:
        return {}
    parsed: Json = _from_json(raw, shape, "")
    return parsed


def _from_json(raw: Any, shape: Shape, path: str) -> Any:
    kind = shape.type_name
    if kind == "structure" and isinstance(raw, dict):
        # A null is a member that is not there.
        return {
            name: _from_json(item, shape.members[name], f"{path}.{name}" if path else name)
            if name in shape.members
            else item
            for name, item in raw.items()
            if item is not None
        }
    if kind == "list" and isinstance(raw, list):
        return [_from_json(one, shape.member, f"{path}.{at}") for at, one in enumerate(raw, 1)]
    if kind == "map" and isinstance(raw, dict):
        return {key: _from_json(item, shape.value, f"{path}.{key}") for key, item in raw.items()}
    if kind == "blob" and isinstance(raw, str):
        try:
            return base64.b64decode(raw, validate=True)
        except binascii.Error:
            raise Mismatch(path, "type", "Expected base64", raw) from None
    if kind == "timestamp" and isinstance(raw, str):
        return timestamps.parse(raw)
    return raw


def write_json(value: Json, shape: Shape | None) -> bytes:
    """An answer's body."""
    return json.dumps(_to_json(value, shape) if shape is not None else {}).encode()


def _to_json(value: Any, shape: Shape) -> Any:
    kind = shape.type_name
    if kind == "structure":
        return {
            shape.members[name].serialization.get("name", name): _to_json(item, shape.members[name])
            for name, item in value.items()
        }
    if kind == "list":
        return [_to_json(one, shape.member) for one in value]
    if kind == "map":
        return {key: _to_json(item, shape.value) for key, item in value.items()}
    if kind == "blob":
        return base64.b64encode(value).decode()
    if kind == "timestamp":
        return round(value, 3)
    return value


def json_error(error: ApiError, version: str) -> Answer:
    """An error as JSON services send it."""
    body = {"__type": error.code, "message": error.message, **error.fields}
    headers = {"Content-Type": f"application/x-amz-json-{version}", "x-amzn-ErrorType": error.code}
    if error.query_code:
        headers["x-amzn-query-error"] = f"{error.query_code};Sender"
    return Answer(error.status, json.dumps(body).encode(), headers)


def parse_query(body: bytes, operation: OperationModel) -> Json:
    """A query request's values: flat members only, which is all that the services here have."""
    given = dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True))
    shape = operation.input_shape
    members = shape.members if shape is not None else {}
    values: Json = {}
    for name, text in given.items():
        if name in ("Action", "Version"):
            continue
        kind = members[name].type_name if name in members else ""
        values[name] = int(text) if kind in ("integer", "long") else text
    return values


def write_query(value: Json, operation: OperationModel, request_id: str, namespace: str) -> bytes:
    """An answer's body: strings only."""
    inner = "".join(f"<{name}>{escape(str(item))}</{name}>" for name, item in value.items())
    name = operation.name
    return (
        f'<{name}Response xmlns="{namespace}"><{name}Result>{inner}</{name}Result>'
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{name}Response>"
    ).encode()


def query_error(error: ApiError, request_id: str, namespace: str) -> Answer:
    """An error as query services send it."""
    who = "Sender" if error.status < 500 else "Receiver"
    body = (
        f'<ErrorResponse xmlns="{namespace}"><Error><Type>{who}</Type><Code>{error.code}</Code>'
        f"<Message>{escape(error.message)}</Message></Error>"
        f"<RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    return Answer(error.status, body.encode(), {"Content-Type": "text/xml"})
