"""The connection below the streams: a hijacked socket, or a WebSocket's messages.

Above it nothing waits for a socket: what comes is handed over, what goes is queued, and both stop
in time. `hold` stops reading the socket, so that TCP tells the other end to wait; `writable` waits
while the other end takes nothing. Whatever comes on one connection comes in order: while it is
held, nothing passes what waits in front of it, be it a resize, a ping or the end of the connection.
That is the protocols' own limit (spdystream honours no WINDOW_UPDATE); the kubelet shares it.
"""

from __future__ import annotations

import abc
import asyncio
import fcntl
import logging
import struct
import termios
from collections.abc import Callable

from aiohttp import WSCloseCode, web

from bridge.kubelet.streams import Malformed

LINGER = 5.0
"""Seconds for the other end to close once it has everything. Closing first, with bytes of its own
still on their way to us, makes TCP throw away what it has not read yet."""
_FLOOD = 1024 * 1024
"""Bytes that may wait to be sent. Data never reaches this (it waits for `writable`): only answers
do, to somebody who asks without end and reads nothing."""
_EARLY = 64 * 1024
"""Bytes that may come before anybody is there to receive them."""
_LOOK = 0.1
"""Seconds between two looks at whether the other end has taken the last bytes."""

_log = logging.getLogger(__name__)


