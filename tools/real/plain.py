"""What the SDK gives and takes as JSON, and back. Pure.

`{"$time": SECONDS}` is a moment, counted from the start of the transcript; `{"$bytes": LENGTH}` is
a body of so many bytes, whose content is never kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

TIME, BYTES = "$time", "$bytes"
_NOISE = "ResponseMetadata"
"""Headers and request IDs; its status is kept beside the answer."""


def plain(value: Any, began: float) -> Any:
    """As JSON has it. `began`: epoch seconds of the transcript's start."""
    if isinstance(value, Mapping):
        return {str(key): plain(one, began) for key, one in value.items() if key != _NOISE}
    if isinstance(value, list | tuple):
        return [plain(one, began) for one in value]
    if isinstance(value, datetime):
        return {TIME: round(value.timestamp() - began, 3)}
    if isinstance(value, bytes | bytearray):
        return {BYTES: len(value)}
    if value is None or isinstance(value, str | int | float | bool):
        return value
    # A body that is read later by whoever asked for it.
    return {BYTES: 0}


def kind(value: Any) -> str:
    """The type of a plain value, in a word."""
    if isinstance(value, Mapping):
        if value.keys() == {TIME}:
            return "time"
        return "bytes" if value.keys() == {BYTES} else "object"
    if isinstance(value, list):
        return "list"
    return {str: "text", bool: "bool", int: "number", float: "number"}.get(type(value), "nothing")
