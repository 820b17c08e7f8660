"""An engine's words without what is secret. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable

from bridge.workload import Container

_LINE = 4
"""Characters: a shorter line of a secret is in too many words to be struck out of them."""
_GO = dict(zip('"\\\a\b\f\n\r\t\v', map("\\".__add__, '"\\abfnrtv'), strict=True))
"""Go's short escapes (strconv.Quote)."""
_FAILURES = {
    "not found in $path": "executable file not found in $PATH",
    "permission denied": "permission denied",
    "no such file or directory": "no such file or directory",
}
"""What is said instead of an engine's words, by what is in them in lower case."""


def redacted(words: str, container: Container) -> str:
    """An engine's words without the values of that container that are secret.

    Where words of its command are, none of the engine's are passed on but which kind of failure it
    was: runtimes quote and cut a command in more ways than can be known.
    """
    if container.secret_words:
        lower = words.lower()
        found = (said for mark, said in _FAILURES.items() if mark in lower)
        return next(found, "the command cannot be started")
    secrets: set[str] = set()
    for one in container.env:
        if one.secret and one.value:
            secrets |= {one.value}
            secrets |= {line for line in one.value.splitlines() if len(line) >= _LINE}
    return without(words, secrets)


def without(words: str, secrets: Iterable[str]) -> str:
    """Words of a registry or an engine without these values, however they are spelled."""
    found = {spelling for one in secrets if one for spelling in _spellings(one)}
    for spelling in sorted(found, key=len, reverse=True):
        words = words.replace(spelling, "***")
    return words


def _spellings(value: str) -> set[str]:
    """A value as engines and runtimes may print it: as it is, as JSON and as Go's %q and %+q, and
    each of these in a message that was quoted itself."""
    quotes = (_json, _json_ascii, _json_html, _go, _go_ascii)
    once = {value, *(quote(value) for quote in quotes)}
    return once | {quote(one) for one in once for quote in quotes}


def _json_ascii(value: str) -> str:
    return json.dumps(value)[1:-1]


def _json(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)[1:-1]


def _json_html(value: str) -> str:
    return "".join(f"\\u{ord(one):04x}" if one in "<>&" else _json(one) for one in value)


def _go(value: str) -> str:
    return "".join(
        one if one.isprintable() and one not in '"\\' else _go_rune(one) for one in value
    )


def _go_ascii(value: str) -> str:
    return "".join(one if one.isascii() else _go_rune(one) for one in _go(value))


def _go_rune(one: str) -> str:
    number = ord(one)
    if one in _GO:
        return _GO[one]
    if number < 0x20 or number == 0x7F:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
