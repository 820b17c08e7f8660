"""Reading a container's log back, to the byte as it was written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from bridge.adapter import LogOptions

PIECE = 32 * 1024
"""Bytes of the longest piece that is given out."""
_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the file (see `keeper.output`)."""

    time: bytes
    stream: str
    whole: bool
    content: bytes


def parse(line: bytes) -> Entry | None:
    """The entry; None where the line is none."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[2] not in (b"F", b"P"):
        return None
    return Entry(parts[0], parts[1].decode("ascii", "replace"), parts[2] == b"F", parts[3])


class Reader:
    """A place in a log, and what of it is wanted."""

    def __init__(self, descriptor: int, options: LogOptions) -> None:
        self._descriptor = descriptor
        self._options = options
        self._left = options.limit_bytes
        self._since = _format(options.since) if options.since is not None else b""
        self._open: set[str] = set()
        """Streams whose last entry was a part of a line."""
        self._offset = 0
        if options.tail_lines is not None:
            self._offset = self._tail(options.tail_lines)

    @property
    def full(self) -> bool:
        """Whether as many bytes as are wanted were given out."""
        return self._left is not None and self._left <= 0

    def read(self) -> Iterator[bytes]:
        """All that is there now, from where the last read ended.

        Only whole entries count: one that is being written is read again later.
        """
        block = _BLOCK
        while not self.full:
            data = os.pread(self._descriptor, block, self._offset)
            end = data.rfind(b"\n") + 1
            if not end:
                if len(data) < block:
                    return
                block *= 2
                continue
            self._offset += end
            yield from self._pieces(data[: end - 1].split(b"\n"))

    def _pieces(self, lines: list[bytes]) -> Iterator[bytes]:
        text = b"".join(self._text(entry) for line in lines if (entry := parse(line)))
        if self._left is not None:
            text = text[: max(0, self._left)]
            self._left -= len(text)
        for start in range(0, len(text), PIECE):
            yield text[start : start + PIECE]

    def _wanted(self, entry: Entry) -> bool:
        return (not self._options.stream or entry.stream == self._options.stream) and (
            entry.time >= self._since
        )

    def _text(self, entry: Entry) -> bytes:
        if not self._wanted(entry):
            return b""
        text = entry.content + (b"\n" if entry.whole else b"")
        if self._options.timestamps and entry.stream not in self._open:
            text = entry.time + b" " + text
        if entry.whole:
            self._open.discard(entry.stream)
        else:
            self._open.add(entry.stream)
        return text

    def _tail(self, lines: int) -> int:
        """Where the last so many lines of what is wanted begin."""
        end = os.fstat(self._descriptor).st_size
        rest = b""
        found = 0
        position = end
        while position > 0:
            start = max(0, position - _BLOCK)
            data = os.pread(self._descriptor, position - start, start) + rest
            first = data.find(b"\n") + 1 if start else 0
            if start and not first:
                rest, position = data, start
                continue
            *whole, torn = data[first:].split(b"\n")
            at = start + len(data) - len(torn)
            for line in reversed(whole):
                entry = parse(line)
                at -= len(line) + 1
                if entry is None or not self._wanted(entry):
                    continue
                if entry.whole or not found:
                    found += 1
                if found > lines:
                    return at + len(line) + 1
            rest, position = data[:first], start
        return 0


def _format(since: float) -> bytes:
    # The file's times have nine digits and one zone, so they order as text.
    moment = datetime.fromtimestamp(since, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f").encode() + b"000Z"
