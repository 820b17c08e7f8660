"""The credits of the contract's byte streams: what may be sent, and what may still come.

Both ends of an exec, an attach or a forwarded connection hold an `Outbox` for the streams that
they send and an `Inbox` for those that they receive. An outbox holds at most `WINDOW` bytes, an
inbox at most twice as many of each stream, whatever the other end, or who reads here, does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from bridge.errors import Invalid

WINDOW = 256 * 1024
"""Bytes that may be sent on each stream before more were granted. From the contract."""
FRAME = 32 * 1024
"""Bytes that one frame holds at most. From the contract."""
BATCH = WINDOW
"""Bytes taken after which a grant goes out. Each message costs as much as a frame, so there is one
for eight frames. The first grant doubles the window, so that from then on a sender need not stand
still while the next one travels; while its bytes are taken it never has less than a window left."""
FIRST_BATCH = WINDOW // 2
"""The same for the first grant. A sender that only sends whole frames must not be left with less
credit than a frame needs while nothing of what it sent waits here."""
_QUEUED = WINDOW // FRAME
"""Frames that wait for the transport at most, however much was granted."""
_SMALL = 4096
"""Bytes up to which a frame that waits is joined with the next: a million frames of one byte each
must not cost a hundred times what they hold."""


class Outbox:
    """Frames on their way out: only what was granted, and few at a time.

    `news` is set whenever there is a frame to take.
    """

    def __init__(self, streams: Iterable[str], news: asyncio.Event) -> None:
        self._left = dict.fromkeys(streams, WINDOW)
        self._frames: deque[tuple[str, bytes]] = deque()
        self._news = news
        self._room = asyncio.Event()
        self._closed = False

    def granted(self, stream: str, count: int) -> None:
        """So many bytes more may be sent. Invalid: no such stream, or not a number to grant."""
        if stream not in self._left:
            raise Invalid("credit for a stream that does not run this way")
        if count <= 0:
            raise Invalid(f"a credit of {count} bytes: allowed are 1 or more")
        self._left[stream] += count
        self._room.set()

    async def send(self, stream: str, content: bytes) -> None:
        """Returns once all of it is on its way, or is not wanted any more."""
        start = 0
        while start < len(content) and not self._closed:
            size = min(len(content) - start, FRAME, self._left[stream])
            if size == 0 or len(self._frames) >= _QUEUED:
                self._room.clear()
                await self._room.wait()
                continue
            self._put(stream, content[start : start + size])
            start += size

    def take(self) -> tuple[str, bytes] | None:
        """The next frame, if there is one."""
        if not self._frames:
            return None
        if len(self._frames) == _QUEUED:
            self._room.set()
        return self._frames.popleft()

    def close(self) -> None:
        """Nothing is wanted any more."""
        self._closed = True
        self._room.set()

    def _put(self, stream: str, content: bytes) -> None:
        if content and not self._closed:
            self._left[stream] -= len(content)
            self._frames.append((stream, content))
            self._news.set()


class Inbox:
    """Bytes that have come and were not taken yet, and the grants that are due for what was taken.

    `news` is set whenever a grant is due.
    """

    def __init__(self, streams: Iterable[str], news: asyncio.Event) -> None:
        self._left = dict.fromkeys(streams, WINDOW)
        self._taken = dict.fromkeys(self._left, 0)
        self._growth = dict.fromkeys(self._left, WINDOW)
        self._pieces: deque[tuple[str, bytes | bytearray]] = deque()
        self._due: deque[str] = deque()
        self._news = news
        self._arrival = asyncio.Event()
        self._ended = False

    def arrived(self, stream: str, content: bytes) -> None:
        """A frame has come. Invalid where the contract forbids it."""
        if stream not in self._left:
            raise Invalid("data for a stream that does not run this way or was not asked for")
        if self._ended:
            raise Invalid("data after the end of its stream")
        size = len(content)
        if size > FRAME:
            raise Invalid(f"a frame of {size} bytes: at most {FRAME} are allowed")
        if size > self._left[stream]:
            raise Invalid(f"a frame of {size} bytes where only {self._left[stream]} were granted")
        if not size:
            return
        self._left[stream] -= size
        if self._pieces:
            last_stream, last = self._pieces[-1]
            if isinstance(last, bytearray) and last_stream == stream and len(last) + size <= FRAME:
                last += content
                return
        self._pieces.append((stream, content if size > _SMALL else bytearray(content)))
        self._arrival.set()

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._arrival.set()

    async def take(self) -> tuple[str, bytes]:
        """The next bytes and their stream; ("", b"") at the end."""
        while not self._pieces:
            if self._ended:
                return "", b""
            self._arrival.clear()
            await self._arrival.wait()
        stream, content = self._pieces.popleft()
        return stream, bytes(content)

    def taken(self, stream: str, size: int) -> None:
        """So many bytes are out of memory here: as many may come again."""
        before = self._taken[stream]
        self._taken[stream] = before + size
        batch = FIRST_BATCH if self._growth[stream] else BATCH
        if before < batch <= before + size:
            self._due.append(stream)
            self._news.set()

    def due(self) -> tuple[str, int] | None:
        """The next grant to send, if there is one: from now on so many bytes more may come."""
        if not self._due:
            return None
        stream = self._due.popleft()
        count = self._taken[stream] + self._growth[stream]
        self._taken[stream] = self._growth[stream] = 0
        self._left[stream] += count
        return stream, count
