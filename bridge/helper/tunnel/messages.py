"""What a helper says over its tunnel, parsed. Pure; a helper may say anything."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.errors import BridgeError, Invalid, NotFound, Unavailable

VERSION = 1
LONGEST_LINE = 1024 * 1024
"""Bytes of one message; the states of a pod with long messages are a tenth of that."""
_LONGEST_WORDS = 4096
"""Characters of an error that are passed on."""
_LARGEST = 1 << 63
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SESSION = re.compile(r"[A-Za-z0-9]{1,64}")
_ROLES = ("run", "watch")
_OUTPUTS = ("stdout", "stderr")

_ERRORS: Mapping[int, type[BridgeError]] = {404: NotFound, 422: Invalid}
"""By status; every other one is Unavailable."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who a helper is in its pod."""

    role: str
    """`run` or `watch`."""
    container: str
    """Whose `run` it is; empty for `watch`."""
    states: bool
    """It tells the states of its pod, or of its only container."""


@dataclass(frozen=True, slots=True)
class Session:
    """What was begun: its name in further requests, and the streams that it has."""

    name: str
    outputs: Sequence[str]
    has_input: bool


def introduction(text: bytes) -> Introduction:
    """Unavailable where it makes no sense, or is another version's."""
    said = _object(text)
    role, container = said.get("role"), said.get("container")
    if said.get("version") != VERSION or role not in _ROLES or not isinstance(container, str):
        raise _nonsense()
    if not (_LABEL.fullmatch(container) if role == "run" else container == ""):
        raise _nonsense()
    return Introduction(str(role), container, said.get("states") is True)


def session(text: bytes) -> Session:
    """Unavailable where it makes no sense."""
    said = _object(text)
    name, outputs = said.get("session"), said.get("outputs")
    if not isinstance(name, str) or not _SESSION.fullmatch(name) or not isinstance(outputs, list):
        raise _nonsense()
    if not all(one in _OUTPUTS for one in outputs) or len({*outputs}) != len(outputs):
        raise _nonsense()
    return Session(name, tuple(outputs), said.get("input") is True)


def exit_code(text: bytes) -> int:
    """Unavailable where it makes no sense."""
    code = _object(text).get("exit")
    if type(code) is not int or not 0 <= code <= 255:
        raise _nonsense()
    return code


def usage(text: bytes) -> tuple[int | None, int | None]:
    """(cpu nanoseconds, memory bytes), None where unknown. Unavailable."""
    said = _object(text)
    return _count(said.get("cpu_nanoseconds")), _count(said.get("memory_bytes"))


def refusal(status: int, text: bytes) -> BridgeError:
    """The error that an answer other than 200 is."""
    words: object = ""
    with contextlib.suppress(Unavailable):
        words = _object(text).get("error")
    if not isinstance(words, str) or not words:
        words = f"the helper answered with status {status}"
    return _ERRORS.get(status, Unavailable)(words[:_LONGEST_WORDS])


def _object(text: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        raise _nonsense() from None
    if not isinstance(said, dict):
        raise _nonsense()
    return said


def _count(number: object) -> int | None:
    if number is None:
        return None
    if type(number) is not int or not 0 <= number < _LARGEST:
        raise _nonsense()
    return number


def _nonsense() -> Unavailable:
    return Unavailable("the helper's answer makes no sense here")
