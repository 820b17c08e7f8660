"""Exec, attach and port-forward as their user sees them: read, write, resize, wait.

A `Remote` works the same with a provider in process and at an address. What the contract asks of a
client, it does: frames, credits for what was read, the order of data and the end of stdin.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Protocol

from bridge.errors import BridgeError, Invalid, Unavailable
from bridge.rpc.credit import Inbox, Outbox
from bridge.rpc.v1 import stream_pb2 as pb


class StreamClient(Protocol):
    """The calls of the contract that carry bytes both ways. What is wrong with a call is raised
    from its first answer on: only errors of `bridge.errors`."""

    def exec(
        self, requests: AsyncIterator[pb.ExecRequest]
    ) -> AsyncGenerator[pb.ExecResponse, None]:
        """`Exec`."""

    def attach(
        self, requests: AsyncIterator[pb.AttachRequest]
    ) -> AsyncGenerator[pb.AttachResponse, None]:
        """`Attach`."""

    def port_forward(
        self, requests: AsyncIterator[pb.PortForwardRequest]
    ) -> AsyncGenerator[pb.PortForwardResponse, None]:
        """`PortForward`."""


class TerminalSize(Protocol):
    """A terminal's size in characters."""

    @property
    def width(self) -> int:
        """Columns."""

    @property
    def height(self) -> int:
        """Rows."""


async def open_exec(provider: StreamClient, start: pb.ExecStart) -> Remote:
    """Runs a command. Returns at once: what refuses it is raised by the first read, or by wait."""
    return Remote(provider.exec, _ProcessWords(pb.ExecRequest, start))


async def open_attach(provider: StreamClient, start: pb.AttachStart) -> Remote:
    """Joins a container's process. Returns at once, as `open_exec` does."""
    return Remote(provider.attach, _ProcessWords(pb.AttachRequest, start))


async def open_forward(provider: StreamClient, start: pb.PortForwardStart) -> Remote:
    """Connects to a port of a pod; its bytes are "stdout". Returns at once, as `open_exec` does."""
    return Remote(provider.port_forward, _ConnectionWords(start))


class Remote:
    """A process's streams, or one connection, behind a provider. Whoever opened it closes it.

    One task may read, one write, one wait, all at once. What is not read stops the sender. Errors
    of the call are raised by every method but `resize` and `close`.
    """

    def __init__(self, call: Callable[[AsyncIterator[Any]], Any], words: _Words) -> None:
        self._words = words
        self._news = asyncio.Event()
        self._inbox = Inbox(["stdout", "stderr"], self._news)
        self._outbox = Outbox(["stdin"] if words.stdin else [], self._news)
        self._stdin = words.stdin
        self._size: TerminalSize | None = None
        self._ending_input = False
        self._end: _End | None = None
        self._over = asyncio.Event()
        self._driving = asyncio.create_task(self._drive(call), name="remote stream")
        self._driving.add_done_callback(self._finish)

    async def read(self) -> tuple[str, bytes]:
        """The next bytes: ("stdout" or "stderr", at most 32 KiB); ("", b"") at the end.

        Unavailable: the connection broke.
        """
        stream, content = await self._inbox.take()
        if stream:
            self._inbox.taken(stream, len(content))
        else:
            self._raise_broken()
        return stream, content

    async def write(self, data: bytes) -> None:
        """Bytes for stdin, or toward the port; returns when they are on their way. What comes after
        the end is dropped. Invalid: there is no stdin."""
        if not self._stdin:
            raise Invalid("stdin was not asked for")
        await self._outbox.send("stdin", data)
        if self._over.is_set():
            self._raise_broken()

    async def close_input(self) -> None:
        """No more stdin, after what was written."""
        self._ending_input = self._stdin
        self._news.set()

    async def resize(self, size: TerminalSize) -> None:
        """The terminal's size has changed. It passes all data that wait."""
        self._size = size
        self._news.set()

    async def wait(self) -> int:
        """The exit code, or 128 + signal, after the last byte was read; of a connection 0.

        Invalid: it could not run, and why. Unavailable: it broke.
        """
        await self._over.wait()
        self._raise_broken()
        if self._end is None:
            raise Unavailable("the stream was closed before its end")
        if self._end.error is not None:
            raise self._end.error
        return self._end.code

    async def close(self) -> None:
        """Lets go; a command that was started is ended. May be repeated."""
        self._driving.cancel()
        await asyncio.gather(self._driving, return_exceptions=True)

    async def _drive(self, call: Callable[[AsyncIterator[Any]], Any]) -> None:
        async with aclosing(call(self._requests())) as responses:
            async for response in responses:
                self._hear(response)
        if self._end is None:
            raise Unavailable("the provider ended the stream without its end")

    def _hear(self, response: Any) -> None:
        match self._words.hear(response):
            case "data", stream, content:
                self._inbox.arrived(stream, content)
            case "credit", stream, count:
                self._outbox.granted(stream, count)
            case _, _, end:
                self._end = end
                self._inbox.end()
                self._news.set()

    async def _requests(self) -> AsyncIterator[Any]:
        words, news = self._words, self._news
        yield words.start
        # Told the end, we end our direction; the provider then ends the call.
        while self._end is None and not self._over.is_set():
            news.clear()
            if (grant := self._inbox.due()) is not None:
                yield words.credit(*grant)
            elif self._size is not None:
                size, self._size = self._size, None
                yield words.resize(size)
            elif (frame := self._outbox.take()) is not None:
                yield words.data(*frame)
            elif self._ending_input:
                self._ending_input = False
                yield words.close_input()
            else:
                await news.wait()

    def _finish(self, _: object) -> None:
        self._over.set()
        self._inbox.end()
        self._outbox.close()
        self._news.set()

    def _raise_broken(self) -> None:
        if self._driving.done() and not self._driving.cancelled():
            self._driving.result()
        if self._end is not None and self._end.broken and self._end.error is not None:
            raise self._end.error


