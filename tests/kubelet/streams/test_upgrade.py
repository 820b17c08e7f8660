"""Requests and the streams behind them: who is let in, what is bounded, what is noticed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from streams_server import PATIENCE, SUCCESS, Server, pattern, serve

from bridge.kubelet.streams.inbox import WINDOW
from bridge.kubelet.streams.link import _FLOOD
from bridge.kubelet.streams.session import MAX_STREAMS
from bridge.kubelet.streams.spdy import (
    REFUSED_STREAM,
    Data,
    Frame,
    FrameReader,
    FrameWriter,
    GoAway,
    Ping,
    RstStream,
    SynReply,
    SynStream,
)

V4 = "v4.channel.k8s.io"
FORWARD = "portforward.k8s.io"
SPDY = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serve(None) as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_goes_wrong_unseen(caplog: pytest.LogCaptureFixture) -> Any:
    """Tasks that nobody looks after, and failing handlers, are told in logs alone."""
    yield
    wrong = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.levelno >= logging.WARNING and record.name in {"asyncio", "aiohttp.server"}
    ]
    allowed = caplog.handler.__dict__.get("allowed", "")
    assert [text for text in wrong if text != allowed] == []


class Raw:
    """A SPDY client that can do wrong."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.frames = FrameReader()
        self.encode = FrameWriter().encode

    @classmethod
    async def connect(cls, url: str, path: str, protocol: str, method: str = "POST") -> Raw:
        host, port = url.removeprefix("http://").split(":")
        # Little that the kernel holds for us: what stops is seen soon.
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, (host, int(port)))
        raw = cls(*await asyncio.open_connection(sock=plain))
        head = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: Upgrade"]
        head += ["Upgrade: SPDY/3.1", f"X-Stream-Protocol-Version: {protocol}", "", ""]
        raw.writer.write("\r\n".join(head).encode())
        answer = await raw.reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), answer
        assert f"X-Stream-Protocol-Version: {protocol}\r\n".encode() in answer
        assert b"chunked" not in answer.lower()
        return raw

    def send(self, *frames: Frame) -> None:
        self.writer.write(b"".join(map(self.encode, frames)))

    async def next(self) -> Frame | None:
        """The next frame; None: the connection is closed."""
        async with asyncio.timeout(PATIENCE):
            while (frame := self.frames.next_frame()) is None:
                try:
                    received = await self.reader.read(65536)
                except ConnectionError:
                    received = b""
                if not received:
                    return None
                self.frames.feed(received)
        return frame

    async def rest(self) -> list[Frame]:
        got = []
        while (frame := await self.next()) is not None:
            got.append(frame)
            if isinstance(frame, GoAway):
                await self.close()
                break
        return got

    async def close(self) -> None:
        self.writer.transport.abort()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return


Connect = Callable[..., Any]


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[Connect]:
    opened: list[Raw] = []

    async def call(path: str, protocol: str = V4, method: str = "POST") -> Raw:
        opened.append(await Raw.connect(server.url, path, protocol, method))
        return opened[-1]

    yield call
    for raw in opened:
        await raw.close()


def opening(*names: str) -> list[Frame]:
    return [SynStream(2 * n + 1, {"streamtype": name}) for n, name in enumerate(names)]


async def waiting(connect: Connect) -> Raw:
    """A connection whose command runs, and waits for its end."""
    raw = await connect("/exec?command=wait&output=1")
    raw.send(*opening("error", "stdout"))
    while not isinstance(frame := await raw.next(), Data):
        assert frame is not None
    return raw


def output(frames: list[Frame], stream: int) -> bytes:
    return b"".join(f.content for f in frames if isinstance(f, Data) and f.stream == stream)


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        ({}, (400, "asks for no upgrade")),
        ({"Connection": "Upgrade", "Upgrade": "h2c"}, (400, "allowed are SPDY/3.1 and websocket")),
        (SPDY, (400, "X-Stream-Protocol-Version does not exist")),
        ({**SPDY, "X-Stream-Protocol-Version": " , "}, (400, "names no protocol")),
        ({**SPDY, "X-Stream-Protocol-Version": "v9"}, (403, 'client supports ["v9"]')),
    ],
)
@pytest.mark.parametrize("path", ["/exec?command=cat&output=1", "/forward"])
async def test_what_is_no_upgrade_is_refused(
    server: Server,
    session: aiohttp.ClientSession,
    path: str,
    headers: dict[str, str],
    refusal: tuple[int, str],
) -> None:
    status, words = refusal
    async with session.post(server.url + path, headers=headers) as answer:
        assert answer.status == status
        assert words in await answer.text()
        if status == 403:
            accepted = answer.headers.getall("X-Accepted-Stream-Protocol-Versions")
            assert accepted[0] in {V4, FORWARD}


