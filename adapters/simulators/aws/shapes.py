"""Holding values against the shapes of a service model: what is in them, of which type, how long.

Values are as handlers see them: timestamps are seconds since the epoch (float), blobs are bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from botocore.model import Shape

from adapters.simulators.common.web import Json

__all__ = ["Json", "Mismatch", "check", "mismatches"]


class Mismatch(Exception):
    """A value does not fit its shape. `path` as AWS spells it (`overrides.cpu`, `tasks.1.member`);
    `kind` is `type`, `unknown`, `required` or `constraint`; `value` is what was found."""

    def __init__(self, path: str, kind: str, words: str, value: Any = None) -> None:
        super().__init__(f"{path or 'the request'}: {words}")
        self.path = path
        self.kind = kind
        self.words = words
        self.value = value

    def as_validation(self) -> str:
        """In the words of AWS's own validation."""
        shown = "null" if self.kind == "required" else str(self.value)
        return (
            f"1 validation error detected: Value '{shown}' at '{self.path}' failed to satisfy"
            f" constraint: {self.words}"
        )


def check(value: Any, shape: Shape, path: str = "") -> None:
    """Raises Mismatch for the first thing that does not fit."""
    for mismatch in mismatches(value, shape, path):
        raise mismatch


def mismatches(value: Any, shape: Shape, path: str = "") -> Iterator[Mismatch]:
    """Everything that does not fit, outermost first."""
    kind = str(shape.type_name)
    fits = isinstance(value, _TYPES[kind]) and isinstance(value, bool) == (kind == "boolean")
    if not fits:
        yield Mismatch(path, "type", f"Expected {kind}, found {type(value).__name__}", value)
        return
    yield from _limits(value, shape, path)
    if kind == "structure":
        yield from _structure(value, shape, path)
    elif kind == "list":
        for number, item in enumerate(value, 1):
            yield from mismatches(item, shape.member, f"{path}.{number}.member")
    elif kind == "map":
        for key, item in value.items():
            yield from mismatches(key, shape.key, f"{path} (key)")
            yield from mismatches(item, shape.value, f"{path}.{key}")


_TYPES: dict[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list, tuple),
    "string": (str,),
    "character": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "timestamp": (int, float),
    "blob": (bytes,),
}


def _structure(value: Json, shape: Shape, path: str) -> Iterator[Mismatch]:
    for name in shape.required_members:
        if value.get(name) is None:
            yield Mismatch(_join(path, name), "required", "Member must not be null")
    for name, item in value.items():
        if name not in shape.members:
            yield Mismatch(_join(path, name), "unknown", "there is no such member", item)
        else:
            yield from mismatches(item, shape.members[name], _join(path, name))


def _limits(value: Any, shape: Shape, path: str) -> Iterator[Mismatch]:
    metadata = shape.metadata
    allowed = metadata.get("enum")
    if allowed and value not in allowed:
        words = f"Member must satisfy enum value set: [{', '.join(allowed)}]"
        yield Mismatch(path, "constraint", words, value)
        return
    measured = isinstance(value, (str, bytes, list, tuple, dict))
    size = len(value) if measured else value
    what = "have length" if measured else "have value"
    if "min" in metadata and size < metadata["min"]:
        words = f"Member must {what} greater than or equal to {metadata['min']}"
        yield Mismatch(path, "constraint", words, value)
    if "max" in metadata and size > metadata["max"]:
        words = f"Member must {what} less than or equal to {metadata['max']}"
        yield Mismatch(path, "constraint", words, value)
    pattern = _pattern(metadata["pattern"]) if "pattern" in metadata else None
    if pattern is not None and isinstance(value, str) and not pattern.fullmatch(value):
        words = f"Member must satisfy regular expression pattern: {metadata['pattern']}"
        yield Mismatch(path, "constraint", words, value)


_JAVA = {r"\p{L}": r"\w", r"\p{N}": r"\d", r"\p{Z}": r"\s", r"\p{M}": r"\w", r"\p{S}": r"$+<=>^`|~"}
"""Classes that models use and Python's `re` does not know; they stand in brackets there."""


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str] | None:
    """The model's pattern; None where Python cannot read it."""
    for java, ours in _JAVA.items():
        text = text.replace(java, ours)
    try:
        return re.compile(text)
    except re.error:
        return None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
