"""Exec, Attach and PortForward as the provider serves them: between a client and a `Channel`.

Each stream has one group of tasks. Hearing the client never waits for anything, so that a resize,
the end of stdin and credits pass whatever data is blocked; what they lead to is done in tasks of
its own. Answers leave by the generator itself: grants, frames, and last the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import aclosing, suppress
from typing import Any, Protocol, TypeVar

from bridge import adapter as seam
from bridge.errors import BridgeError, Invalid, Unsupported, Violation
from bridge.provider.backend import Backend
from bridge.rpc.credit import Inbox, Outbox
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import stream_pb2 as pb
from bridge.workload import Identity

Find = Callable[[pod_pb2.PodIdentity], tuple[Identity, Backend]]
"""Where a pod runs. Invalid, NotFound."""

Request = TypeVar("Request", pb.ExecRequest, pb.AttachRequest, pb.PortForwardRequest)

_LEAVING = 1.0
"""Seconds that a client has, told the end, to end its own direction. One that still writes when a
call ends may take that for its failure, and lose the end that is on its way: grpc.aio does."""

_NAMES = {pb.STREAM_STDIN: "stdin", pb.STREAM_STDOUT: "stdout", pb.STREAM_STDERR: "stderr"}
_NUMBERS = {name: number for number, name in _NAMES.items()}


async def serve_exec(
    requests: AsyncIterator[pb.ExecRequest], find: Find
) -> AsyncGenerator[pb.ExecResponse, None]:
    """`Exec`."""
    start = (await _first(requests)).start
    _check_process(start, start.command)
    identity, backend = find(start.pod)
    adapter = backend.adapter
    if not isinstance(adapter, seam.Exec):
        raise Unsupported(f"backend {backend.name} cannot run commands in containers")
    words = _ProcessWords(pb.ExecResponse)
    try:
        channel = await adapter.exec(
            identity, start.container, list(start.command), stdin=start.stdin, tty=start.tty
        )
    except Invalid as error:
        yield words.failed(error.message)
        await _left(requests)
        return
    session = _Session(channel, requests, words, stdin=start.stdin, wanted=_wanted(start))
    async with aclosing(session.messages()) as messages:
        async for message in messages:
            yield message


async def serve_attach(
    requests: AsyncIterator[pb.AttachRequest], find: Find
) -> AsyncGenerator[pb.AttachResponse, None]:
    """`Attach`."""
    start = (await _first(requests)).start
    _check_process(start)
    identity, backend = find(start.pod)
    adapter = backend.adapter
    if not isinstance(adapter, seam.Attach):
        raise Unsupported(f"backend {backend.name} cannot attach to containers")
    words = _ProcessWords(pb.AttachResponse)
    try:
        channel = await adapter.attach(identity, start.container, stdin=start.stdin)
    except Invalid as error:
        yield words.failed(error.message)
        await _left(requests)
        return
    session = _Session(channel, requests, words, stdin=start.stdin, wanted=_wanted(start))
    async with aclosing(session.messages()) as messages:
        async for message in messages:
            yield message


async def serve_port_forward(
    requests: AsyncIterator[pb.PortForwardRequest], find: Find
) -> AsyncGenerator[pb.PortForwardResponse, None]:
    """`PortForward`."""
    start = (await _first(requests)).start
    if not 1 <= start.port <= 65535:
        raise Invalid(violations=[Violation("port", f"found {start.port}; allowed: 1 to 65535")])
    identity, backend = find(start.pod)
    adapter = backend.adapter
    if not isinstance(adapter, seam.Dial):
        raise Unsupported(f"backend {backend.name} cannot connect to ports of pods")
    channel = await adapter.dial(identity, start.port, inside=True)
    session = _Session(channel, requests, _ConnectionWords(), stdin=True, wanted=("stdout",))
    async with aclosing(session.messages()) as messages:
        async for message in messages:
            yield message


async def _left(requests: AsyncIterator[Request]) -> None:
    """Returns once the client has ended its direction, or after a while."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_LEAVING):
            async for _ in requests:
                pass


async def _first(requests: AsyncIterator[Request]) -> Request:
    async for request in requests:
        if request.WhichOneof("message") == "start":
            return request
        break
    raise Invalid(violations=[Violation("start", "required: the first message is `start`")])


def _check_process(
    start: pb.ExecStart | pb.AttachStart, command: Sequence[str] | None = None
) -> None:
    wrong = []
    if not start.container:
        wrong.append(Violation("container", "required"))
    if command is not None and not command:
        wrong.append(Violation("command", "required"))
    if start.tty and start.stderr:
        wrong.append(Violation("stderr", "not together with tty: a terminal has one output"))
    if wrong:
        raise Invalid(violations=wrong)


def _wanted(start: pb.ExecStart | pb.AttachStart) -> Collection[str]:
    return [name for name in ("stdout", "stderr") if getattr(start, name)]


Heard = tuple[str, str, Any]
"""("data" | "credit" | "resize" | "close", stream, bytes | count | Size | None)."""


class _Words(Protocol):
    """How one of the three calls spells what they have in common."""

    def hear(self, request: Any) -> Heard:
        """What a client says. Invalid."""

    def data(self, stream: str, content: bytes) -> Any: ...

    def credit(self, stream: str, count: int) -> Any: ...

    def ended(self, code: int) -> Any: ...

    def failed(self, why: str) -> Any: ...


