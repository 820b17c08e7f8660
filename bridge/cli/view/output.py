"""Where views write: descriptors that may be slow or gone, without ever holding up the run."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO

HIGH, LOW = 1 << 20, 1 << 18
"""Bytes: whoever produces output waits from the first on, until the second is reached."""

_PIECE = 64 * 1024

_GONE = {errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO}
"""What writing to a closed terminal or pipe says."""


class Output:
    """Writes to stdout and stderr in the order given, from a thread of its own: a reader that
    pauses (`| less`, Ctrl-S) must not stop the process that attends the run.

    Streams without a descriptor (in tests) are written at once. A stream whose reader is gone is
    dropped without a word; `problem` is told of any other error, once for each stream.
    """

    def __init__(self, *, problem: Callable[[str], None] = lambda _: None) -> None:
        self._problem = problem
        self._queue: deque[tuple[int, bytes | IO[bytes]]] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._waiters: list[tuple[int, Callable[[], object]]] = []
        self._dead: set[int] = set()
        self._detached = False
        self.pending = 0
        """Bytes not written yet."""

    def write(self, stream: IO[str], data: bytes) -> None:
        """Queues bytes."""
        if self._detached or not data:
            return
        try:
            handle = stream.fileno()
        except (OSError, ValueError, io.UnsupportedOperation):
            _write_directly(stream, data)
            return
        self._put(handle, data, len(data))

    def write_file(self, stream: IO[str], file: IO[bytes]) -> None:
        """Queues what a file holds, piece by piece, and closes it."""
        try:
            handle = stream.fileno()
        except (OSError, ValueError, io.UnsupportedOperation):
            with file:
                for piece in _pieces(file):
                    self.write(stream, piece)
            return
        size = file.seek(0, io.SEEK_END)
        self._put(handle, file, size)

    async def room(self) -> None:
        """Returns once so little is queued that more may come."""
        if self.pending >= HIGH:
            await self._until(LOW)

    async def flushed(self) -> None:
        """Returns once everything is written, or nobody reads it any more."""
        await self._until(0)

    def close(self, seconds: float = 2.0) -> None:
        """Waits a moment for what is queued."""
        with self._wake:
            self._wake.wait_for(lambda: not self.pending, seconds)

    def detach(self) -> None:
        """Writes nothing any more."""
        self._detached = True
        with self._wake:
            self._queue.clear()
            self.pending = 0
            self._tell()

    def _put(self, handle: int, what: bytes | IO[bytes], size: int) -> None:
        with self._wake:
            self._queue.append((handle, what))
            self.pending += size
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="output", daemon=True)
                self._thread.start()
            self._wake.notify_all()

    async def _until(self, most: int) -> None:
        loop = asyncio.get_running_loop()
        with self._wake:
            if self.pending <= most:
                return
            event = asyncio.Event()
            self._waiters.append((most, partial(loop.call_soon_threadsafe, event.set)))
        await event.wait()

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._queue)
                handle, what = self._queue.popleft()
            if isinstance(what, bytes):
                self._write_and_count(handle, what)
                continue
            with what:
                for piece in _pieces(what):
                    self._write_and_count(handle, piece)

    def _write_and_count(self, handle: int, data: bytes) -> None:
        self._write(handle, data)
        with self._wake:
            self.pending = max(0, self.pending - len(data))
            self._tell()

    def _tell(self) -> None:
        self._wake.notify_all()
        due = [one for one in self._waiters if self.pending <= one[0]]
        for one in due:
            self._waiters.remove(one)
            # A loop that has closed meanwhile waits for nothing.
            with contextlib.suppress(RuntimeError):
                one[1]()

    def _write(self, handle: int, data: bytes) -> None:
        view = memoryview(data)
        while view and handle not in self._dead and not self._detached:
            try:
                view = view[os.write(handle, view) :]
            except BlockingIOError:
                select.select((), (handle,), ())
            except OSError as error:
                self._dead.add(handle)
                if error.errno not in _GONE:
                    self._problem(f"writing output: {error.strerror}; nothing more is written")


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(_PIECE):
        yield piece


def _write_directly(stream: IO[str], data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):
        buffer = getattr(stream, "buffer", None)
        if buffer is None:
            stream.write(data.decode(errors="replace"))
        else:
            stream.flush()
            buffer.write(data)
            buffer.flush()
