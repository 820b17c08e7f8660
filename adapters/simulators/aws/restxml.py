"""The rest-xml protocol, by the model: which operation a request is, its values, and the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from botocore.model import OperationModel, Shape

from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.models import model
from adapters.simulators.aws.shapes import Json, Mismatch
from adapters.simulators.common import timestamps
from adapters.simulators.common.web import Answer, Request


@dataclass(frozen=True, slots=True)
class _Route:
    """How an operation is told from the others."""

    operation: OperationModel
    method: str
    labels: int
    """1: a bucket; 2: a bucket and a key; 0: neither."""
    literals: frozenset[str]
    """What the query has to have."""
    headers: frozenset[str]
    """Headers that the request has to have."""


@cache
def _routes(service: str) -> tuple[_Route, ...]:
    found = []
    for name in model(service).operation_names:
        operation = model(service).operation_model(name)
        path, _, query = operation.http["requestUri"].partition("?")
        literals = {one.partition("=")[0] for one in query.split("&") if one}
        headers = set()
        shape = operation.input_shape
        for member in shape.required_members if shape is not None else ():
            place = shape.members[member].serialization
            if place.get("location") == "querystring":
                literals.add(place["name"])
            if place.get("location") == "header":
                headers.add(place["name"].lower())
        found.append(
            _Route(operation, operation.http["method"], path.count("{"), frozenset(literals),
                   frozenset(headers))
        )  # fmt: skip
    return tuple(found)


def operation_of(
    service: str, request: Request, simulated: Mapping[str, Any]
) -> OperationModel | None:
    """What the request asks for: of all operations that fit, the most specific; of those that are
    equally so, one that is simulated."""
    bucket, key = split(request.path)
    labels = (1 if bucket else 0) + (1 if key else 0)
    given = request.parameters.keys()
    fitting = [
        one
        for one in _routes(service)
        if one.method == request.method
        and one.labels == labels
        and one.literals <= given
        and one.headers <= request.headers.keys()
    ]
    fitting.sort(
        key=lambda one: (len(one.literals), len(one.headers), one.operation.name in simulated)
    )
    return fitting[-1].operation if fitting else None


def split(path: str) -> tuple[str, str]:
    """Bucket and key of a path-style request."""
    bucket, _, key = path.removeprefix("/").partition("/")
    return unquote(bucket), unquote(key)


def parse(request: Request, operation: OperationModel) -> Json:
    """The request's values. Mismatch; ApiError MalformedXML."""
    shape = operation.input_shape
    values: Json = {}
    if shape is None:
        return values
    labels = split(request.path)
    names = re.findall(r"\{(\w+)\+?\}", operation.http["requestUri"])
    payload = shape.serialization.get("payload")
    for name, member in shape.members.items():
        place = member.serialization
        location = place.get("location")
        found: Any = None
        if location == "uri":
            found = labels[names.index(place["name"])]
        elif location == "querystring":
            found = request.parameters.get(place["name"])
        elif location == "header":
            found = request.headers.get(place["name"].lower())
        elif location == "headers":
            values[name] = dict(_prefixed(request.headers, place["name"].lower()))
        if found is not None:
            values[name] = _scalar(found, member, name)
    if payload is not None:
        values |= _payload(request.body, payload, shape.members[payload])
    return values


def _prefixed(headers: Mapping[str, str], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in headers.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), value


def _payload(body: bytes, name: str, shape: Shape) -> Json:
    if shape.type_name == "blob":
        return {name: body}
    if not body:
        return {}
    try:
        # Expat knows no external entities here, and limits expansion.
        root = ElementTree.fromstring(body)  # noqa: S314 - a server for its own caller
    except ElementTree.ParseError:
        raise malformed() from None
    return {name: _from_xml(root, shape, name)}


def malformed() -> ApiError:
    """XML that says nothing."""
    return ApiError(
        "MalformedXML",
        "The XML you provided was not well-formed or did not validate against our published schema",
    )


