"""A container's log as entries, and what of them is wanted. Pure.

Podman's file has the form of the Container Runtime Interface, one entry a line:

    2026-01-02T03:04:05.678901234+00:00 stdout F text

F ends a line of the log, P is a part of one that goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from bridge.adapter import LogOptions

PIECE = 32 * 1024
"""Bytes of the longest piece that is given out."""
_NANO = 10**9


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the log, or a part of one."""

    time: bytes
    """RFC 3339, with up to nine digits of a second, in any zone."""
    stream: str
    whole: bool
    """It ends its line."""
    content: bytes
    """Without the line's end."""


def parse(line: bytes) -> Entry | None:
    """The entry of one line of the file; None where it is none."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[2][:1] not in (b"F", b"P"):
        return None
    return Entry(parts[0], parts[1].decode("ascii", "replace"), parts[2][:1] == b"F", parts[3])


def nanoseconds(time: bytes) -> int:
    """Since the epoch; 0 where it is no time."""
    text = time.decode("ascii", "replace")
    head, _, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    try:
        moment = datetime.fromisoformat(head + rest[len(digits) :])
    except ValueError:
        return 0
    return int(moment.timestamp()) * _NANO + int(digits[:9].ljust(9, "0"))


def canonical(time: bytes) -> bytes:
    """The same time in UTC with nine digits, as the kubelet prints it."""
    if len(time) == 30 and time.endswith(b"Z"):
        return time
    seconds, rest = divmod(nanoseconds(time), _NANO)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z".encode()


class Filter:
    """Turns entries into the bytes that were asked for; `tail_lines` is the source's to heed."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._left = options.limit_bytes
        self._since = None if options.since is None else round(options.since * _NANO)
        self._open: set[str] = set()
        """Streams whose last entry was a part of a line."""

    @property
    def full(self) -> bool:
        """Whether as many bytes as are wanted were given out."""
        return self._left is not None and self._left <= 0

    def wanted(self, entry: Entry) -> bool:
        """Whether the options ask for it."""
        if self._options.stream and entry.stream != self._options.stream:
            return False
        if self._since is None:
            return True
        if nanoseconds(entry.time) < self._since:
            return False
        self._since = None  # Time goes on: all that follows is later.
        return True

    def pieces(self, entries: Iterable[Entry]) -> Iterator[bytes]:
        """What they mean as bytes of the log."""
        return self.cut(b"".join(self._text(entry) for entry in entries if self.wanted(entry)))

    def cut(self, text: bytes) -> Iterator[bytes]:
        """Pieces of that text, until there were as many bytes as are wanted."""
        if self._left is not None:
            text = text[: max(0, self._left)]
            self._left -= len(text)
        for start in range(0, len(text), PIECE):
            yield text[start : start + PIECE]

    def _text(self, entry: Entry) -> bytes:
        text = entry.content + (b"\n" if entry.whole else b"")
        if self._options.timestamps and entry.stream not in self._open:
            text = canonical(entry.time) + b" " + text
        if entry.whole:
            self._open.discard(entry.stream)
        else:
            self._open.add(entry.stream)
        return text


class Tail:
    """Finds where the last lines begin, in entries that come one after the other: a line is what
    ends with a whole entry, of whichever stream, as the log shows it."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._starts: list[int] = []
        self._begins = True
        """Whether the next entry begins a line."""

    def add(self, entry: Entry, position: int) -> None:
        """The next entry, and where it is."""
        if self._begins:
            self._starts.append(position)
            if len(self._starts) > 2 * self._lines + 64:
                del self._starts[: -self._lines or None]
        self._begins = entry.whole

    def start(self, end: int) -> int:
        """Where the first of the last lines begins; `end` where none is wanted or there is none."""
        if not self._lines or not self._starts:
            return end
        return self._starts[-self._lines :][0]
