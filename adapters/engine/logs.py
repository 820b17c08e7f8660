"""Containers' logs, to the byte as they were written.

Podman's API is not exact: with a tail it joins the streams' unfinished lines and loses the last
line's lack of an end, its times have no fractions, and what it follows can end too early. Its log
file has none of that, so on Podman's own host the file is read. Everything else is read by the
API, in which each frame is one entry. Docker's containers log with its driver `local`, which keeps
every byte (json-file would replace those that are no UTF-8).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

import aiohttp

from adapters.engine import monitor
from adapters.engine.client import Engine, part
from adapters.engine.entries import Entry, Filter, Tail, parse
from bridge.adapter import LogOptions
from bridge.errors import NotFound, Unavailable

_BLOCK = 64 * 1024
_PAUSE, _LONGEST_PAUSE = 0.05, 0.25
"""Seconds between looks at a file that is followed: a person's idea of at once, and for one that is
quiet."""
_RELAX = 1.25
"""By how much longer each look at a quiet file waits than the one before."""
_PATIENCE = 1.0
"""Seconds between questions to an engine that does not answer, or a run that did not begin."""
_WAIT = 60.0
"""Seconds: the time limit of a call that waits for a container's end. Then it is looked at again:
an engine may not notice."""
_WINDOW = 128 * 1024
"""Bytes of the end of a log's file: 2 KiB of text, even where each byte is an entry of its own."""
_MOST = 2 * 1024 * 1024
"""Bytes of an answer, in search of a log's end: more than 80 of Docker's entries have."""
_HEADER = 8
_NAMES = {1: "stdout", 2: "stderr"}


async def logs(
    engine: Engine,
    container_id: str,
    options: LogOptions,
) -> AsyncGenerator[bytes, None]:
    """The bytes of one run's log, in pieces of at most 32 KiB.

    Followed, it ends after the last byte of a run that has ended, or was removed. Nothing is read
    ahead of its reader. NotFound: no such container. Unavailable.
    """
    found = await engine.call("GET", f"containers/{part(container_id)}/json")
    end = partial(_end, engine, container_id)
    descriptor = _file(engine, found)
    if descriptor is not None:
        try:
            async for piece in _from_file(descriptor, options, end):
                yield piece
        finally:
            os.close(descriptor)
        return
    source = _Api(engine, container_id, options, end, tty=bool(found["Config"].get("Tty")))
    async with aclosing(source.read()) as pieces:
        async for piece in pieces:
            yield piece


async def ending(engine: Engine, found: Mapping[str, Any], lines: int, size: int) -> bytes:
    """The end of the log of a run that has ended: at most so many lines and bytes of it.

    `found` is the container's inspect. However long the log and its lines are, little of them is
    read; empty where the end would not be among it. How long that takes is the engine's affair:
    the caller sets the limit. NotFound, Unavailable.
    """
    descriptor = _file(engine, found)
    if descriptor is not None:
        try:
            return _end_of_file(descriptor, lines, size)
        finally:
            os.close(descriptor)
    end = Ending(size, framed=not (found.get("Config") or {}).get("Tty"))
    path = f"containers/{part(str(found['Id']))}/logs"
    params = {"stdout": True, "stderr": True, "tail": lines}
    read = 0
    async with engine.stream("GET", path, params=params) as answer:
        async for chunk in answer.content.iter_chunked(_BLOCK):
            read += len(chunk)
            if read > _MOST:
                return b""
            end.add(chunk)
    return _last_lines(end.text, lines)


def _end_of_file(descriptor: int, lines: int, size: int) -> bytes:
    start = max(0, os.fstat(descriptor).st_size - _WINDOW)
    held = os.pread(descriptor, _WINDOW, start).split(b"\n")
    # The first may be the end of an entry, the last is empty or not written yet.
    entries = [entry for one in held[bool(start) : -1] if (entry := parse(one))]
    text = b"".join(Filter(LogOptions()).pieces(entries))
    return _last_lines(text[-size:], lines)


def _last_lines(text: bytes, lines: int) -> bytes:
    held = text.split(b"\n")
    return b"\n".join(held[-lines - (not held[-1]) :])