class Link(abc.ABC):
    """One upgraded connection. `idle` seconds without a byte either way end it."""

    def __init__(self, idle: float) -> None:
        self.gone = asyncio.Event()
        """Set once the connection is closed, by whomever."""
        self._receive: Callable[[bytes], None] | None = None
        self._lost: Callable[[], None] = _nothing
        self._writable = asyncio.Event()
        self._writable.set()
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer = self._loop.call_later(idle, self._look)

    @abc.abstractmethod
    def start(self, receive: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        """Hands over what comes to `receive`, which may raise Malformed; `lost` is called once."""

    @abc.abstractmethod
    def send(self, message: bytes) -> None:
        """Queues a message (its borders mean nothing on a socket). Dropped once gone."""

    @abc.abstractmethod
    def hold(self) -> None:
        """Stops reading."""

    @abc.abstractmethod
    def go_on(self) -> None:
        """Reads on."""

    @abc.abstractmethod
    def abort(self) -> None:
        """Closes at once; what waits to be sent is lost."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Closes once the other end has taken everything. What still comes is handed over."""

    async def writable(self) -> None:
        """Waits while the other end takes nothing. ConnectionResetError: it has gone."""
        # Whoever writes without end must let the loop learn that the connection is lost: what is
        # written to a lost one vanishes without a wait.
        await asyncio.sleep(0)
        while not self._writable.is_set() and not self.gone.is_set():
            await self._writable.wait()
        if self.gone.is_set():
            raise ConnectionResetError("the other end has gone")

    def _over(self) -> None:
        if not self.gone.is_set():
            self.gone.set()
            self._writable.set()
            self._timer.cancel()
            self._lost()

    def _touch(self) -> None:
        self._last = self._loop.time()

    def _look(self) -> None:
        left = self._last + self._idle - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        _log.info("closed a connection: nothing came or went for %g seconds", self._idle)
        self.abort()

    async def _taken(self, transport: asyncio.BaseTransport) -> None:
        """Waits until the other end's kernel has everything, or the connection is gone."""
        while not self.gone.is_set() and _unsent(transport):
            await self._gone_within(_LOOK)

    async def _gone_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.gone.wait()
        except TimeoutError:
            return


class SocketLink(Link, asyncio.Protocol):
    """The socket below an HTTP request, taken over from aiohttp. Bytes come as they arrive."""

    def __init__(self, transport: asyncio.Transport, idle: float) -> None:
        super().__init__(idle)
        self._transport = transport
        # aiohttp must still learn when the connection is lost: it counts them.
        self._before = transport.get_protocol()
        self._early = bytearray()
        transport.set_protocol(self)

    def start(self, receive: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        """As `Link.start`."""
        self._receive, self._lost = receive, lost
        early, self._early = bytes(self._early), bytearray()
        if early:
            self.data_received(early)
        if self.gone.is_set():
            lost()

    def send(self, message: bytes) -> None:
        """As `Link.send`."""
        if self.gone.is_set() or self._transport.is_closing():
            return
        self._touch()
        self._transport.write(message)
        if self._transport.get_write_buffer_size() > _FLOOD:
            _log.info("closed a connection: it asks and does not read the answers")
            self.abort()

    def hold(self) -> None:
        """As `Link.hold`."""
        if not self.gone.is_set():
            self._transport.pause_reading()

    def go_on(self) -> None:
        """As `Link.go_on`."""
        # Over TLS a lost connection's transport is no more to be spoken to.
        if not self.gone.is_set():
            self._transport.resume_reading()

    def abort(self) -> None:
        """As `Link.abort`."""
        self._transport.abort()

    async def close(self) -> None:
        """As `Link.close`."""
        self.go_on()
        await self._taken(self._transport)
        await self._gone_within(LINGER)
        self._transport.close()
        # Over TLS the other end is asked to agree, and may not care to.
        await self._gone_within(LINGER)
        self.abort()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes have come."""
        self._touch()
        if self._receive is None:
            self._early += data
            if len(self._early) > _EARLY:
                self.abort()
            return
        try:
            self._receive(data)
        except Malformed as error:
            _log.info("closed a connection: %s", error)
            self.abort()

    def pause_writing(self) -> None:
        """asyncio: the buffer is full."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """asyncio: the buffer has room."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is closed."""
        self._over()
        self._before.connection_lost(exc)


class WebSocketLink(Link):
    """A WebSocket that aiohttp has accepted; each message is handed over whole.

    What goes out is sent by one task: aiohttp's own `drain` loses its way when one of several
    tasks that wait in it is cancelled.
    """

    HIGH = 64 * 1024
    """Bytes that wait here before `writable` waits."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.BaseTransport | None,
        idle: float,
        *,
        text: bool = False,
    ) -> None:
        super().__init__(idle)
        self._socket = socket
        self._transport = transport
        self._text = text
        self._reading = asyncio.Event()
        self._reading.set()
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting = 0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, receive: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        """As `Link.start`."""
        self._receive, self._lost = receive, lost
        writer = asyncio.create_task(self._write(), name="websocket-writer")
        reader = asyncio.create_task(self._read(receive, writer), name="websocket-reader")
        self._tasks = [reader, writer]

    def send(self, message: bytes) -> None:
        """As `Link.send`."""
        if self.gone.is_set():
            return
        self._touch()
        self._queue.put_nowait(message)
        self._waiting += len(message)
        if self._waiting > _FLOOD:
            _log.info("closed a connection: it asks and does not read the answers")
            self.abort()
        elif self._waiting > self.HIGH:
            self._writable.clear()

    def hold(self) -> None:
        """As `Link.hold`."""
        self._reading.clear()

    def go_on(self) -> None:
        """As `Link.go_on`."""
        self._reading.set()

    def abort(self) -> None:
        """As `Link.abort`."""
        self._reading.set()
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()

    async def close(self) -> None:
        """As `Link.close`."""
        self.go_on()
        self._queue.put_nowait(None)
        await asyncio.wait(self._tasks[1:])
        if self._transport is not None:
            await self._taken(self._transport)
        await self._socket.close()
        await asyncio.wait(self._tasks)

    async def _read(self, receive: Callable[[bytes], None], writer: asyncio.Task[None]) -> None:
        try:
            while True:
                await self._reading.wait()
                message = await self._socket.receive()
                if message.type not in {web.WSMsgType.BINARY, web.WSMsgType.TEXT}:
                    return
                self._touch()
                data = message.data
                receive(data.encode() if isinstance(data, str) else data)
        except Malformed as error:
            _log.info("closed a connection: %s", error)
            await self._socket.close(code=WSCloseCode.PROTOCOL_ERROR, message=b"malformed")
        except ConnectionError:
            return
        finally:
            writer.cancel()
            self._over()

    async def _write(self) -> None:
        try:
            while (message := await self._queue.get()) is not None:
                if self._text:
                    await self._socket.send_str(message.decode("ascii"))
                else:
                    await self._socket.send_bytes(message)
                self._waiting -= len(message)
                if self._waiting <= self.HIGH // 2:
                    self._writable.set()
        except ConnectionError:
            self.abort()


def _unsent(transport: asyncio.BaseTransport) -> int:
    """Bytes that the other end's kernel has not acknowledged (Linux: tcp(7), SIOCOUTQ)."""
    socket = transport.get_extra_info("socket")
    if transport.is_closing() or socket is None:
        return 0
    try:
        return int(struct.unpack("i", fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])
    except OSError:
        return 0


def _nothing() -> None:
    """Stands for a callback until there is one."""
