"""A YAML file with the line of every value, and edits of it that leave comments alone."""

from __future__ import annotations

import itertools
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bridge.errors import Invalid, Violation

MAX_BYTES = 1_000_000
"""A configuration has a few kilobytes: more is another file, given by mistake."""
_MAX_NODES = 50_000
_MAX_DEPTH = 40
_SEGMENT = re.compile(r"([^.\[\]]+)|\[(\d{1,6})\]")

Path_ = tuple[str | int, ...]
"""Keys and indexes from the top: ("backends", 0, "name")."""


def parse_path(text: str) -> Path_:
    """The keys of `backends[0].name`. ValueError where that is no path."""
    out: list[str | int] = []
    at = 0
    while at < len(text):
        match = _SEGMENT.match(text, at)
        if match is None:
            raise ValueError(f'found "{text}"; allowed: keys with dots between them')
        out.append(match[1] if match[1] is not None else int(match[2]))
        at = match.end()
        if at < len(text) and text[at] == ".":
            at += 1
            if at == len(text):
                raise ValueError(f'found "{text}", which ends in a dot')
    if not out:
        raise ValueError("found an empty path; allowed: keys with dots between them")
    return tuple(out)


def join(path: Path_) -> str:
    """`("backends", 0, "name")` as `backends[0].name`."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out


@dataclass(slots=True)
class Source:
    """What a file says, plain, and the line of each value by its path."""

    name: str
    """The file, as messages call it."""
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    """From 1."""


def read(path: Path) -> Source:
    """Reads a file. Raises Invalid (with line and column where it is no YAML)."""
    name = str(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise _invalid(name, f"cannot be read: {words}") from None
    if len(content) > MAX_BYTES:
        raise _invalid(name, f"more than {MAX_BYTES:,} bytes: this is no configuration")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _invalid(name, f"not UTF-8 text (byte {error.start})") from None
    return parse(text, name)


def parse(text: str, name: str) -> Source:
    """What a text says. Raises Invalid for everything that is not one mapping of plain values."""
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            reader = _Reader(loader, name)
            values = {} if node is None else reader.value(node, (), 0)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise _invalid(name, f"{where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise _invalid(name, " ".join(str(error).split())) from None
    except RecursionError:
        raise _invalid(name, "nested too deep") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise _invalid(name, "found no mapping at the top; allowed: `key: value` lines")
    if reader.violations:
        raise Invalid(violations=reader.violations)
    return Source(name, values, reader.lines)


def _invalid(name: str, words: str) -> Invalid:
    return Invalid(violations=[Violation("", words, name)])


class _Reader:
    """Makes plain values of YAML's nodes, and remembers where they stand."""

    def __init__(self, loader: yaml.SafeLoader, name: str) -> None:
        self.lines: dict[str, int] = {}
        self.violations: list[Violation] = []
        self._loader = loader
        self._name = name
        self._nodes = 0

    def value(self, node: yaml.Node, path: Path_, depth: int) -> Any:
        self._nodes += 1
        # An alias is a node once more: a few lines of them could be millions of values.
        if self._nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise yaml.YAMLError("too many or too deeply nested values")
        self.lines[join(path)] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [
                self.value(child, (*path, index), depth + 1)
                for index, child in enumerate(node.value)
            ]
        return self._scalar(node, path)

    def _scalar(self, node: yaml.Node, path: Path_) -> Any:
        # A date is a text here, as nothing in this file is a date.
        # A name is a text too, also where YAML has another meaning for it: `type: null`.
        if path[:1] == ("backends",) and path[2:] in (("name",), ("type",)) and node.value:
            return node.value
        if node.tag in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:binary"):
            return node.value
        try:
            return self._loader.construct_object(node)
        except (ValueError, OverflowError) as error:
            self._add(path, f"line {node.start_mark.line + 1}: {error}")
            return None

    def _mapping(self, node: yaml.MappingNode, path: Path_, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key_node, child in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "<<":
                self._add(path, f"line {line}: allowed as a key: a plain word")
                continue
            key = key_node.value
            if key in out:
                self._add((*path, key), f"line {line}: this key stands here twice")
                continue
            out[key] = self.value(child, (*path, key), depth + 1)
        return out

    def _add(self, path: Path_, words: str) -> None:
        self.violations.append(Violation(join(path), words, self._name))


# Edits.


def edited(text: str, path: Path_, value: object, name: str) -> str:
    """The text with one value changed or added, everything else as it was.

    Raises Invalid with the reason where that cannot be done line by line.
    """
    before = parse(text, name).values
    out = _edit(text, path, value, name)
    want = _with(before, path, value)
    if want is None or parse(out, name).values != want:
        raise _invalid(
            name, f"{join(path)} cannot be set here without rewriting the file: edit it by hand"
        )
    return out


def _edit(text: str, path: Path_, value: object, name: str) -> str:
    scalar = json.dumps(value) if not isinstance(value, str) else _plain(value)
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    node, rest = root, path
    while rest and node is not None:
        child = _child(node, rest[0])
        if child is None:
            break
        node, rest = child, rest[1:]
    if root is None:
        return _append(text, _block(path, scalar, ""))
    if not rest and isinstance(node, yaml.ScalarNode) and node.style not in ("|", ">"):
        start, end = node.start_mark.index, node.end_mark.index
        # An empty value (`key:`) has no place of its own: it begins where the colon ends.
        space = " " if start == end and text[start - 1 : start] == ":" else ""
        return f"{text[:start]}{space}{scalar}{text[end:]}"
    if not rest or not isinstance(node, yaml.MappingNode) or node.flow_style or not node.value:
        raise _invalid(name, f"{join(path)} cannot be set here line by line: edit the file by hand")
    indent = " " * node.start_mark.column
    if node is root:
        return _append(text, _block(rest, scalar, indent))
    at = text.find("\n", _last(node.value[-1][1]))
    if at < 0:
        return _append(text, _block(rest, scalar, indent))
    return f"{text[: at + 1]}{_block(rest, scalar, indent)}{text[at + 1 :]}"


def _last(node: yaml.Node) -> int:
    """Where a node's own text ends: a block's end mark stands behind what follows it."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _last(node.value[-1][1])
    if isinstance(node, yaml.SequenceNode) and not node.flow_style and node.value:
        return _last(node.value[-1])
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        return int(node.end_mark.index) - 1
    return int(node.end_mark.index)


def _child(node: yaml.Node, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        return node.value[part] if part < len(node.value) else None
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            if key.value == part:
                found: yaml.Node = child
                return found
    return None


def _plain(value: str) -> str:
    """A text as YAML, quoted where it would be read as something else."""
    dumped = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return dumped.removesuffix("\n").removesuffix("\n...")


def _block(path: Path_, scalar: str, indent: str) -> str:
    if any(isinstance(part, int) for part in path):
        raise Invalid(f"{join(path)}: list items cannot be added here: edit the file by hand")
    out = ""
    for depth, part in enumerate(path):
        end = f" {scalar}" if depth == len(path) - 1 else ""
        out += f"{indent}{'  ' * depth}{_plain(str(part))}:{end}\n"
    return out


def _append(text: str, block: str) -> str:
    return text + ("" if not text or text.endswith("\n") else "\n") + block


def _with(values: Mapping[str, Any], path: Path_, value: object) -> dict[str, Any] | None:
    """A copy of plain values with one changed; None where the path leads nowhere."""
    out: dict[str, Any] = json.loads(json.dumps(values))
    node: Any = out
    for part, following in itertools.pairwise(path):
        try:
            if isinstance(node, dict) and isinstance(part, str) and node.get(part) is None:
                node[part] = [] if isinstance(following, int) else {}
            node = node[part]
        except (LookupError, TypeError):
            return None
    try:
        node[path[-1]] = value
    except (LookupError, TypeError):
        return None
    return out


def write(path: Path, text: str) -> None:
    """Replaces a file at once, with the permissions that it had (a new one: the user's alone)."""
    try:
        # The file that a link leads to is replaced, not the link.
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                os.fchmod(stream.fileno(), mode)
            os.replace(temporary, path)
        except BaseException:
            # Whatever it was, Ctrl-C too: no half configuration stays behind.
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _invalid(str(path), f"cannot be written: {error.strerror}") from error
