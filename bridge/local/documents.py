"""Text into plain JSON values, as kubectl reads a manifest: JSON, or YAML 1.1 of many documents.

YAML is built from the parser's events and not by PyYAML's constructor: scalars mean what
sigs.k8s.io/yaml makes of them (go-yaml v2's table: `yes` is true, 0644 is octal, 12:30 and
2026-01-31 are strings), a key that comes twice is an error, and aliases cannot explode.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_DEPTH = 100
"""Levels of nesting. The deepest field of a CronJob is below 25."""

MAX_ALIASED = 100_000
"""Values that the aliases of one document may stand for, all together."""

MAX_ALIASED_TEXT = 8 << 20
"""Characters of them, all together."""

_WORDS: dict[str, Any] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "off", "Off", "OFF"), False),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_INTEGER = re.compile("([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LONGEST_NUMBER = 70
"""Characters: 64 binary digits with sign and prefix. Longer digits are a string."""

_TAG = "tag:yaml.org,2002:"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(slots=True)
class Document:
    """One document of a file: its number and first line (both from 1), and what is wrong in it."""

    number: int
    line: int
    value: Any = None
    problems: list[str] = field(default_factory=list)


def read(text: str, *, json_first: bool = False) -> list[Document]:
    """The documents of a text, empty ones left out; the last may be one that is only a problem.

    A text that begins as JSON is tried as JSON and then as YAML, as kubectl does; `json_first`
    says whose error is given when it is neither. Never raises.
    """
    text = text.removeprefix("\ufeff")
    documents: list[Document] | None = None
    problem: Document | None = None
    if text.lstrip()[:1] in ("{", "["):
        documents, problem = _read_json(text)
    if documents is None:
        documents = list(_read_yaml(text))
        if problem is not None and json_first and documents and documents[-1].problems:
            documents = [problem]
    if _SURROGATE.search(text):
        for document in documents:
            document.value = _whole_characters(document.value)
    return [each for each in documents if each.value is not None or each.problems]


# --- JSON --------------------------------------------------------------------------------------


def _read_json(text: str) -> tuple[list[Document] | None, Document | None]:
    """The documents of a JSON text, or None and what is wrong."""
    duplicates: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(items)
        if len(out) != len(items):
            names = [name for name, _ in items]
            duplicates.extend(sorted({name for name in names if names.count(name) > 1}))
        return out

    decoder = json.JSONDecoder(
        object_pairs_hook=pairs, parse_float=_float, parse_constant=_no_constant
    )
    documents: list[Document] = []
    position = _skip(text, 0)
    while position < len(text):
        line = text.count("\n", 0, position) + 1
        document = Document(len(documents) + 1, line)
        try:
            document.value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            document.problems = [f"invalid JSON: {where}: {error.msg}"]
            return None, document
        except (ValueError, RecursionError):
            document.problems = ["invalid JSON: a number that is none, or too many levels"]
            return None, document
        document.problems.extend(f'duplicate key "{name}"' for name in duplicates)
        duplicates.clear()
        if _deeper_than(document.value, MAX_DEPTH):
            document.value = None
            document.problems.append(f"nested too deeply; allowed: {MAX_DEPTH} levels")
        documents.append(document)
        position = _skip(text, position)
    return documents, None


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _deeper_than(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most + 1):
        level = [
            child
            for each in level
            if isinstance(each, (dict, list))
            for child in (each.values() if isinstance(each, dict) else each)
        ]
    return bool(level)


def _whole_characters(value: Any) -> Any:
    """Half surrogate pairs, which no UTF-8 text can carry, become U+FFFD, as in Go."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole_characters(child) for child in value]
    if isinstance(value, dict):
        return {_whole_characters(key): _whole_characters(child) for key, child in value.items()}
    return value


# --- YAML --------------------------------------------------------------------------------------


def _read_yaml(text: str) -> Iterator[Document]:
    # libyaml is ten times as fast, and is in every wheel of PyYAML, but not in every build of it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder: _Builder | None = None
    number = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.DocumentStartEvent):
                number += 1
                builder = _Builder(Document(number, _line(event)))
            elif isinstance(event, yaml.DocumentEndEvent) and builder is not None:
                yield builder.finish()
                builder = None
            elif builder is not None:
                builder.take(event)
    except yaml.YAMLError as error:
        started = builder.document if builder is not None else Document(number + 1, 1)
        yield Document(started.number, started.line, None, [_syntax_problem(error, text)])
    except _TooMuchError as error:
        started = builder.document if builder is not None else Document(number, 1)
        yield Document(started.number, started.line, None, [str(error)])


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def _syntax_problem(error: yaml.YAMLError, text: str) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark: Any = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return f"invalid YAML: {where}{error.problem or error.context or 'cannot be read'}"
    position = getattr(error, "position", None)
    if isinstance(position, int):
        before = text.encode(errors="replace")[:position]
        column = position - (before.rfind(b"\n") + 1) + 1
        newlines = before.count(b"\n")
        return f"invalid YAML: line {newlines + 1}, column {column}: a control character"
    return "invalid YAML"


class _TooMuchError(Exception):
    """The document is bigger than it looks; reading on would be the harm."""


_MISSING = object()


@dataclass(slots=True)
class _Frame:
    """A mapping or list that is being filled; `size` counts the values in it and `length`
    their characters, aliases expanded."""

    value: Any
    anchor: str | None
    key: Any = _MISSING
    key_line: int = 0
    size: int = 1
    length: int = 0
    lines: dict[str, int] = field(default_factory=dict)
    merges: list[Any] = field(default_factory=list)


