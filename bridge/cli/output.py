"""How commands print: tables, ages and objects as kubectl prints them, colour on terminals only."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any, TypeVar

import click

from bridge.times import parse_rfc3339

_MIN_WIDTH, _PADDING = 6, 3
"""Of a column and behind it, as kubectl's tabwriter has them."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNSEEN = re.compile("[\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What turns the direction of text or ends lines unseen, and what no terminal can be sent."""

_GOOD = frozenset({"Succeeded", "Completed", "Complete", "runs", "Normal", "True", "supported"})
_BUSY = frozenset({"Running", "Pending", "ContainerCreating", "PodInitializing", "approximated"})
_BAD = frozenset(
    {"Failed", "Error", "CrashLoopBackOff", "OOMKilled", "StartError", "refused", "unsupported"}
    | {"ContainerStatusUnknown", "ImagePullBackOff", "ErrImagePull", "False", "FailureTarget"}
)
_WARN = frozenset({"Unattended", "Deleting", "Terminating", "Suspended", "Warning", "Unknown"})

_F = TypeVar("_F", bound=Callable[..., Any])


def format_option(*formats: str) -> Callable[[_F], _F]:
    """The option `-o/--output`, as the parameter `output`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(formats),
        metavar="|".join(formats),
        help="How to print.",
    )


def simulate_option(command: _F) -> _F:
    """The option `--simulate`, as the parameter `simulate`."""
    words = "On a simulated cloud, which ends with this command: no account, no configuration."
    return click.option("--simulate", is_flag=True, help=words)(command)


# Tables.


def table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, colour: bool | None = None
) -> list[str]:
    """Lines of a table: headers, then rows; columns aligned, none of it behind the last.

    `colour` None: where standard output is a terminal and NO_COLOR is not set.
    """
    cells = [[_cell(one) for one in row] for row in rows]
    widths = [
        max(_MIN_WIDTH, max(map(len, column)) + _PADDING)
        for column in zip(headers, *cells, strict=True)
    ]
    paint = coloured() if colour is None else colour
    return [_line(headers, widths, paint=False)] + [_line(row, widths, paint) for row in cells]


def _line(row: Sequence[str], widths: Sequence[int], paint: bool) -> str:
    out = ""
    for index, cell in enumerate(row):
        pad = "" if index == len(row) - 1 else " " * (widths[index] - len(cell))
        out += (_painted(cell) if paint else cell) + pad
    return out.rstrip()


def _cell(text: str) -> str:
    first, newline, _ = plain(text).strip().partition("\n")
    return first + ("..." if newline else "")


def plain(text: str) -> str:
    """Text of others without what a terminal would obey: control characters as `^[`, but for
    newlines and tabs."""
    if text.isascii() and text.isprintable():
        return text
    return _CONTROL.sub(lambda one: f"^{chr(ord(one[0]) % 32 + 64)}", _UNSEEN.sub("\ufffd", text))


def coloured(stream: IO[str] | None = None) -> bool:
    """Whether to colour what goes there (default: standard output)."""
    stream = stream or sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _painted(cell: str) -> str:
    word = cell.removeprefix("Init:").partition(",")[0]
    for words, colour in ((_GOOD, "green"), (_BUSY, "cyan"), (_BAD, "red"), (_WARN, "yellow")):
        if word in words:
            return click.style(cell, fg=colour)
    return cell


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table."""
    for line in table(headers, rows):
        print(line)


def hint(words: str) -> None:
    """One line for people, beside the output."""
    words = plain(words)
    text = click.style(words, fg="yellow") if coloured(sys.stderr) else words
    print(text, file=sys.stderr)


# Ages.


def age(seconds: float) -> str:
    """`45s`, `5m12s`, `3h20m`, `2d4h`: as kubectl shortens a duration (HumanDuration)."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 120:
        return f"{max(0, whole)}s"
    minutes, hours = whole // 60, whole // 3600
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 24 * 8:
        return _two(hours // 24, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{hours // 24}d"
    if hours < 24 * 365 * 8:
        return _two(hours // 24 // 365, "y", hours // 24 % 365, "d")
    return f"{hours // 24 // 365}y"


def _two(large: int, unit: str, small: int, small_unit: str) -> str:
    return f"{large}{unit}{small}{small_unit}" if small else f"{large}{unit}"


def since(stamp: str | None, now: float | None = None) -> str:
    """The age of an RFC 3339 time; `<unknown>` without one."""
    if not stamp:
        return "<unknown>"
    return age((time.time() if now is None else now) - parse_rfc3339(stamp))


# Objects.


def print_objects(objects: Sequence[Mapping[str, Any]], output: str, *, single: bool) -> None:
    """Prints objects as json, yaml or names; `single`: the one object itself, not a List of it."""
    if output == "name":
        for one in objects:
            print(name_of(one))
        return
    print_value(objects[0] if single and len(objects) == 1 else as_list(objects), output)


def as_list(objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """kubectl's List."""
    return {
        "apiVersion": "v1",
        "items": list(objects),
        "kind": "List",
        "metadata": {"resourceVersion": ""},
    }


def name_of(one: Mapping[str, Any]) -> str:
    """`pod/NAME`, `job.batch/NAME`, as `kubectl get -o name` has it."""
    group = str(one.get("apiVersion", "v1")).rpartition("/")[0]
    kind = str(one["kind"]).lower()
    return f"{kind}.{group}/{one['metadata']['name']}" if group else f"{kind}/{one_name(one)}"


def one_name(one: Mapping[str, Any]) -> str:
    """metadata.name."""
    return str(one["metadata"]["name"])


def print_value(value: Any, output: str) -> None:
    """Prints plain data as json (four spaces, keys sorted, as kubectl) or yaml."""
    if output == "json":
        print(json.dumps(value, indent=4, sort_keys=True, ensure_ascii=False))
        return
    import yaml

    # Through JSON: parts that are shared would be printed as anchors and aliases.
    plain_copy = json.loads(json.dumps(value))
    print(yaml.safe_dump(plain_copy, allow_unicode=True, width=10_000), end="")
