"""A remote process's streams on this process's own: bytes as they are, both ways at once."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from bridge.errors import BridgeError

if TYPE_CHECKING:
    from bridge.rpc.streams import Remote

PIECE = 32 * 1024
"""Bytes that are read at once: the largest frame of the contract."""

_T = TypeVar("_T")


class Waiting:
    """Calls that may block for ever, one after another, in a thread that nobody waits for.

    Descriptors of a terminal or a pipe are shared with other processes, so that making them
    non-blocking would disturb those; and an executor's thread would be waited for at the end.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def call(self, function: Callable[[], _T]) -> _T:
        """What the function returns or raises."""
        future: asyncio.Future[_T] = self._loop.create_future()
        self._calls.put(lambda: self._one(function, future))
        return await future

    def close(self) -> None:
        """The thread ends after the call that it is in."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except RuntimeError:
                # The loop is closed: nobody wants the answer any more.
                return

    def _one(self, function: Callable[[], _T], future: asyncio.Future[_T]) -> None:
        try:
            result = function()
        except OSError as error:
            self._loop.call_soon_threadsafe(_fail, future, error)
        else:
            self._loop.call_soon_threadsafe(_succeed, future, result)


def _fail(future: asyncio.Future[_T], error: OSError) -> None:
    if not future.done():
        future.set_exception(error)


def _succeed(future: asyncio.Future[_T], result: _T) -> None:
    if not future.done():
        future.set_result(result)


@dataclass(frozen=True, slots=True)
class Ends:
    """This process's descriptors. `stdin` None: nothing is fed."""

    stdin: int | None = None
    stdout: int = 1
    stderr: int = 2


async def pipe(remote: Remote, ends: Ends) -> int:
    """Joins the streams until the remote process ends; its exit code.

    Raises what the remote end raises, and BrokenPipeError where nobody reads our output any more.
    """
    writing = Waiting("output")
    feeding = None
    if ends.stdin is not None:
        feeding = asyncio.create_task(_feed(remote, ends.stdin), name="stdin")
    try:
        while True:
            stream, data = await remote.read()
            if not stream:
                return await remote.wait()
            end = ends.stderr if stream == "stderr" else ends.stdout
            await writing.call(partial(_write, end, data))
    finally:
        writing.close()
        if feeding is not None:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)


async def _feed(remote: Remote, descriptor: int) -> None:
    reading = Waiting("input")
    try:
        while data := await reading.call(partial(_read, descriptor)):
            await remote.write(data)
        await remote.close_input()
    except BridgeError:
        # Whether the process minds is told by its output and its exit code.
        pass
    finally:
        reading.close()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, PIECE)
    except OSError:
        # A terminal that was hung up, or no descriptor at all: no more input.
        return b""


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
