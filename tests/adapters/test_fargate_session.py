"""`fargate`: a session's client against an agent that does as it is told."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
from aiohttp import web
from support.channels import PATIENCE, drained

from adapters.fargate import session
from adapters.fargate.clients import Clients
from adapters.fargate.command import Commands
from adapters.fargate.messages import (
    ACKNOWLEDGE,
    CLOSED,
    INPUT,
    OUTPUT,
    PAUSE,
    START,
    Content,
    Message,
    acknowledged,
    acknowledgement,
    decode,
    encode,
    said,
)
from adapters.fargate.session import Session, connect
from adapters.fargate.tasks import Tasks
from bridge.adapter import Size
from bridge.errors import BridgeError, Invalid, Unavailable, Unsupported
from bridge.groups import command, wrapper
from bridge.groups.command import Command

TOKEN = "the-token-that-nobody-may-see"


class Agent:
    """The other end of one session, by hand."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self.opening: Any = None

    async def say(self, message: Message) -> None:
        await self.socket.send_bytes(encode(message))

    async def output(self, sequence: int, data: bytes, content: int = Content.OUTPUT) -> Message:
        message = Message(OUTPUT, data, content, sequence)
        await self.say(message)
        return message

    async def hear(self, kind: str) -> Message:
        """The next message of that kind; others are passed over."""
        while True:
            message = decode((await self.socket.receive()).data)
            if message.kind == kind:
                return message

    async def acknowledges(self, *numbers: int) -> None:
        found = [acknowledged(await self.hear(ACKNOWLEDGE)) for _ in numbers]
        assert found == list(numbers)

    async def takes(self) -> Message:
        """The next input, acknowledged."""
        message = await self.hear(INPUT)
        await self.say(acknowledgement(message))
        return message

    async def shake(self, *wishes: dict[str, Any]) -> Any:
        """The handshake up to the client's answer."""
        asked = {"AgentVersion": "3.3.0.0", "RequestedClientActions": list(wishes)}
        await self.output(0, json.dumps(asked).encode(), Content.HANDSHAKE_REQUEST)
        answer = await self.takes()
        assert answer.content == Content.HANDSHAKE_RESPONSE
        return said(answer)

    async def ready(self) -> None:
        """The whole of it: two messages of output."""
        kind = {"SessionType": "InteractiveCommands", "Properties": {}}
        answer = await self.shake({"ActionType": "SessionType", "ActionParameters": kind})
        assert [one["ActionStatus"] for one in answer["ProcessedClientActions"]] == [1]
        await self.output(1, b"{}", Content.HANDSHAKE_COMPLETE)

    async def close(self, words: str = "") -> None:
        await self.say(Message(CLOSED, json.dumps({"Output": words}).encode()))