@pytest.mark.parametrize(
    ("path", "protocols", "status"),
    [
        ("/exec?command=cat&output=1", ["v9.channel.k8s.io"], 403),
        ("/exec?command=cat&output=1", ["SPDY/3.1+portforward.k8s.io"], 403),
        ("/forward?port=80", ["v5.channel.k8s.io"], 403),
        ("/forward", [V4], 400),
        ("/forward?port=0", [V4], 400),
        ("/forward?port=80,65536", [V4], 400),
        ("/forward?port=" + ",".join(["1"] * 33), [V4], 400),
    ],
)
async def test_what_no_websocket_speaks_is_refused(
    server: Server,
    session: aiohttp.ClientSession,
    path: str,
    protocols: list[str],
    status: int,
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await session.ws_connect(server.url + path, protocols=protocols)
    assert refusal.value.status == status


async def test_an_old_websocket_is_refused(server: Server, session: aiohttp.ClientSession) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "6"}
    path = "/exec?command=cat&output=1"
    async with session.get(server.url + path, headers=headers) as answer:
        assert answer.status == 426
        assert answer.headers["Sec-WebSocket-Version"] == "13"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_spdy_by_hand(connect: Connect, method: str) -> None:
    raw = await connect("/exec?command=cat&input=1&output=1", method=method)
    raw.send(*opening("error", "stdin", "stdout"), Ping(1), Ping(2))
    raw.send(Data(3, b"abc"), Data(3, b"def", fin=True))
    got = await raw.rest()
    assert [f for f in got if isinstance(f, SynReply)] == [SynReply(n) for n in (1, 3, 5)]
    assert [f for f in got if isinstance(f, Ping)] == [Ping(1)]
    assert output(got, 5) == b"abcdef"
    assert json.loads(output(got, 1)) == SUCCESS
    assert isinstance(got[-1], GoAway)
    assert {f.stream for f in got if isinstance(f, Data) and f.fin} == {1, 3, 5} - {3}


async def test_a_stream_may_end_with_its_opening(connect: Connect) -> None:
    raw = await connect("/exec?command=cat&input=1&output=1")
    raw.send(*opening("error"), SynStream(3, {"streamtype": "stdin"}, fin=True))
    raw.send(SynStream(5, {"streamtype": "stdout"}))
    assert json.loads(output(await raw.rest(), 1)) == SUCCESS


async def test_streams_that_nobody_knows_are_reset(connect: Connect) -> None:
    raw = await connect("/exec?command=both&command=x&output=1")
    raw.send(*opening("error", "error", "other", "stdout"))
    got = await raw.rest()
    assert {f.stream for f in got if isinstance(f, RstStream)} == {3, 5}
    assert output(got, 7) == b"x"


async def test_a_client_that_opens_too_few_streams_is_left(
    connect: Connect, server: Server
) -> None:
    server.creation = 0.05
    raw = await connect("/exec?command=cat&input=1&output=1")
    raw.send(*opening("error", "stdout"))
    assert [type(frame) for frame in await raw.rest()] == [SynReply, SynReply]
    await server.until("status 101")


async def test_an_idle_connection_is_closed(connect: Connect, server: Server) -> None:
    server.idle = 0.05
    raw = await connect("/exec?command=wait&output=1")
    raw.send(*opening("error", "stdout"))
    assert output(await raw.rest(), 3) == b"waiting"
    await server.until("gone")


@pytest.mark.parametrize(
    "wrong",
    [
        b"\xff" * 16,
        bytes(8),
        b"\x80\x03\x00\x01\x00\x00\x00\x0a" + bytes(10),
        b"\x80\x03\x00\x0a\x00\x00\x00\x00",
    ],
)
async def test_malformed_frames_close_the_connection(
    connect: Connect, server: Server, wrong: bytes
) -> None:
    raw = await waiting(connect)
    raw.writer.write(wrong)
    await raw.rest()
    await server.until("gone")
    await server.until("ended")


async def test_ids_must_rise(connect: Connect, server: Server) -> None:
    raw = await waiting(connect)
    raw.send(SynStream(3, {"streamtype": "stdin"}))
    await raw.rest()
    await server.until("gone")


async def test_a_goaway_ends_it(connect: Connect, server: Server) -> None:
    raw = await waiting(connect)
    raw.send(GoAway(0))
    await raw.rest()
    await server.until("gone")