class Ending:
    """The last bytes of a log as the engine sends it; no more of it is held."""

    def __init__(self, size: int, *, framed: bool) -> None:
        self._size = size
        self._framed = framed
        self._header = b""
        self._left = 0
        """Bytes of the frame that are still to come."""
        self.text = b""
        """The last `size` bytes until now, of both streams in their order."""

    def add(self, chunk: bytes) -> None:
        """The next bytes of the answer, cut anywhere."""
        if not self._framed:
            self._keep(chunk)
            return
        at = 0
        while at < len(chunk):
            if self._left:
                piece = chunk[at : at + self._left]
                self._left -= len(piece)
                self._keep(piece)
            else:
                piece = chunk[at : at + _HEADER - len(self._header)]
                self._head(piece)
            at += len(piece)

    def _head(self, piece: bytes) -> None:
        self._header += piece
        if len(self._header) == _HEADER:
            self._left = int.from_bytes(self._header[4:], "big")
            self._header = b""

    def _keep(self, piece: bytes) -> None:
        self.text = (self.text + piece[-self._size :])[-self._size :]


def _file(engine: Engine, found: Mapping[str, Any]) -> int | None:
    """The log's file, opened; None where there is none that we can read."""
    path = found.get("LogPath") or ""
    # Docker rotates and compresses its files, and has several forms of them.
    if not engine.podman or not engine.local or not path:
        return None
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None


async def _from_file(
    descriptor: int, options: LogOptions, until_end: Callable[[], Coroutine[Any, Any, None]]
) -> AsyncGenerator[bytes, None]:
    reader = FileReader(descriptor, options)
    end: asyncio.Task[None] | None = None
    if options.follow:
        end = asyncio.create_task(until_end(), name="engine-log-end")
    try:
        pause = _PAUSE
        while True:
            # Looked at before the file is: what is read afterwards is all there will ever be.
            over = end is None or end.done()
            pause = min(pause * _RELAX, _LONGEST_PAUSE)
            for piece in reader.read():
                pause = _PAUSE
                yield piece
            if over or reader.full or end is None:
                break
            await asyncio.wait({end}, timeout=pause)
        if end is not None and end.done():
            end.result()
    finally:
        if end is not None:
            end.cancel()
            await asyncio.wait({end})


async def _end(engine: Engine, container_id: str) -> None:
    """Returns once the run has ended, or is gone. An engine that is away ends nothing."""
    path = f"containers/{part(container_id)}"
    while True:
        try:
            state = (await engine.call("GET", f"{path}/json"))["State"]
            if not state["Running"] and state["Status"] not in ("running", "stopping"):
                return
            if await _outlived(engine, container_id, state):
                return
            await engine.call("POST", f"{path}/wait", timeout=_WAIT)
        except NotFound:
            return
        except Unavailable:
            await asyncio.sleep(_PATIENCE)


async def _outlived(engine: Engine, container_id: str, state: Mapping[str, Any]) -> bool:
    """Waits for the end of the process that writes the log, where that can be seen from here."""
    if not (engine.podman and engine.local and state.get("Pid")):
        return False
    descriptor = monitor.find(int(state["Pid"]), container_id)
    if descriptor is None:
        return False
    try:
        await monitor.gone(descriptor)
    finally:
        os.close(descriptor)
    return True


class FileReader:
    """A place in Podman's log file, and what of it is wanted."""

    def __init__(self, descriptor: int, options: LogOptions) -> None:
        self._descriptor = descriptor
        self._filter = Filter(options)
        self._offset = 0
        if options.tail_lines is not None:
            self._offset = self._tail(options)

    @property
    def full(self) -> bool:
        """Whether as many bytes as are wanted were given out."""
        return self._filter.full

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
            lines = data[: end - 1].split(b"\n")
            yield from self._filter.pieces(entry for line in lines if (entry := parse(line)))

    def _tail(self, options: LogOptions) -> int:
        """Where the last so many lines begin: found in the last part of the file that holds them,
        twice as much of it each time."""
        size = os.fstat(self._descriptor).st_size
        span = _BLOCK
        lines = options.tail_lines or 0
        while True:
            start = max(0, size - span)
            tail, enough = self._lines(start, size, options, lines)
            if enough or not start:
                return tail.start(size)
            span *= 2

    def _lines(self, start: int, end: int, options: LogOptions, lines: int) -> tuple[Tail, bool]:
        """The wanted lines between two places, and whether there are more than enough. What comes
        before the first whole line is left out: it may be the end of one."""
        tail, count = Tail(lines), 0
        chosen = Filter(options)
        begun = not start
        for position, entry in self._entries(start, end, skip=bool(start)):
            if not chosen.wanted(entry):
                continue
            if begun:
                tail.add(entry, position)
            begun = begun or entry.whole
            count += entry.whole
        return tail, count > lines + 1

    def _entries(self, start: int, end: int, *, skip: bool) -> Iterator[tuple[int, Entry]]:
        position, rest = start, b""
        while position < end:
            data = os.pread(self._descriptor, min(_BLOCK, end - position), position)
            if not data:
                return
            at = position - len(rest)
            position += len(data)
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                entry = None if skip else parse(line)
                skip = False
                if entry is not None:
                    yield at, entry
                at += len(line) + 1