Script = Callable[[Agent], Awaitable[None]]


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[str]:
    """The address of an agent with that script; what goes wrong in it goes wrong here."""
    failures: list[BaseException] = []

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        agent = Agent(socket)
        agent.opening = json.loads((await socket.receive()).data)
        try:
            async with asyncio.timeout(PATIENCE):
                await script(agent)
                async for _ in socket:
                    pass
        except BaseException as error:
            failures.append(error)
            raise
        return socket

    app = web.Application()
    app.router.add_get("/session", serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/session"
    finally:
        await runner.cleanup()
    assert not [one for one in failures if not isinstance(one, asyncio.CancelledError)]


@asynccontextmanager
async def joined(script: Script) -> AsyncIterator[Session]:
    async with serving(script) as url:
        one = await connect(url, TOKEN)
        try:
            async with asyncio.timeout(PATIENCE):
                yield one
        finally:
            await one.close()


async def _all(one: Session) -> bytes:
    found = b""
    while data := await one.read():
        found += data
    return found


async def test_output_comes_in_order_and_once() -> None:
    async def script(agent: Agent) -> None:
        opening = dict(agent.opening)
        assert opening.pop("TokenValue") == TOKEN
        assert set(opening) == {"MessageSchemaVersion", "RequestId", "ClientId", "ClientVersion"}
        await agent.ready()
        for sequence in (3, 4, 2, 3, 5):
            await agent.output(sequence, b"%d" % sequence)
        # What comes twice is acknowledged twice: the first time may have been lost.
        await agent.acknowledges(1, 3, 4, 2, 3, 5)
        await agent.close("good bye")

    async with joined(script) as one:
        assert await _all(one) == b"2345"
        assert one.words == "good bye"
        assert await one.read() == b""
        await one.write(b"dropped")


async def test_input_waits_for_the_handshake_and_is_sent_again() -> None:
    async def script(agent: Agent) -> None:
        await agent.ready()
        first = await agent.hear(INPUT)
        again = await agent.hear(INPUT)
        while again.sequence != first.sequence:
            again = await agent.hear(INPUT)
        assert (again.id, again.payload, again.content) == (first.id, first.payload, 1)
        assert (first.sequence, first.payload) == (1, b"x" * 1024)
        await agent.say(acknowledgement(first))
        await agent.close()

    async with joined(script) as one:
        await one.write(b"x" * 1024 + b"y")
        assert await _all(one) == b""


async def test_a_size_is_json() -> None:
    async def script(agent: Agent) -> None:
        await agent.ready()
        size = await agent.takes()
        assert (size.content, said(size)) == (Content.SIZE, {"cols": 80, "rows": 65535})
        await agent.close()

    async with joined(script) as one:
        await one.resize(Size(width=80, height=10**9))
        assert await one.read() == b""


async def test_a_pause_holds_input_back() -> None:
    heard = asyncio.Event()

    async def script(agent: Agent) -> None:
        await agent.ready()
        await agent.say(Message(PAUSE))
        await agent.output(2, b"-")
        await agent.say(Message(PAUSE))
        await agent.say(Message(START))
        assert (await agent.takes()).payload == b"typed"
        heard.set()
        await agent.close()

    async with joined(script) as one:
        assert await one.read() == b"-"
        await one.write(b"typed")
        assert await one.read() == b""
    assert heard.is_set()


async def test_without_a_handshake_output_is_output() -> None:
    async def script(agent: Agent) -> None:
        await agent.output(0, b"$ ")
        assert (await agent.takes()).payload == b"ls\n"
        await agent.close()

    async with joined(script) as one:
        assert await one.read() == b"$ "
        await one.write(b"ls\n")
        assert await one.read() == b""


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"ActionType": "KMSEncryption", "ActionParameters": {"KMSKeyId": "k"}}, "KMS key"),
        ({"ActionType": "SessionType", "ActionParameters": {"SessionType": "Port"}}, "Port"),
        ({"ActionType": "Dance"}, "Dance"),
    ],
)
async def test_wishes_that_are_not_granted(wish: dict[str, Any], words: str) -> None:
    async def script(agent: Agent) -> None:
        answer = await agent.shake(wish)
        assert answer["ProcessedClientActions"][0]["ActionStatus"] == 2
        assert words in answer["Errors"][0]

    async with joined(script) as one:
        with pytest.raises(Unsupported, match=words):
            await one.read()
        with pytest.raises(Unsupported, match=words):
            await one.write(b"x")