class _Builder:
    """One document from its events. Problems that allow to go on are collected."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._frames: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int, int]] = {}
        self._aliased = 0
        self._aliased_text = 0

    def finish(self) -> Document:
        return self.document

    def take(self, event: Any) -> None:
        line = _line(event)
        if isinstance(event, yaml.ScalarEvent):
            value, plain = self._scalar(event, line)
            if event.anchor:
                self._anchors[event.anchor] = (value, 1, len(event.value))
            is_merge = plain and event.value == "<<"
            self._put(value, 1, len(event.value), line, merge=is_merge)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(str(event.anchor), line)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            is_map = isinstance(event, yaml.MappingStartEvent)
            if event.tag not in (None, "!", _TAG + ("map" if is_map else "seq")):
                self._problem(line, f"unknown tag {event.tag}")
            if len(self._frames) >= MAX_DEPTH:
                raise _TooMuchError(f"line {line}: nested too deeply; allowed: {MAX_DEPTH} levels")
            self._frames.append(_Frame({} if is_map else [], event.anchor))
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            frame = self._frames.pop()
            for merged in frame.merges:
                for key, value in merged.items():
                    frame.value.setdefault(key, value)
            if frame.anchor:
                self._anchors[frame.anchor] = (frame.value, frame.size, frame.length)
            self._put(frame.value, frame.size, frame.length, line)

    def _problem(self, line: int, text: str) -> None:
        self.document.problems.append(f"line {line}: {text}")

    def _alias(self, name: str, line: int) -> None:
        if name not in self._anchors:
            inside = any(frame.anchor == name for frame in self._frames)
            text = "contains itself" if inside else "names no anchor before it"
            self._problem(line, f"the alias *{name} {text}")
            self._put(None, 1, 0, line)
            return
        value, size, length = self._anchors[name]
        self._aliased += size
        self._aliased_text += length
        if self._aliased > MAX_ALIASED:
            raise _TooMuchError(
                f"line {line}: aliases stand for too many values; allowed: {MAX_ALIASED} in all"
            )
        if self._aliased_text > MAX_ALIASED_TEXT:
            most = f"{MAX_ALIASED_TEXT >> 20} MiB"
            raise _TooMuchError(
                f"line {line}: aliases stand for too much text; allowed: {most} in all"
            )
        self._put(value, size, length, line)

    def _put(self, value: Any, size: int, length: int, line: int, *, merge: bool = False) -> None:
        if not self._frames:
            self.document.value = value
            return
        frame = self._frames[-1]
        frame.size += size
        frame.length += length
        if isinstance(frame.value, list):
            frame.value.append(value)
        elif frame.key is _MISSING:
            frame.key = _MERGE if merge else self._key(value, line)
            frame.key_line = line
        else:
            self._entry(frame, value)
            frame.key = _MISSING

    def _key(self, value: Any, line: int) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, (str, int, float)):
            return str(value)
        found = {type(None): "null", dict: "a mapping"}.get(type(value), "a list")
        self._problem(line, f"found {found} as a key; allowed: a string")
        return ""

    def _entry(self, frame: _Frame, value: Any) -> None:
        key, line = frame.key, frame.key_line
        if key is _MERGE:
            merged = value if isinstance(value, list) else [value]
            if all(isinstance(each, dict) for each in merged):
                frame.merges.extend(merged)
            else:
                self._problem(line, "a merge (<<) of what is no mapping")
            return
        if key in frame.lines:
            self._problem(line, f'duplicate key "{key}"; line {frame.lines[key]} has it already')
            return
        frame.lines[key] = line
        frame.value[key] = value

    def _scalar(self, event: Any, line: int) -> tuple[Any, bool]:
        """The value, and whether it was written without quotes or tag."""
        text, tag = event.value, event.tag
        if tag is None:
            plain = event.implicit[0]
            return (_resolve(text) if plain else text), plain
        convert = _TAGGED.get(tag.removeprefix(_TAG))
        if tag == "!":
            return text, False
        if convert is None:
            self._problem(line, f"unknown tag {tag}")
            return text, False
        try:
            return convert(text), False
        except (ValueError, binascii.Error):
            self._problem(line, f"cannot be read as {tag.removeprefix(_TAG)}")
            return text, False


_MERGE = object()


def _resolve(text: str) -> Any:
    if text[:1] not in "+-.0123456789yYnNtTfFoO~":
        return text
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789" or len(text) > _LONGEST_NUMBER:
        return text
    plain = text.replace("_", "") if text[0] != "." else text
    number = _integer(plain)
    if number is not None:
        return number
    if _FLOAT.fullmatch(plain):
        value = _float(plain)
        # Go's ParseFloat refuses what does not fit, and the text stays a text.
        return text if value in (float("inf"), float("-inf")) else value
    return text


def _integer(text: str) -> int | None:
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None
    sign, *digits = match.groups()
    base, found = next((b, d) for b, d in zip((16, 2, 8, 10), digits, strict=True) if d)
    value = int(found, base) * (-1 if sign == "-" else 1)
    return value if -(1 << 63) <= value < 1 << 64 else None


def _float(text: str) -> int | float:
    """A number as Go writes it into JSON: 1.0 is 1."""
    value = float(text)
    return int(value) if abs(value) < 1 << 63 and value.is_integer() else value


def _resolved(*kinds: type) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        value = _resolve(text)
        if not isinstance(value, kinds) or (bool not in kinds and isinstance(value, bool)):
            raise ValueError(text)
        return value

    return convert


def _binary(text: str) -> str:
    """What a binary scalar says, as text: JSON has no bytes."""
    return base64.b64decode("".join(text.split()), validate=True).decode(errors="replace")


_TAGGED: dict[str, Callable[[str], Any]] = {
    "str": str,
    "timestamp": str,
    "binary": _binary,
    "bool": _resolved(bool),
    "int": _resolved(int),
    "float": _resolved(int, float),
    "null": _resolved(type(None)),
}
