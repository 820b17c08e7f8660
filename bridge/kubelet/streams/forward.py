"""Port-forward, over SPDY (also tunnelled through a WebSocket) or over channels.

Over SPDY each connection is two streams of the same request id, one for its bytes and one for why
it failed; they come in either order. Over channels the connections are those of the request's ports
and stand from the beginning; none can end before the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from aiohttp import web

from bridge.kubelet.streams import FRAME, Forwarded
from bridge.kubelet.streams import websocket as wire
from bridge.kubelet.streams.inbox import Gate, Inbox
from bridge.kubelet.streams.link import Link, WebSocketLink
from bridge.kubelet.streams.session import Session, Stream

_GONE = "the other end has gone"
_LONGEST_ID = 64
"""Characters of a request id. client-go counts from 0."""


def parse_port(text: str) -> int | None:
    """A port from 1 to 65535, in decimal digits; None: it is not one."""
    if not (text.isascii() and text.isdigit() and len(text) <= 8):
        return None
    return int(text) if 1 <= int(text) <= 65535 else None


class _Forwarding:
    """The connections that nobody has taken yet."""

    def __init__(self, response: web.StreamResponse, link: Link) -> None:
        self.response = response
        self._link = link
        self._new: asyncio.Queue[Forwarded | None] = asyncio.Queue()

    async def connections(self) -> AsyncIterator[Forwarded]:
        """As `Forwarding.connections`."""
        while (connection := await self._new.get()) is not None:
            yield connection
        # Whoever asks again is answered again.
        self._new.put_nowait(None)

    def _lost(self) -> None:
        self._new.put_nowait(None)


@dataclass(slots=True)
class _Pair:
    timer: asyncio.TimerHandle
    data: Stream | None = None
    error: Stream | None = None


class SpdyForwarding(_Forwarding):
    """Over SPDY. A connection's second stream must come within `creation` seconds."""

    def __init__(self, response: web.StreamResponse, link: Link, creation: float) -> None:
        super().__init__(response, link)
        self._creation = creation
        self._loop = asyncio.get_running_loop()
        self._pairs: dict[str, _Pair] = {}
        self._session = Session(link, self._accept, self._lost)
        self.gate = self._session.gate

    def open(self) -> None:
        """Begins to read."""
        self._session.start()

    async def close(self) -> None:
        """As `Forwarding.close`."""
        await self._session.close()

    def _accept(self, stream: Stream) -> bool:
        kind, port = stream.header("streamType"), parse_port(stream.header("port"))
        number = _request_id(stream, kind)
        if kind not in {"data", "error"} or port is None or len(number) > _LONGEST_ID:
            return False
        pair = self._pairs.get(number)
        if pair is None:
            timer = self._loop.call_later(self._creation, self._expired, number)
            pair = self._pairs[number] = _Pair(timer)
        if getattr(pair, kind) is not None:
            return False
        if kind == "data":
            pair.data = stream
        else:
            pair.error = stream
            stream.ignore_input()
        if pair.data is not None and pair.error is not None:
            del self._pairs[number]
            pair.timer.cancel()
            port = parse_port(pair.data.header("port")) or port
            self._new.put_nowait(_SpdyForwarded(port, pair.data, pair.error))
        return True

    def _expired(self, number: str) -> None:
        pair = self._pairs.pop(number)
        if pair.error is not None:
            pair.error.end(b"timed out waiting for streams")
        if pair.data is not None:
            pair.data.reset()

    def _lost(self) -> None:
        for pair in self._pairs.values():
            pair.timer.cancel()
        self._pairs.clear()
        super()._lost()


class _SpdyForwarded:
    def __init__(self, port: int, data: Stream, error: Stream) -> None:
        self.port = port
        self._data = data
        self._error = error

    async def read(self) -> bytes:
        """As `Forwarded.read`."""
        return await self._data.inbox.read()

    async def write(self, data: bytes) -> None:
        """As `Forwarded.write`."""
        await self._data.write(data)

    async def finish(self, error: str = "") -> None:
        """As `Forwarded.finish`."""
        self._error.end(error.encode()[:FRAME])
        if error:
            self._data.reset()
        else:
            self._data.end()
            self._data.ignore_input()


class ChannelForwarding(_Forwarding):
    """Over WebSocket channels: two for each port. It ends with the last of its connections."""

    def __init__(
        self,
        response: web.StreamResponse,
        link: WebSocketLink,
        protocol: wire.Protocol,
        ports: Sequence[int],
    ) -> None:
        super().__init__(response, link)
        self._protocol = protocol
        self.gate = Gate(link)
        self._connections = [
            _ChannelForwarded(self, port, 2 * number, self.gate.inbox(number))
            for number, port in enumerate(ports)
        ]
        self._open = len(ports)

    def open(self) -> None:
        """Begins to read, and tells the client which channels are which port."""
        self._link.start(self._received, self._lost)
        for connection in self._connections:
            for channel in (connection.channel, connection.channel + 1):
                self.send(channel, connection.port.to_bytes(2, "little"))
            self._new.put_nowait(connection)

    async def close(self) -> None:
        """As `Forwarding.close`."""
        for connection in self._connections:
            connection.inbox.drop()
        await self._link.close()

    async def writable(self) -> None:
        """As `Link.writable`."""
        await self._link.writable()

    def send(self, channel: int, content: bytes) -> None:
        """Sends a message on a channel."""
        self._link.send(wire.encode(self._protocol, channel, content))

    async def one_less(self) -> None:
        """One connection has ended."""
        self._open -= 1
        if not self._open:
            await self.close()

    def _received(self, message: bytes) -> None:
        piece = wire.decode(self._protocol, 2 * len(self._connections), message)
        if piece is not None and piece.channel % 2 == 0:
            self._connections[piece.channel // 2].inbox.put(piece.content)

    def _lost(self) -> None:
        for connection in self._connections:
            connection.inbox.end(_GONE)
        super()._lost()


class _ChannelForwarded:
    def __init__(self, whole: ChannelForwarding, port: int, channel: int, inbox: Inbox) -> None:
        self.port = port
        self.channel = channel
        self.inbox = inbox
        self._whole = whole
        self._finished = False

    async def read(self) -> bytes:
        """As `Forwarded.read`."""
        return await self.inbox.read()

    async def write(self, data: bytes) -> None:
        """As `Forwarded.write`."""
        for start in range(0, len(data), FRAME):
            await self._whole.writable()
            self._whole.send(self.channel, data[start : start + FRAME])

    async def finish(self, error: str = "") -> None:
        """As `Forwarded.finish`."""
        if self._finished:
            return
        self._finished = True
        if error:
            self._whole.send(self.channel + 1, error.encode()[:FRAME])
        self.inbox.drop()
        await self._whole.one_less()


def _request_id(stream: Stream, kind: str) -> str:
    given = stream.header("requestID")
    if given:
        return given
    # Clients that send none open the error stream and then, with the next odd id, the data stream
    # (the kubelet's own guess, pkg/cri/streaming/portforward).
    return str(stream.id if kind == "error" else stream.id - 2)