class _Api:
    """A log as the engine's API gives it."""

    def __init__(
        self,
        engine: Engine,
        container_id: str,
        options: LogOptions,
        end: Callable[[], Awaitable[None]],
        *,
        tty: bool,
    ) -> None:
        self._engine = engine
        self._id = container_id
        self._end = end
        self._options = options
        self._tty = tty
        # Docker's times are exact and on each frame. Podman's are not, and end up within lines.
        self._timed = options.timestamps or (not engine.podman and not tty)
        self._filter = Filter(options)

    async def read(self) -> AsyncGenerator[bytes, None]:
        """The wanted bytes."""
        skip = 0
        tail = self._options.tail_lines
        if tail is not None and self._options.stream and not self._tty:
            # The engine counts the lines of both streams.
            skip, tail = await self._skipped(tail), None
        seen = 0
        while True:
            async with aclosing(self._entries(self._options.follow, tail)) as entries:
                async for entry in entries:
                    seen += 1
                    if seen <= skip:
                        continue
                    for piece in self._pieces(entry):
                        yield piece
                    if self._filter.full:
                        return
            if not self._options.follow or not await self._more(seen, tail):
                return
            # It ended before the run did, or before the run's last byte: once more from the start.
            skip, seen = max(skip, seen), 0

    def _pieces(self, entry: Entry) -> Iterator[bytes]:
        if self._tty or not self._timed or self._engine.podman:
            if self._options.stream and entry.stream != self._options.stream:
                return iter(())
            return self._filter.cut(entry.content)
        return self._filter.pieces([entry])

    async def _skipped(self, lines: int) -> int:
        """How many entries come before the last so many lines."""
        tail, count = Tail(lines), 0
        chosen = Filter(self._options)
        async with aclosing(self._entries(False, None)) as entries:
            async for entry in entries:
                if chosen.wanted(entry):
                    tail.add(entry, count)
                count += 1
        return tail.start(count)

    async def _more(self, seen: int, tail: int | None) -> bool:
        """Whether there is more than what was followed: asked of Podman alone, which may end early.
        With a tail the place is not known any more."""
        if not self._engine.podman or tail is not None or self._tty:
            return False
        await self._end()
        count = 0
        try:
            async with aclosing(self._entries(False, None)) as entries:
                async for _ in entries:
                    count += 1
        except NotFound:
            return False
        return count > seen

    async def _entries(self, follow: bool, tail: int | None) -> AsyncGenerator[Entry, None]:
        params = {
            "follow": follow,
            "stdout": True,
            "stderr": True,
            "timestamps": self._timed,
            "since": None if self._options.since is None else f"{self._options.since:.9f}",
            "tail": "all" if tail is None else tail,
        }
        path = f"containers/{part(self._id)}/logs"
        async with self._engine.stream("GET", path, params=params) as answer:
            if self._tty:
                async for data in answer.content.iter_chunked(_BLOCK):
                    yield Entry(b"", "stdout", False, data)
                return
            while (frame := await _frame(answer.content)) is not None:
                yield self._entry(*frame)

    def _entry(self, stream: str, data: bytes) -> Entry:
        if not self._timed or self._engine.podman:
            return Entry(b"", stream, data.endswith(b"\n"), data)
        time, _, content = data.partition(b" ")
        whole = content.endswith(b"\n")
        return Entry(time, stream, whole, content[:-1] if whole else content)


async def _frame(content: aiohttp.StreamReader) -> tuple[str, bytes] | None:
    """The next frame; None at the end. Unavailable: it breaks off."""
    header = b""
    try:
        header = await content.readexactly(_HEADER)
        data = await content.readexactly(int.from_bytes(header[4:], "big"))
    except asyncio.IncompleteReadError as error:
        if header or error.partial:
            raise Unavailable("the engine's log broke off") from None
        return None
    return _NAMES.get(header[0], "stdout"), data
