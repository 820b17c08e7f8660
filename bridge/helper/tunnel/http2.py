"""HTTP/2's client on one connection, with real flow control for each stream.

What has come for a stream and was not read is at most a window of it; the window opens as its
reader reads. The connection's own window opens at once, so that a reader that stops holds up its
own stream and no other. What is written waits for the peer's windows and for the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from bridge.errors import Unavailable

WINDOW = 256 * 1024
"""Bytes of a stream that may have come and not been read."""
PIECE = 32 * 1024
"""Bytes that one read gives, at most."""
_CONNECTION_WINDOW = 16 * 1024 * 1024
_EARLY = 64 * 1024
"""Bytes of a peer that speaks before it was listened to."""
_LOOK = 2.5
"""Seconds between looks at whether the peer still lives."""
_QUIET = 10.0
"""Seconds without a word after which the peer is asked for one."""
_DEAD = 25.0
"""Seconds without a word after which it is taken for dead."""
_LOST = "the tunnel broke"


class Stream:
    """One request and its answer. Errors: Unavailable."""

    def __init__(self, http: Http2, number: int, changed: asyncio.Event, *, sent: bool) -> None:
        self._http = http
        self._number = number
        self._changed = changed
        """Set whenever something about it is new; several streams may share one."""
        self._buffer = bytearray()
        self._owed = 0
        self.sent = sent
        """All of the request was written."""
        self._over = False
        self._error = ""
        self.status = 0
        """Of the answer; 0: there is none yet."""

    @property
    def has_data(self) -> bool:
        """Whether `take` has something to give."""
        return bool(self._buffer)

    @property
    def was_cut(self) -> bool:
        """Whether the tunnel broke while more might have come."""
        return self._error == _LOST

    @property
    def at_end(self) -> bool:
        """Whether all has come, and been taken. Unavailable: it broke before that."""
        if self._buffer:
            return False
        if self._error:
            raise Unavailable(self._error)
        return self._over

    def take(self, most: int = PIECE) -> bytes:
        """What has come, at most so much of it."""
        data = bytes(self._buffer[:most])
        del self._buffer[:most]
        self._owe(len(data))
        return data

    def give_back(self, data: bytes) -> None:
        """What was read and is somebody else's comes again."""
        self._buffer[:0] = data

    async def read(self) -> bytes:
        """The next bytes; none at the end."""
        while not self._buffer:
            if self.at_end:
                return b""
            await self._news()
        return self.take()

    async def answered(self) -> int:
        """The status, once the answer begins."""
        while not self.status:
            if self._error or self._over:
                raise Unavailable(self._error or _LOST)
            await self._news()
        return self.status

    async def write(self, data: bytes) -> bool:
        """Returns when all is on its way; False where the peer wants no more."""
        view = memoryview(data)
        while view:
            if self._error == _LOST:
                raise Unavailable(self._error)
            if self.sent or self._over or self._error:
                return False
            room = self._http.room(self._number)
            if not room:
                await self._news()
                continue
            self._http.send(self._number, bytes(view[:room]))
            view = view[room:]
        return True

    def end(self) -> None:
        """No more is written."""
        if not self.sent and not self._over and not self._error:
            self.sent = True
            self._http.finish(self._number)

    def abandon(self) -> None:
        """Lets go of it, whatever it still has to say. May be repeated."""
        if not self._error:
            self._error = "it was abandoned"
            self._http.reset(self._number)
        self._buffer.clear()
        self._changed.set()

    async def _news(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _owe(self, count: int) -> None:
        self._owed += count
        if self._owed >= WINDOW // 4 and not self._over and not self._error:
            self._http.open_window(self._number, self._owed)
            self._owed = 0

    def on_status(self, status: int) -> None:
        """The answer's head has come."""
        self.status = self.status or status
        self._changed.set()

    def on_data(self, data: bytes, counted: int) -> None:
        """Something has come; `counted` bytes with what only fills."""
        if not self._error:
            self._buffer += data
        self._owe(counted - len(data))
        self._changed.set()

    def on_end(self) -> None:
        """All has come."""
        self._over = True
        self._changed.set()

    def on_error(self, words: str) -> None:
        """It broke; what has come before can still be read."""
        self._error = self._error or words
        self._changed.set()

    def on_room(self) -> None:
        """More may be written."""
        self._changed.set()


class Http2(asyncio.Protocol):
    """One connection, to the peer that it was accepted from."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config)
        self._transport: asyncio.Transport | None = None
        self._early = bytearray()
        self._streams: dict[int, Stream] = {}
        self._paused = False
        self._owed = 0
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        self._asked = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greets the peer. To be called by hand after a handshake on an open connection."""
        self._transport = cast(asyncio.Transport, transport)
        kind = h2.settings.SettingCodes
        wanted = {kind.ENABLE_PUSH: 0, kind.INITIAL_WINDOW_SIZE: WINDOW}
        self._h2.local_settings = h2.settings.Settings(client=True, initial_values=wanted)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_CONNECTION_WINDOW)
        self._flush()
        self._look()
        if self._early:
            self.data_received(bytes(self._early))
            self._early.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells all streams."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        for one in list(self._streams.values()):
            one.on_error(_LOST)
        self._streams.clear()

    def pause_writing(self) -> None:
        """The socket is full. A peer that has us answer and does not read is not read either."""
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The socket has room again."""
        self._paused = False
        if self._transport is not None:
            self._transport.resume_reading()
        self._wake(self._streams.values())

    def data_received(self, data: bytes) -> None:
        """Takes what has come. A peer that breaks the protocol loses its connection."""
        if self._transport is None:
            self._early += data[: _EARLY - len(self._early)]
            return
        self._heard_at, self._asked = asyncio.get_running_loop().time(), False
        try:
            for event in self._h2.receive_data(data):
                self._take(event)
            self._flush()
        except (h2.exceptions.ProtocolError, ValueError, KeyError):
            # h2 lets some of what cannot be decoded through as errors of Python's own.
            self.abort()

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                self._took(event)
            case h2.events.ResponseReceived():
                if stream := self._streams.get(event.stream_id or 0):
                    stream.on_status(_status(event.headers or ()))
            case h2.events.StreamEnded():
                if stream := self._streams.get(event.stream_id or 0):
                    if not stream.sent:
                        # It has answered, and does not want the rest.
                        self.reset(event.stream_id or 0)
                    self._streams.pop(event.stream_id or 0, None)
                    stream.on_end()
            case h2.events.StreamReset():
                if stream := self._streams.pop(event.stream_id or 0, None):
                    if event.error_code == h2.errors.ErrorCodes.NO_ERROR and stream.status:
                        stream.on_end()
                    else:
                        stream.on_error("the helper broke it off")
            case h2.events.WindowUpdated() if event.stream_id:
                self._wake(filter(None, [self._streams.get(event.stream_id)]))
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._wake(self._streams.values())
            case h2.events.ConnectionTerminated():
                # Nothing more can be asked or heard on it, as h2 has it.
                self.abort()

    def _took(self, event: h2.events.DataReceived) -> None:
        counted = event.flow_controlled_length or 0
        self._owed += counted
        if self._owed >= _CONNECTION_WINDOW // 4:
            self._h2.increment_flow_control_window(self._owed)
            self._owed = 0
        if stream := self._streams.get(event.stream_id or 0):
            stream.on_data(event.data or b"", counted)

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        streams: bool = False,
        changed: asyncio.Event | None = None,
    ) -> Stream:
        """Begins a request; with `streams` its body is written by and by. Unavailable."""
        if self._transport is None:
            raise Unavailable(_LOST)
        number = self._h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":authority", "helper")]
        head += [(":path", path)]
        sent = body is None and not streams
        try:
            self._h2.send_headers(number, head, end_stream=sent)
        except h2.exceptions.ProtocolError:
            raise Unavailable("the helper takes no more requests now") from None
        stream = Stream(self, number, changed or asyncio.Event(), sent=sent)
        self._streams[number] = stream
        self._flush()
        return stream

    async def call(
        self, method: str, path: str, body: Mapping[str, object] | None = None, most: int = PIECE
    ) -> tuple[int, bytes]:
        """A request whose answer is short: its status and text. Unavailable."""
        stream = self.request(method, path, body)
        try:
            await send(stream, body)
            status, text = await stream.answered(), b""
            while piece := await stream.read():
                text += piece
                if len(text) > most:
                    raise Unavailable("the helper's answer is too long")
            return status, text
        finally:
            stream.abandon()

    def room(self, number: int) -> int:
        """How many bytes may be written on a stream now."""
        if self._paused or self._transport is None or number not in self._streams:
            return 0
        window = self._h2.local_flow_control_window(number)
        return max(0, min(window, self._h2.max_outbound_frame_size))

    def send(self, number: int, data: bytes) -> None:
        """Writes what there is room for."""
        self._h2.send_data(number, data)
        self._flush()

    def finish(self, number: int) -> None:
        """The end of a request's body."""
        if number in self._streams:
            self._h2.end_stream(number)
            self._flush()

    def open_window(self, number: int, count: int) -> None:
        """So many bytes were read."""
        if number in self._streams:
            self._h2.increment_flow_control_window(count, number)
            self._flush()

    def reset(self, number: int) -> None:
        """Gives a stream up; one that has come to its end is left in peace."""
        if self._streams.pop(number, None) is not None and self._transport is not None:
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self._h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
            self._flush()

    def abort(self) -> None:
        """Ends the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def _wake(self, streams: Iterable[Stream]) -> None:
        for one in list(streams):
            one.on_room()

    def _flush(self) -> None:
        if self._transport is not None and (data := self._h2.data_to_send()):
            self._transport.write(data)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_LOOK, self._look)
        quiet = loop.time() - self._heard_at
        if quiet > _DEAD:
            self.abort()
        elif quiet > _QUIET and not self._asked:
            self._asked = True
            self._h2.ping(bytes(8))
            self._flush()


async def send(stream: Stream, body: Mapping[str, object] | None) -> None:
    """A request's body, and its end."""
    if body is not None:
        await stream.write(json.dumps(body, separators=(",", ":")).encode())
        stream.end()


def _status(headers: Iterable[tuple[str | bytes, str | bytes]]) -> int:
    for name, value in headers:
        if name == ":status":
            return int(value)
    return 0