class _End:
    """How it ended: the code, or why it could not run, or how it broke."""

    __slots__ = ("broken", "code", "error")

    def __init__(self, code: int, error: BridgeError | None = None, *, broken: bool = False):
        self.code = code
        self.error = error
        self.broken = broken


Heard = tuple[str, str, Any]
"""("data" | "credit" | "end", stream, bytes | count | _End)."""


class _Words(Protocol):
    """How one of the three calls spells what they have in common."""

    start: Any
    stdin: bool

    def hear(self, response: Any) -> Heard: ...

    def data(self, stream: str, content: bytes) -> Any: ...

    def credit(self, stream: str, count: int) -> Any: ...

    def resize(self, size: TerminalSize) -> Any: ...

    def close_input(self) -> Any: ...


_NAMES = {pb.STREAM_STDIN: "stdin", pb.STREAM_STDOUT: "stdout", pb.STREAM_STDERR: "stderr"}
_NUMBERS = {name: number for number, name in _NAMES.items()}


class _ProcessWords:
    def __init__(self, request: type[Any], start: pb.ExecStart | pb.AttachStart) -> None:
        self._request = request
        self.start = request(start=start)
        self.stdin = start.stdin

    def hear(self, response: pb.ExecResponse | pb.AttachResponse) -> Heard:
        match response.WhichOneof("message"):
            case "data":
                data = response.data
                return "data", _NAMES.get(data.stream, ""), data.content
            case "credit":
                credit = response.credit
                return "credit", _NAMES.get(credit.stream, ""), credit.bytes
            case "exit":
                end = response.exit
                if end.HasField("code"):
                    return "end", "", _End(end.code)
                return "end", "", _End(0, Invalid(end.error or "it could not run"))
        raise _unknown()

    def data(self, stream: str, content: bytes) -> Any:
        return self._request(data=pb.Data(stream=_NUMBERS[stream], content=content))

    def credit(self, stream: str, count: int) -> Any:
        return self._request(credit=pb.Credit(stream=_NUMBERS[stream], bytes=count))

    def resize(self, size: TerminalSize) -> Any:
        return self._request(resize=pb.TerminalSize(width=size.width, height=size.height))

    def close_input(self) -> Any:
        return self._request(close_stdin=True)


class _ConnectionWords:
    stdin = True

    def __init__(self, start: pb.PortForwardStart) -> None:
        self.start = pb.PortForwardRequest(start=start)

    def hear(self, response: pb.PortForwardResponse) -> Heard:
        match response.WhichOneof("message"):
            case "data":
                return "data", "stdout", response.data
            case "credit":
                return "credit", "stdin", response.credit
            case "closed":
                why = response.closed
                return "end", "", _End(0, Unavailable(why) if why else None, broken=bool(why))
        raise _unknown()

    def data(self, stream: str, content: bytes) -> Any:
        return pb.PortForwardRequest(data=content)

    def credit(self, stream: str, count: int) -> Any:
        return pb.PortForwardRequest(credit=count)

    def resize(self, size: TerminalSize) -> Any:
        raise Invalid("a connection has no size")

    def close_input(self) -> Any:
        return pb.PortForwardRequest(close=True)


def _unknown() -> Invalid:
    return Invalid("the provider sent a message of no known kind")
