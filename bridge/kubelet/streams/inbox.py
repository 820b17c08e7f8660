"""What has come in on the streams of a connection and nobody has read yet, and its limits."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable
from typing import Protocol

from bridge.kubelet.streams import FRAME

WINDOW = 256 * 1024
"""Bytes that may wait on one stream; the same as the contract's credit."""
ALL_WINDOWS = 16 * WINDOW
"""Bytes that may wait on all streams of a connection: 4 MiB."""
_SMALL = 1024
"""Bytes up to which what comes is joined with what waits: a keystroke's frame must not cost a
hundred times what it holds."""


class Inbox:
    """Bytes in order, then their end. `changed` is told by how many bytes it grew or shrank: the
    limit is kept by whoever fills it."""

    def __init__(self, changed: Callable[[int], None]) -> None:
        self._changed = changed
        self._chunks: deque[bytes | bytearray] = deque()
        self._start = 0
        self._ended = False
        self._error: str | None = None
        self._news = asyncio.Event()

    def put(self, content: bytes) -> None:
        """More bytes; dropped once it has ended."""
        if self._ended or not content:
            return
        last = self._chunks[-1] if self._chunks else None
        if len(content) <= _SMALL and isinstance(last, bytearray) and len(last) < FRAME:
            last += content
        else:
            self._chunks.append(bytearray(content) if len(content) <= _SMALL else content)
        self._news.set()
        self._changed(len(content))

    def end(self, error: str | None = None) -> None:
        """No more will come: what is there can still be read, then the end, or the error."""
        if not self._ended:
            self._ended, self._error = True, error
            self._news.set()

    def drop(self) -> None:
        """Forgets what is there, and takes nothing any more."""
        held = sum(map(len, self._chunks)) - self._start
        self._chunks.clear()
        self._start = 0
        self.end()
        if held:
            self._changed(-held)

    async def read(self) -> bytes:
        """The next bytes, at most FRAME; empty at the end. ConnectionResetError: cut off."""
        while not self._chunks:
            if self._error is not None:
                raise ConnectionResetError(self._error)
            if self._ended:
                return b""
            self._news.clear()
            await self._news.wait()
        chunk = self._chunks[0]
        piece = bytes(chunk[self._start : self._start + FRAME])
        self._start += len(piece)
        if self._start == len(chunk):
            self._chunks.popleft()
            self._start = 0
        self._changed(-len(piece))
        return piece


class Held(Protocol):
    """What can be stopped while too much waits."""

    def hold(self) -> None:
        """Stops reading."""

    def go_on(self) -> None:
        """Reads on."""


class Gate:
    """Holds a connection while one stream, or all together, hold too much. What was received
    before it stopped still comes on top: up to 256 KiB from a socket, or one message."""

    def __init__(self, link: Held) -> None:
        self._link = link
        self._each: dict[int, int] = {}
        self._all = 0
        self._full: set[int] = set()
        self._holding = False

    @property
    def waiting(self) -> int:
        """Bytes that wait on all streams."""
        return self._all

    def inbox(self, number: int) -> Inbox:
        """A new stream's inbox."""
        return Inbox(functools.partial(self._changed, number))

    def _changed(self, number: int, count: int) -> None:
        self._all += count
        waiting = self._each.pop(number, 0) + count
        if waiting:
            self._each[number] = waiting
        if waiting > WINDOW:
            self._full.add(number)
        elif waiting <= WINDOW // 2:
            self._full.discard(number)
        if self._holding:
            if not self._full and self._all <= ALL_WINDOWS // 2:
                self._holding = False
                self._link.go_on()
        elif self._full or self._all > ALL_WINDOWS:
            self._holding = True
            self._link.hold()