@pytest.mark.slow
async def test_who_asks_without_end_and_reads_nothing_is_cut_off(
    connect: Connect, server: Server
) -> None:
    raw = await waiting(connect)
    raw.reader._transport.pause_reading()
    pings = raw.encode(Ping(1)) * 10_000
    sent = 0
    while "gone" not in server.seen and sent < 20 * _FLOOD:
        raw.writer.write(pings)
        sent += len(pings)
        try:
            async with asyncio.timeout(PATIENCE):
                await raw.writer.drain()
        except ConnectionError:
            break
    await server.until("gone")


@pytest.mark.slow
async def test_a_command_that_reads_nothing_stops_the_client(
    connect: Connect, server: Server
) -> None:
    raw = await connect("/exec?command=stalled&input=1&output=1")
    raw.send(*opening("error", "stdin", "stdout"))
    while not isinstance(frame := await raw.next(), Data):
        assert frame is not None
    assert frame.content == b"waiting"
    content = pattern(30_000)
    blocked = asyncio.Event()
    sent = 0

    async def write() -> None:
        nonlocal sent
        for _ in range(2000):
            raw.send(Data(3, content))
            sent += len(content)
            if raw.writer.transport.get_write_buffer_size():
                blocked.set()
            await raw.writer.drain()
        raw.send(Data(3, b"", fin=True))

    writing = asyncio.create_task(write())
    gate = server.remotes[0].gate
    async with asyncio.timeout(PATIENCE):
        while gate.waiting <= WINDOW:  # noqa: ASYNC110 (nothing else tells)
            await asyncio.sleep(0)
        blocked.clear()
        await blocked.wait()
    # What the kernel holds is not ours.
    assert WINDOW < gate.waiting <= WINDOW + 256 * 1024
    assert sent < 2000 * len(content)
    server.stall.set()
    await writing
    got = await raw.rest()
    assert output(got, 5).decode() == hashlib.sha256(content * 2000).hexdigest()