def _scalar(text: str, shape: Shape, path: str) -> Any:
    kind = shape.type_name
    try:
        if kind in ("integer", "long"):
            return int(text)
        if kind == "timestamp":
            return timestamps.parse(text)
    except ValueError:
        raise Mismatch(path, "type", f"Expected {kind}", text) from None
    if kind == "boolean":
        return text.lower() == "true"
    if kind == "list":
        return [one.strip() for one in text.split(",")]
    return text


def _from_xml(node: ElementTree.Element, shape: Shape, path: str) -> Any:
    kind = shape.type_name
    if kind == "list":
        return [_from_xml(one, shape.member, path) for one in node]
    if kind != "structure":
        return _scalar(node.text or "", shape, path)
    values: Json = {}
    names = {_xml_name(member, name): name for name, member in shape.members.items()}
    for child in node:
        tag = child.tag.rpartition("}")[2]
        if tag not in names:
            raise malformed()
        name = names[tag]
        member = shape.members[name]
        if member.type_name == "list" and member.serialization.get("flattened"):
            values.setdefault(name, []).append(_from_xml(child, member.member, f"{path}.{name}"))
        else:
            values[name] = _from_xml(child, member, f"{path}.{name}")
    return values


def _xml_name(shape: Shape, name: str) -> str:
    """A member's element: a flattened list's items may have a name of their own."""
    if shape.type_name == "list" and shape.serialization.get("flattened"):
        own = shape.member.serialization.get("name")
        if own:
            return str(own)
    return str(shape.serialization.get("name", name))


def write(values: Json, operation: OperationModel) -> Answer:
    """The answer, headers and body by the model."""
    shape = operation.output_shape
    status = int(operation.http.get("responseCode", 200))
    if shape is None:
        return Answer(status)
    headers: dict[str, str] = {}
    inner: Json = {}
    payload = shape.serialization.get("payload")
    body = b""
    for name, value in values.items():
        member = shape.members[name]
        location = member.serialization.get("location")
        if location == "header":
            headers[member.serialization["name"]] = _header(value, member)
        elif location == "headers":
            prefix = member.serialization["name"]
            headers |= {f"{prefix}{key}": item for key, item in value.items()}
        elif name == payload and member.type_name == "blob":
            body = value
        else:
            inner[name] = value
    if payload is not None and payload in inner:
        element = _xml_name(shape.members[payload], payload)
        body = _document(element, _to_xml(inner[payload], shape.members[payload]))
    elif payload is None and any("location" not in m.serialization for m in shape.members.values()):
        body = _document(shape.serialization.get("name", shape.name), _to_xml(inner, shape))
    if body and "Content-Type" not in headers:
        headers["Content-Type"] = "application/xml"
    return Answer(status, body, headers)


def _document(element: str, inner: str) -> bytes:
    namespace = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return f"{head}\n<{element} {namespace}>{inner}</{element}>".encode()


def _header(value: Any, shape: Shape) -> str:
    if shape.type_name == "timestamp":
        return timestamps.http(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _to_xml(value: Any, shape: Shape) -> str:
    kind = shape.type_name
    if kind == "structure":
        return "".join(
            _element(_xml_name(shape.members[name], name), item, shape.members[name])
            for name, item in value.items()
        )
    if kind == "timestamp":
        return timestamps.iso(value)
    if isinstance(value, bool):
        return str(value).lower()
    return escape(str(value))


def _element(name: str, value: Any, shape: Shape) -> str:
    if shape.type_name != "list":
        return f"<{name}>{_to_xml(value, shape)}</{name}>"
    if shape.serialization.get("flattened"):
        return "".join(f"<{name}>{_to_xml(one, shape.member)}</{name}>" for one in value)
    item = shape.member.serialization.get("name", "member")
    inner = "".join(f"<{item}>{_to_xml(one, shape.member)}</{item}>" for one in value)
    return f"<{name}>{inner}</{name}>"


def error(problem: ApiError, request_id: str, resource: str) -> Answer:
    """An error as S3 sends it; HEAD requests get its status only."""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{problem.code}</Code><Message>{escape(problem.message)}</Message>"
        f"<Resource>{escape(resource)}</Resource><RequestId>{request_id}</RequestId></Error>"
    )
    return Answer(problem.status, body.encode(), {"Content-Type": "application/xml"})
