"""The shape of every object that can be run, and a strict check of it.

The definitions are Kubernetes' own (OpenAPI, v1.36), trimmed by tools/schema.py. The check is
about shape alone: names, types, formats. What a well-shaped object may say is `validation`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from bridge import quantity
from bridge.errors import Violation
from bridge.pods import Manifest

KINDS: dict[str, tuple[str, str]] = {
    "Pod": ("v1", "core.v1.Pod"),
    "Job": ("batch/v1", "batch.v1.Job"),
    "CronJob": ("batch/v1", "batch.v1.CronJob"),
    "ConfigMap": ("v1", "core.v1.ConfigMap"),
    "Secret": ("v1", "core.v1.Secret"),
}
"""Each kind that can be run: its apiVersion, and its name among the definitions."""

_SCALARS = {
    "api.resource.Quantity": "quantity",
    "meta.v1.Time": "time",
    "meta.v1.MicroTime": "time",
    "util.intstr.IntOrString": "int-or-string",
    "meta.v1.FieldsV1": "any",
}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_INT_BITS = {"int32": 31, "int64": 63}


@dataclass(slots=True, eq=False)
class Shape:
    """What one field may hold.

    `kind` is object, list, map, string, bytes, integer, boolean, quantity, time, int-or-string or
    any. `item` is what a list or a map holds; `fields` and `required` are an object's.
    """

    kind: str
    bits: int = 0
    item: Shape | None = None
    fields: dict[str, Shape] = field(default_factory=dict)
    required: tuple[str, ...] = ()


@cache
def _definitions() -> dict[str, Any]:
    content = (Path(__file__).parent / "v1_36.json").read_bytes()
    definitions: dict[str, Any] = orjson.loads(content)["definitions"]
    return definitions


@cache
def _named(name: str) -> Shape:
    if name in _SCALARS:
        return Shape(_SCALARS[name])
    return _compile(_definitions()[name])


def _compile(node: dict[str, Any]) -> Shape:
    if "$ref" in node:
        return _named(node["$ref"])
    kind = node.get("type", "object")
    if kind == "array":
        return Shape("list", item=_compile(node["items"]))
    if kind == "object" and "additionalProperties" in node:
        return Shape("map", item=_compile(node["additionalProperties"]))
    if kind == "object" and "properties" in node:
        fields = {name: _compile(child) for name, child in node["properties"].items()}
        return Shape("object", fields=fields, required=tuple(node.get("required", ())))
    if kind == "integer":
        return Shape("integer", bits=_INT_BITS[node.get("format", "int64")])
    if kind == "string" and node.get("format") == "byte":
        return Shape("bytes")
    return Shape("any" if kind == "object" else kind)


def shape(kind: str) -> Shape:
    """The shape of one of `KINDS`. Raises KeyError for any other kind."""
    return _named(KINDS[kind][1])


# --- the check ---------------------------------------------------------------------------------


def check(obj: object, kind: str) -> list[Violation]:
    """Every departure of `obj` from the shape of `kind` (one of `KINDS`), in the object's order.

    A null is an absent field, as for the API server. Nothing that a Secret holds is ever shown.
    """
    return examine(obj, kind)[0]


def examine(obj: object, kind: str) -> tuple[list[Violation], frozenset[str]]:
    """As `check`, and the paths of which nothing more need be said: those that are wrong or
    missing, and those that an unknown field was most likely meant to be."""
    done = _Check(show=kind != "Secret")
    done.value(obj, shape(kind), "")
    return done.out, frozenset({*(one.field for one in done.out), *done.meant})


@dataclass(slots=True)
class _Check:
    show: bool
    out: list[Violation] = field(default_factory=list)
    meant: list[str] = field(default_factory=list)

    def value(self, value: object, want: Shape, path: str) -> None:
        kind = want.kind
        if kind == "object":
            if isinstance(value, dict):
                self._object(value, want, path)
                return
        elif kind == "list":
            if isinstance(value, list):
                assert want.item is not None
                for index, item in enumerate(value):
                    self.value(item, want.item, f"{path}[{index}]")
                return
        elif kind == "map":
            if isinstance(value, dict):
                self._map(value, want, path)
                return
        else:
            self._scalar(value, want, path)
            return
        self._wrong(value, {"list": "list"}.get(kind, "object"), path)

    def _object(self, value: dict[Any, Any], want: Shape, path: str) -> None:
        for name, child in value.items():
            inner = want.fields.get(name)
            where = f"{path}.{name}" if path else str(name)
            if inner is None:
                near = nearest(str(name), want.fields)
                hint = f'; did you mean "{near}"?' if near else ""
                self.out.append(Violation(where, f"unknown field{hint}"))
                if near:
                    self.meant.append(f"{path}.{near}" if path else near)
            elif child is not None:
                self.value(child, inner, where)
        for name in want.required:
            if value.get(name) is None:
                where = f"{path}.{name}" if path else name
                self.out.append(Violation(where, "missing; this field is required"))

    def _map(self, value: dict[Any, Any], want: Shape, path: str) -> None:
        assert want.item is not None
        for key, child in value.items():
            where = f"{path}[{key}]"
            if not isinstance(key, str):
                found = f"found {describe(key)} as a key"
                self.out.append(Violation(where, f"{found}; allowed: string"))
            elif child is not None:
                self.value(child, want.item, where)

    def _scalar(self, value: object, want: Shape, path: str) -> None:
        kind = want.kind
        if kind == "string":
            if not isinstance(value, str):
                self._wrong(value, "string" + _quotes(value), path)
        elif kind == "integer":
            self._integer(value, want.bits, path)
        elif kind == "boolean":
            if not isinstance(value, bool):
                self._wrong(value, "true or false", path)
        elif kind == "quantity":
            try:
                quantity.parse(value)  # type: ignore[arg-type]  # it refuses other types itself
            except ValueError as error:
                self.out.append(Violation(path, f"bad quantity: {error}"))
        elif kind == "int-or-string":
            if not isinstance(value, str):
                self._integer(value, 31, path, "integer or string")
        elif kind == "time":
            if not (isinstance(value, str) and _is_time(value)):
                self._wrong(value, 'RFC 3339 time ("2026-01-31T12:00:00Z")', path)
        elif kind == "bytes":
            if not isinstance(value, str):
                self._wrong(value, "base64 string", path)
            elif not _is_base64(value):
                self.out.append(Violation(path, "found a string that is not base64"))

    def _integer(self, value: object, bits: int, path: str, allowed: str = "integer") -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            number = isinstance(value, str) and value.lstrip("-").isdecimal()
            self._wrong(value, allowed + (" (without quotes)" if number else ""), path)
        elif not -(1 << bits) <= value < 1 << bits:
            self._wrong(value, f"{allowed} of {bits + 1} bits", path)

    def _wrong(self, value: object, allowed: str, path: str) -> None:
        found = describe(value, show=self.show)
        self.out.append(Violation(path, f"found {found}; allowed: {allowed}"))


def _quotes(value: object) -> str:
    return " (put it in quotes)" if isinstance(value, (bool, int, float)) else ""


def _is_time(text: str) -> bool:
    if not _TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def describe(value: object, *, show: bool = True) -> str:
    """A value as error messages name it: `integer 8080`, `string "abc"`, `list`.

    With `show` false its type alone.
    """
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "object"
    if isinstance(value, list):
        return "list"
    if isinstance(value, bool):
        name, text = "boolean", str(value).lower()
    elif isinstance(value, int):
        # Python refuses to print integers of more than 4300 digits.
        name, text = "integer", str(value) if value.bit_length() < 1000 else "of many digits"
    elif isinstance(value, float):
        name, text = "number", repr(value)
    else:
        text = str(value)
        name, text = "string", f'"{text}"' if len(text) <= 40 else f'"{text[:37]}..."'
    return f"{name} {text}" if show else name


def nearest(name: str, known: Iterator[str] | dict[str, Any] | tuple[str, ...]) -> str | None:
    """The known name that `name` was most likely meant to be, whatever its case and underscores."""
    import difflib  # noqa: PLC0415 - only a mistake pays for it

    folded = {_fold(candidate): candidate for candidate in known}
    match = difflib.get_close_matches(_fold(name[:80]), folded, n=1, cutoff=0.6)
    return folded[match[0]] if match else None


def _fold(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


# --- walking -----------------------------------------------------------------------------------


def walk_fields(kind: str = "Pod", under: str = "spec") -> Iterator[str]:
    """Every field below `under`, as `spec.containers[].securityContext.privileged`.

    Objects and lists have a path of their own as well (`spec.containers`); a map is one path. A
    type inside itself is not entered again.
    """
    want = shape(kind)
    for name in under.split(".") if under else ():
        want = want.fields[name]
    yield from _walk(want, under, ())


def _walk(want: Shape, path: str, above: tuple[int, ...]) -> Iterator[str]:
    if want.kind == "list" and want.item is not None:
        want, path = want.item, f"{path}[]"
    if want.kind != "object" or id(want) in above:
        return
    for name, child in want.fields.items():
        where = f"{path}.{name}" if path else name
        yield where
        yield from _walk(child, where, (*above, id(want)))


def visit(obj: Manifest, kind: str) -> Iterator[tuple[str, str, Any]]:
    """Every field and every list item that is present in a clean object.

    Yields (schema path, concrete path, value): ("spec.containers[].name",
    "spec.containers[0].name", "main"); an item's own schema path ends in `[]`.
    """
    yield from _visit(obj, shape(kind), "", "")


def _visit(value: Any, want: Shape, general: str, path: str) -> Iterator[tuple[str, str, Any]]:
    if want.kind == "object":
        for name, child in value.items():
            above, here = (f"{general}.{name}", f"{path}.{name}") if path else (name, name)
            yield above, here, child
            yield from _visit(child, want.fields[name], above, here)
    elif want.kind == "list" and want.item is not None:
        for index, child in enumerate(value):
            above, here = f"{general}[]", f"{path}[{index}]"
            yield above, here, child
            yield from _visit(child, want.item, above, here)


def without_nulls(obj: Manifest, kind: str, wrong: frozenset[str] = frozenset()) -> Manifest:
    """A copy of an object without its nulls: absent fields, or empty strings in a map.

    What is at the paths of `wrong` (all that `check` says of the object) is left out as well; an
    item of a list stays as an empty object, so that those after it keep their paths. Nothing of the
    copy is shared with `obj` but what has no shape (managedFields' fieldsV1).
    """
    copied: Manifest = _copy(obj, shape(kind), "", wrong)
    return copied


def _copy(value: Any, want: Shape, path: str, wrong: frozenset[str]) -> Any:
    kind, item = want.kind, want.item
    if kind == "object":
        found = {}
        for name, child in value.items():
            where = f"{path}.{name}" if path else str(name)
            if child is not None and where not in wrong:
                found[name] = _copy(child, want.fields[name], where, wrong)
        return found
    if item is None:
        return value
    if kind == "list":
        return list(_copied_items(value, item, path, wrong))
    texts = item.kind in ("string", "bytes")
    found = {}
    for key, child in value.items():
        where = f"{path}[{key}]"
        if where in wrong:
            continue
        if child is not None:
            found[key] = _copy(child, item, where, wrong)
        elif texts:
            found[key] = ""
    return found


_EMPTY: dict[str, Any] = {"object": {}, "map": {}, "list": [], "integer": 0, "boolean": False}


def _copied_items(value: list[Any], item: Shape, path: str, wrong: frozenset[str]) -> Iterator[Any]:
    for index, child in enumerate(value):
        where = f"{path}[{index}]"
        if where not in wrong:
            yield _copy(child, item, where, wrong)
        else:
            yield _EMPTY.get(item.kind, "")
