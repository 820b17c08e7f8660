"""The container's log: both streams in one file, in the format that the kubelet reads.

A line is `<RFC 3339 time> <stdout|stderr> <F|P> <bytes>`: F ends a line of the output, P is a part
of one that goes on in the stream's next entry (or was never ended).
"""

from __future__ import annotations

import os
import time

LINE = 16 * 1024
"""Bytes of the longest part, as containerd has it (its max_container_log_line_size)."""
CHUNK = 64 * 1024
"""Bytes read at once: what a pipe holds."""


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC, always with nine digits."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


class Log:
    """The file. What finds no space is dropped: entries are never torn."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self.lost = 0
        """Bytes that found no space."""

    def write(self, entries: bytes) -> None:
        """Appends whole entries."""
        done = 0
        try:
            while done < len(entries):
                done += os.write(self._descriptor, entries[done:] if done else entries)
        except OSError:
            # No space, or a limit on files: the container goes on without this part of its log.
            done = entries.rfind(b"\n", 0, done) + 1
            self.lost += len(entries) - done
            os.ftruncate(self._descriptor, self._size + done)
            os.lseek(self._descriptor, self._size + done, os.SEEK_SET)
        self._size += done


class Stream:
    """One of the two streams: bytes in, entries out. Holds at most one part of a line."""

    def __init__(self, name: str, log: Log) -> None:
        self._name = name.encode()
        self._log = log
        self._held = b""

    def feed(self, data: bytes) -> None:
        """Takes what the container has written."""
        whole, newline, rest = (self._held + data).rpartition(b"\n")
        entries = []
        if newline:
            entries = [entry for line in whole.split(b"\n") for entry in _parts(line)]
        while len(rest) > LINE:
            entries.append((b" P ", rest[:LINE]))
            rest = rest[LINE:]
        self._held = rest
        self._write(entries)

    def end(self) -> None:
        """Nothing more will come: a line that was not ended is kept as a part."""
        if self._held:
            self._write([(b" P ", self._held)])
            self._held = b""

    def _write(self, entries: list[tuple[bytes, bytes]]) -> None:
        if entries:
            prefix = timestamp(time.time_ns()).encode() + b" " + self._name
            self._log.write(b"".join(prefix + tag + line + b"\n" for tag, line in entries))


def _parts(line: bytes) -> list[tuple[bytes, bytes]]:
    if len(line) <= LINE:
        return [(b" F ", line)]
    cuts = range(0, len(line), LINE)
    parts = [(b" P ", line[cut : cut + LINE]) for cut in cuts]
    parts[-1] = (b" F ", parts[-1][1])
    return parts


def last_lines(path_fd: int, lines: int, limit: int) -> str:
    """The end of a log, for a termination message: at most so many lines, then so many bytes."""
    size = os.fstat(path_fd).st_size
    # Each line may have 45 bytes before it, and the limit is on what follows them.
    start = max(0, size - limit - lines * 64 - LINE)
    data = os.pread(path_fd, size - start, start)
    entries = data.split(b"\n")[(1 if start else 0) : -1]
    text = b""
    for entry in entries:
        _, _, tag, content = entry.split(b" ", 3)
        text += content + (b"\n" if tag == b"F" else b"")
    kept = text.split(b"\n")
    ended = kept[-1] == b""
    kept = kept[-lines - (1 if ended else 0) :]
    return b"\n".join(kept)[-limit:].decode("utf-8", "replace")