class _ProcessWords:
    """Exec and Attach: their messages have the same fields."""

    def __init__(self, response: type[Any]) -> None:
        self._response = response

    def hear(self, request: pb.ExecRequest | pb.AttachRequest) -> Heard:
        match request.WhichOneof("message"):
            case "data":
                data = request.data
                return "data", _NAMES.get(data.stream, ""), data.content
            case "credit":
                credit = request.credit
                return "credit", _NAMES.get(credit.stream, ""), credit.bytes
            case "resize":
                return "resize", "", seam.Size(request.resize.width, request.resize.height)
            case "close_stdin":
                return "close", "", None
        raise _out_of_place(request)

    def data(self, stream: str, content: bytes) -> Any:
        return self._response(data=pb.Data(stream=_NUMBERS[stream], content=content))

    def credit(self, stream: str, count: int) -> Any:
        return self._response(credit=pb.Credit(stream=_NUMBERS[stream], bytes=count))

    def ended(self, code: int) -> Any:
        return self._response(exit=pb.Exit(code=code))

    def failed(self, why: str) -> Any:
        return self._response(exit=pb.Exit(error=why))


class _ConnectionWords:
    """PortForward: one stream each way."""

    def hear(self, request: pb.PortForwardRequest) -> Heard:
        match request.WhichOneof("message"):
            case "data":
                return "data", "stdin", request.data
            case "credit":
                return "credit", "stdout", request.credit
            case "close":
                return "close", "", None
        raise _out_of_place(request)

    def data(self, stream: str, content: bytes) -> pb.PortForwardResponse:
        return pb.PortForwardResponse(data=content)

    def credit(self, stream: str, count: int) -> pb.PortForwardResponse:
        return pb.PortForwardResponse(credit=count)

    def ended(self, code: int) -> pb.PortForwardResponse:
        return pb.PortForwardResponse(closed="")

    def failed(self, why: str) -> pb.PortForwardResponse:
        return pb.PortForwardResponse(closed=why)


def _out_of_place(
    request: pb.ExecRequest | pb.AttachRequest | pb.PortForwardRequest,
) -> Invalid:
    kind = request.WhichOneof("message") or "a message of no known kind"
    return Invalid(f"{kind} is out of place here")


class _Session:
    """One stream between its client and its channel, which is closed with it."""

    def __init__(
        self,
        channel: seam.Channel,
        requests: AsyncIterator[Any],
        words: _Words,
        *,
        stdin: bool,
        wanted: Collection[str],
    ) -> None:
        self._channel = channel
        self._requests = requests
        self._words = words
        self._stdin = stdin
        self._wanted = frozenset(wanted)
        self._news = asyncio.Event()
        self._inbox = Inbox(["stdin"] if stdin else [], self._news)
        self._outbox = Outbox(["stdout", "stderr"], self._news)
        self._size: seam.Size | None = None
        self._resized = asyncio.Event()
        self._end: Any | None = None
        self._left = asyncio.Event()
        """The client has ended its direction."""

    async def messages(self) -> AsyncGenerator[Any, None]:
        """What the client is told, the end being last. Invalid: it breaks the contract."""
        words, news = self._words, self._news
        running = asyncio.create_task(self._run(), name="stream")
        running.add_done_callback(lambda _: news.set())
        try:
            while not running.done():
                news.clear()
                if (grant := self._inbox.due()) is not None:
                    yield words.credit(*grant)
                elif (frame := self._outbox.take()) is not None:
                    yield words.data(*frame)
                elif self._end is not None:
                    yield self._end
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LEAVING):
                            await self._left.wait()
                    return
                else:
                    await news.wait()
            raise _reason(running)
        finally:
            running.cancel()
            try:
                await asyncio.gather(running, return_exceptions=True)
            finally:
                with suppress(BridgeError):
                    await self._channel.close()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear(), name="stream requests")
            tasks.create_task(self._drain(), name="stream output")
            tasks.create_task(self._resize(), name="stream resize")
            if self._stdin:
                tasks.create_task(self._feed(), name="stream input")

    async def _hear(self) -> None:
        async for request in self._requests:
            match self._words.hear(request):
                case "data", stream, content:
                    self._inbox.arrived(stream, content)
                case "credit", stream, count:
                    self._outbox.granted(stream, count)
                case "resize", _, size:
                    # Only the newest matters.
                    self._size = size
                    self._resized.set()
                case _:
                    self._inbox.end()
        self._inbox.end()
        self._left.set()

    async def _feed(self) -> None:
        broken = False
        while True:
            stream, content = await self._inbox.take()
            if not stream:
                break
            if not broken:
                try:
                    await self._channel.write(content)
                except BridgeError:
                    # What it still has to say is read, and why it broke is told, by `_drain`.
                    broken = True
            self._inbox.taken(stream, len(content))
        with suppress(BridgeError):
            await self._channel.close_input()

    async def _resize(self) -> None:
        while True:
            await self._resized.wait()
            self._resized.clear()
            if (size := self._size) is not None and size.width and size.height:
                # It may have just ended, or have no terminal: no reason to end its stream.
                with suppress(BridgeError):
                    await self._channel.resize(size)

    async def _drain(self) -> None:
        read, send = self._channel.read, self._outbox.send
        try:
            while True:
                stream, content = await read()
                if not stream:
                    break
                if stream in self._wanted:
                    await send(stream, content)
            self._end = self._words.ended(await self._channel.wait())
        except BridgeError as error:
            self._end = self._words.failed(error.message)
        self._news.set()


def _reason(task: asyncio.Task[None]) -> BaseException:
    """Why a stream broke off: the first thing that went wrong."""
    error = task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error or AssertionError("a stream ended by itself")