GOOD = encode(Message(OUTPUT, b"data", 1, 0))
REQUEST = Content.HANDSHAKE_REQUEST


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\0" * 119,
        GOOD[:-1],
        GOOD[:-1] + b"x",
        GOOD + b"x",
        b"\xff" * 200,
        encode(Message(ACKNOWLEDGE, b"[1]")),
        encode(Message(CLOSED, b"\xff")),
        encode(Message(OUTPUT, b"nonsense", REQUEST, 0)),
        encode(Message(OUTPUT, b'{"RequestedClientActions": [7]}', REQUEST, 0)),
    ],
)
async def test_garbage_ends_a_session_with_an_error(frame: bytes) -> None:
    async def script(agent: Agent) -> None:
        await agent.socket.send_bytes(frame)

    async with joined(script) as one:
        with pytest.raises(BridgeError) as caught:
            await one.read()
        assert isinstance(caught.value, Unavailable | Unsupported)
        with pytest.raises(type(caught.value)):
            await one.write(b"x")


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_connection_that_is_cut(how: str) -> None:
    async def script(agent: Agent) -> None:
        await agent.ready()
        await agent.output(2, b"before")
        await agent.acknowledges(1, 2)
        if how == "close":
            await agent.socket.close()
        else:
            assert agent.socket._req is not None
            assert agent.socket._req.transport is not None
            agent.socket._req.transport.abort()

    async with joined(script) as one:
        assert await one.read() == b"before"
        with pytest.raises(Unavailable, match="was cut"):
            await one.read()
        with pytest.raises(Unavailable):
            await one.write(b"x")


async def test_what_nobody_acknowledges_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_PATIENCE", 0.3)

    async def script(agent: Agent) -> None:
        await agent.ready()

    async with joined(script) as one:
        await one.write(b"x")
        with pytest.raises(Unavailable, match="acknowledges nothing"):
            await one.read()


async def test_output_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_PATIENCE", 0.3)

    async def script(agent: Agent) -> None:
        await agent.ready()
        await agent.output(3, b"behind a gap")

    async with joined(script) as one:
        with pytest.raises(Unavailable, match="lost"):
            await one.read()