async def test_a_handler_that_fails_closes_the_connection(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.__dict__["allowed"] = "Error handling request from 127.0.0.1"
    raw = await connect("/exec?command=fails&output=1")
    raw.send(*opening("error", "stdout"))
    assert output(await raw.rest(), 3) == b""


async def test_forwarded_streams_are_paired_in_any_order(connect: Connect, server: Server) -> None:
    raw = await connect("/forward", FORWARD)

    def half(number: int, kind: str, request: str, port: str = "80") -> SynStream:
        return SynStream(number, {"streamtype": kind, "port": port, "requestid": request})

    raw.send(half(1, "data", "a"), half(3, "error", "b"), half(5, "data", "b"))
    raw.send(half(7, "error", "a"), half(9, "error", "b2", port="0"), half(11, "odd", "c"))
    raw.send(SynStream(13, {"streamtype": "error", "port": "81"}))
    raw.send(SynStream(15, {"streamtype": "data", "port": "81"}))
    for stream in (1, 5, 15):
        raw.send(Data(stream, f"for {stream}".encode(), fin=True))
    ended: set[int] = set()
    got: list[Frame] = []
    while ended != {1, 3, 5, 7, 13, 15}:
        frame = await raw.next()
        assert frame is not None
        got.append(frame)
        if isinstance(frame, Data) and frame.fin:
            ended.add(frame.stream)
    assert [output(got, n) for n in (1, 5, 15)] == [b"for 1", b"for 5", b"for 15"]
    assert {f.stream for f in got if isinstance(f, RstStream)} == {9, 11}
    assert "port 81" in server.seen
    raw.send(GoAway(0))
    await raw.rest()
    await server.until("ended")


async def test_half_a_forwarded_connection_is_given_up(connect: Connect, server: Server) -> None:
    server.creation = 0.05
    raw = await connect("/forward", FORWARD)
    raw.send(SynStream(1, {"streamtype": "error", "port": "80", "requestid": "0"}))
    raw.send(SynStream(3, {"streamtype": "data", "port": "80", "requestid": "1"}))
    got = [await raw.next() for _ in range(4)]
    assert Data(1, b"timed out waiting for streams", fin=True) in got
    assert any(isinstance(frame, RstStream) and frame.stream == 3 for frame in got)


@pytest.mark.slow
async def test_more_streams_than_allowed_are_refused_one_by_one(connect: Connect) -> None:
    raw = await connect("/forward", FORWARD)
    for number in range(MAX_STREAMS + 1):
        names = {"streamtype": "data", "port": "80", "requestid": str(number)}
        raw.send(SynStream(2 * number + 1, names))
    got = [await raw.next() for _ in range(MAX_STREAMS + 1)]
    assert got[-1] == RstStream(2 * MAX_STREAMS + 1, REFUSED_STREAM)
    assert got[-2] == SynReply(2 * MAX_STREAMS - 1)


async def test_a_reset_connection_is_told_to_who_serves_it(
    connect: Connect, server: Server
) -> None:
    raw = await connect("/forward", FORWARD)
    for number, kind in ((1, "error"), (3, "data")):
        raw.send(SynStream(number, {"streamtype": kind, "port": "80", "requestid": "0"}))
    raw.send(RstStream(3, 5))
    await server.until("cut off")


@pytest.mark.parametrize(
    "protocol",
    [None, "channel.k8s.io", "base64.channel.k8s.io", V4, "v4.base64.channel.k8s.io"],
)
async def test_channels_by_hand(
    server: Server, session: aiohttp.ClientSession, protocol: str | None
) -> None:
    url = server.url + "/exec?command=first&input=1&output=1"
    offered = [protocol] if protocol else []
    async with session.ws_connect(url, protocols=offered) as ws:
        assert ws.protocol == protocol
        in_base64 = "base64" in (protocol or "")
        if in_base64:
            await ws.send_str("0" + base64.b64encode(b"xyz").decode())
        else:
            await ws.send_bytes(b"\0xyz")
        got = [message.data async for message in ws]
    if in_base64:
        assert all(isinstance(data, str) for data in got)
        got = [bytes([ord(d[0]) - 48]) + base64.b64decode(d[1:]) for d in got]
    expected = [b"\1", b"\1x"]
    if protocol and protocol.startswith("v4"):
        expected.append(b"\3" + json.dumps(SUCCESS, separators=(",", ":")).encode())
    assert got == expected
    assert ws.close_code == 1000


async def test_a_failure_before_version_4_is_its_text(
    server: Server, session: aiohttp.ClientSession
) -> None:
    url = server.url + "/exec?command=exit&command=3&output=1"
    async with session.ws_connect(url) as ws:
        got = [message.data async for message in ws]
    assert got[-1] == b"\3command terminated with non-zero exit code: 3"


async def test_a_malformed_message_closes_the_websocket(
    server: Server, session: aiohttp.ClientSession
) -> None:
    url = server.url + "/exec?command=wait&output=1"
    async with session.ws_connect(url, protocols=["base64.channel.k8s.io"]) as ws:
        await ws.send_str("0no base64")
        async with asyncio.timeout(PATIENCE):
            async for _ in ws:
                pass
        assert ws.close_code == 1002
    await server.until("gone")


async def test_a_websocket_whose_command_reads_nothing_waits(
    server: Server, session: aiohttp.ClientSession
) -> None:
    url = server.url + "/exec?command=stalled&input=1&output=1"
    content = pattern(30_000)
    async with session.ws_connect(url, protocols=["v5.channel.k8s.io"]) as ws:

        async def write() -> None:
            for _ in range(1000):
                await ws.send_bytes(b"\0" + content)
            await ws.send_bytes(b"\xff\0")

        writing = asyncio.create_task(write())
        assert (await ws.receive_bytes(), await ws.receive_bytes())[1] == b"\1waiting"
        server.stall.set()
        await writing
        got = [message.data async for message in ws]
    assert got[0] == b"\1" + hashlib.sha256(content * 1000).hexdigest().encode()


async def test_a_websocket_left_while_it_is_held_leaves_nothing_behind(
    server: Server, session: aiohttp.ClientSession
) -> None:
    url = server.url + "/exec?command=stalled&input=1&output=1"
    async with session.ws_connect(url, protocols=["v5.channel.k8s.io"]) as ws:
        for _ in range(20):
            await ws.send_bytes(b"\0" + bytes(30_000))
        await ws.receive_bytes()
        ws._response.connection.transport.abort()
    server.stall.set()
    await server.until("ended")


async def test_ports_over_channels(server: Server, session: aiohttp.ClientSession) -> None:
    async with session.ws_connect(server.url + "/forward?port=80,443", protocols=[V4]) as ws:
        first = [await ws.receive_bytes() for _ in range(4)]
        assert first == [b"\0\x50\0", b"\1\x50\0", b"\2\xbb\1", b"\3\xbb\1"]
        await ws.send_bytes(b"\2hello")
        assert await ws.receive_bytes() == b"\2hello"
    await server.until("ended")


async def test_an_error_over_channels_ends_it(
    server: Server, session: aiohttp.ClientSession
) -> None:
    async with session.ws_connect(server.url + "/forward?port=9", protocols=[V4]) as ws:
        got = [message.data async for message in ws]
    assert got[-1] == b"\1error forwarding port 9 to pod p, uid u: refused"