async def test_what_comes_too_early_is_kept_up_to_a_size() -> None:
    """The rest is not acknowledged, and comes again."""
    size = 32 * 1024
    fits = session._AHEAD_ROOM // size

    async def script(agent: Agent) -> None:
        await agent.ready()
        for sequence in range(3, 3 + 2 * fits):
            await agent.output(sequence, b"%02d" % sequence * (size // 2))
        await agent.output(2, b"at last")
        await agent.acknowledges(1, *range(3, 3 + fits), 2)
        for sequence in range(3 + fits, 3 + 2 * fits):
            await agent.output(sequence, b"%02d" % sequence * (size // 2))
        await agent.acknowledges(*range(3 + fits, 3 + 2 * fits))
        await agent.close()

    async with joined(script) as one:
        wanted = b"".join(b"%02d" % at * (size // 2) for at in range(3, 3 + 2 * fits))
        assert await _all(one) == b"at last" + wanted
        assert (one._ahead, one._kept) == ({}, 0)


async def test_a_message_that_no_agent_sends() -> None:
    async def script(agent: Agent) -> None:
        await agent.ready()
        with suppress(ConnectionError):
            await agent.output(2, bytes(64 * 1024))

    async with joined(script) as one:
        with pytest.raises(Unavailable, match="was cut"):
            await one.read()


async def test_a_connection_without_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_PING", 0.1)
    monkeypatch.setattr(session, "_SILENCE", 0.2)

    given_up = asyncio.Event()

    async def script(agent: Agent) -> None:
        # It reads nothing, and so it answers no ping.
        await given_up.wait()

    async with joined(script) as one:
        with pytest.raises(Unavailable, match="dead"):
            await one.read()
        given_up.set()


async def test_whoever_does_not_read_holds_the_agent_up() -> None:
    sent = 0

    async def script(agent: Agent) -> None:
        nonlocal sent
        await agent.ready()
        with suppress(ConnectionError):
            while True:
                await agent.output(2 + sent, bytes(1024))
                sent += 1

    async with joined(script) as one:
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.3)
        assert one._waiting < session._ROOM + 2048
        assert 0 < sent < 64 * 1024
        for _ in range(2 * session._ROOM // 1024):
            assert await one.read() == bytes(1024)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/x", "ws://example.com/x", "wss://127.0.0.1:9/s", "nonsense"]
)
async def test_a_session_that_cannot_be_opened(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(Unavailable) as caught:
        await connect(url, TOKEN)
    assert TOKEN not in caught.value.message + caplog.text


async def test_the_token_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def script(agent: Agent) -> None:
        await agent.socket.send_bytes(b"nonsense")

    with caplog.at_level(logging.DEBUG):
        async with joined(script) as one:
            with pytest.raises(Unavailable) as caught:
                await one.read()
    assert TOKEN not in repr(caught.value) + repr(vars(one)) + caplog.text


async def test_the_token_goes_to_no_other_address() -> None:
    async def script(agent: Agent) -> None:
        raise AssertionError

    async with serving(script) as other:

        async def lead(request: web.Request) -> web.Response:
            raise web.HTTPTemporaryRedirect(other.replace("ws", "http", 1))

        app = web.Application()
        app.router.add_get("/session", lead)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            with pytest.raises(Unavailable, match="leads to another"):
                await connect(f"ws://127.0.0.1:{runner.addresses[0][1]}/session", TOKEN)
        finally:
            await runner.cleanup()


async def test_an_address_that_answers_something_else() -> None:
    async def script(agent: Agent) -> None:
        raise AssertionError

    async with serving(script) as url:
        with pytest.raises(Unavailable, match="WSServerHandshakeError"):
            await connect(f"{url}s", TOKEN)


# Commands on top of it.


WORD = "n0123"


def _mark(kind: str, rest: str = "") -> bytes:
    return f"\x1e{kind} {WORD} {rest}\r\n".encode()


@asynccontextmanager
async def commanding(script: Script) -> AsyncIterator[tuple[Command, list[str]]]:
    """A command without a terminal, and what was done besides."""
    done: list[str] = []

    async def terminate() -> None:
        done.append("terminated")

    async with serving(script) as url:
        one = await connect(url, TOKEN)
        made = Command(
            one,
            wrapper.Pipes(WORD),
            terminate,
            lambda _: done.append("closed"),
            name="ls",
            stdin=False,
            tty=False,
        )
        try:
            async with asyncio.timeout(PATIENCE):
                yield made, done
        finally:
            await made.close()


async def test_an_image_without_a_shell() -> None:
    words = 'Unable to start command: Failed to start pty: exec: "sh": executable file not found in'

    async def script(agent: Agent) -> None:
        await agent.ready()
        await agent.close(f"{words} $PATH")

    async with commanding(script) as (one, _):
        with pytest.raises(Invalid, match=r"the image has no sh.*not found"):
            await one.begin()


async def test_a_session_that_ends_too_soon() -> None:
    async def script(agent: Agent) -> None:
        await agent.ready()
        await agent.output(2, _mark("s") + b"o" + base64.b64encode(b"some") + b"\r\n")
        await agent.close("Your session timed out due to inactivity.")

    async with commanding(script) as (one, done):
        await one.begin()
        assert await one.read() == ("stdout", b"some")
        with pytest.raises(Unavailable, match="inactivity"):
            await one.read()
        with pytest.raises(Unavailable, match="inactivity"):
            await one.wait()
    assert done == ["terminated", "closed"]


async def test_a_session_stays_until_its_last_word_was_heard() -> None:
    async def script(agent: Agent) -> None:
        await agent.ready()
        await agent.output(2, _mark("s") + _mark("x", "3") + b"do\r\nde\r\n" + _mark("z"))
        assert (await agent.takes()).payload == wrapper.END
        await agent.close()

    async with commanding(script) as (one, done):
        await one.begin()
        assert await drained(one) == (b"", b"", 3)
    assert done == ["closed"]


async def test_a_code_that_is_none() -> None:
    async def script(agent: Agent) -> None:
        await agent.ready()
        await agent.output(2, _mark("s") + _mark("x", "9" * 5000))

    async with commanding(script) as (one, _):
        with pytest.raises(Unavailable, match="how the command has ended"):
            await one.read()


async def test_a_fault_of_ours_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(agent: Agent) -> None:
        await agent.ready()
        await agent.output(2, _mark("s"))

    def feed(self: wrapper.Pipes, data: bytes) -> Any:
        raise ValueError("unforeseen")

    monkeypatch.setattr(wrapper.Pipes, "feed", feed)
    async with commanding(script) as (one, _):
        for asked in (one.begin, one.read, one.wait):
            with pytest.raises(Unavailable, match="cannot be read"):
                await asked()
    assert "unforeseen" in caplog.text


async def test_a_channel_that_is_closed() -> None:
    async def script(agent: Agent) -> None:
        await agent.ready()
        await agent.output(2, _mark("s"))

    async with commanding(script) as (one, done):
        await one.begin()
        reading = asyncio.create_task(one.read())
        waiting = asyncio.create_task(one.wait())
        await asyncio.sleep(0)
        await one.close()
        for task in (reading, waiting):
            with pytest.raises(Unavailable, match="closed"):
                await task
        with pytest.raises(Unavailable, match="closed"):
            await one.write(b"x")
        await one.close_input()
        await one.close()
    assert done == ["terminated", "closed"]


async def test_a_close_that_is_cancelled_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_LEAVES", 0.1)

    async def script(agent: Agent) -> None:
        await agent.ready()
        await agent.output(2, _mark("s") + _mark("x", "3") + b"do\r\nde\r\n" + _mark("z"))

    async with commanding(script) as (one, done):
        while (await one.read())[0]:
            pass
        closing = asyncio.create_task(one.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        # It never ends by itself.
        await one.close()
        assert done == ["terminated", "closed"]


class Aws:
    """What starts sessions, and answers when it is told to."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked, self.answers = asyncio.Event(), asyncio.Event()
        self.terminated: list[str] = []
        self.made = Commands(cast(Clients, self), cast(Tasks, self), "cluster")

    async def call(self, service: str, action: str, **given: Any) -> dict[str, Any]:
        if action == "terminate_session":
            self.terminated.append(given["SessionId"])
            return {}
        self.asked.set()
        await self.answers.wait()
        return {"session": {"sessionId": "one", "streamUrl": self.url, "tokenValue": TOKEN}}

    def start(self) -> asyncio.Task[Command]:
        agent = {"name": "ExecuteCommandAgent", "lastStatus": "RUNNING"}
        main = {"name": "main", "lastStatus": "RUNNING", "managedAgents": [agent]}
        return asyncio.create_task(
            self.made.start(
                "arn", "main", ["ls"], stdin=False, tty=False, known={"containers": [main]}
            )
        )


async def _cancelled(starting: asyncio.Task[Command]) -> None:
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


async def test_a_session_whose_caller_is_gone_is_terminated() -> None:
    before = asyncio.all_tasks()
    # Nobody joins it.
    aws = Aws("ws://127.0.0.1:9/")
    starting = aws.start()
    await aws.asked.wait()
    await _cancelled(starting)
    aws.answers.set()
    await aws.made.close()
    assert aws.terminated == ["one"]
    assert asyncio.all_tasks() == before
    with pytest.raises(Unavailable, match="closed"):
        await aws.start()


async def test_a_session_whose_caller_goes_while_it_is_joined() -> None:
    joins = asyncio.Event()

    async def script(agent: Agent) -> None:
        joins.set()
        await agent.ready()

    async with serving(script) as url:
        aws = Aws(url)
        aws.answers.set()
        starting = aws.start()
        await joins.wait()
        await _cancelled(starting)
        await aws.made.close()
    assert aws.terminated == ["one"]


async def test_a_close_waits_for_what_is_on_its_way() -> None:
    aws = Aws("ws://127.0.0.1:9/")
    starting = aws.start()
    await aws.asked.wait()
    closing = asyncio.create_task(aws.made.close())
    await asyncio.sleep(0)
    assert not closing.done()
    aws.answers.set()
    await closing
    assert aws.terminated == ["one"]
    with pytest.raises(Unavailable, match="closed"):
        await starting


async def test_nothing_is_left_behind() -> None:
    async def script(agent: Agent) -> None:
        await agent.ready()

    before = asyncio.all_tasks()
    async with joined(script) as one:
        await one.write(b"x")
        await one.close()
        assert one._http.closed
    assert asyncio.all_tasks() == before
