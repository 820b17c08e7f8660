"""A SPDY session as the server of it: streams that the other end opens, over any link.

As spdystream has it: ids rise, each accepted stream is answered at once (data before the answer
would be thrown away at the other end), data for a stream that is not there any more is ignored,
pings are answered, GOAWAY ends everything. What nobody has read yet is bounded for each stream and
for all of them together; beyond that the link is held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from bridge.kubelet.streams import FRAME, Malformed
from bridge.kubelet.streams.inbox import Gate, Inbox
from bridge.kubelet.streams.link import Link
from bridge.kubelet.streams.spdy import (
    CANCEL,
    REFUSED_STREAM,
    Data,
    Frame,
    FrameReader,
    FrameWriter,
    GoAway,
    Headers,
    Ping,
    RstStream,
    SynReply,
    SynStream,
)

MAX_STREAMS = 4096
"""Streams open at once: 2048 forwarded connections. More are refused one by one."""


class Inlet(Protocol):
    """Where a stream's input goes."""

    def put(self, content: bytes) -> None:
        """Takes bytes, without waiting."""

    def end(self, error: str | None = None) -> None:
        """No more will come."""


class Stream:
    """One stream. Its input waits in `inbox`, or goes to another `inlet` at once."""

    def __init__(
        self, session: Session, number: int, headers: Mapping[str, str], inbox: Inbox
    ) -> None:
        self.id = number
        self.inbox = inbox
        self.inlet: Inlet = inbox
        self.input_open = True
        self.output_open = True
        self._headers = headers
        self._session = session

    def header(self, name: str) -> str:
        """The first value of a header; empty: there is none."""
        return self._headers.get(name.lower(), "").partition("\0")[0]

    def ignore_input(self) -> None:
        """Nobody will read what comes, nor what has come."""
        self.inbox.drop()

    async def write(self, content: bytes) -> None:
        """Sends bytes. ConnectionResetError: the stream or the connection has gone."""
        for start in range(0, len(content), FRAME):
            await self._session.link.writable()
            if not self.output_open:
                raise ConnectionResetError("the other end has closed the stream")
            self._session.send(Data(self.id, content[start : start + FRAME]))

    def end(self, last: bytes = b"") -> None:
        """Sends the last bytes (few: this waits for nobody). No more will be written."""
        if self.output_open:
            self.output_open = False
            self._session.send(Data(self.id, last, fin=True))
            self._session.forget_closed(self)

    def reset(self, status: int = CANCEL) -> None:
        """Ends it both ways at once."""
        if self.input_open or self.output_open:
            self._session.send(RstStream(self.id, status))
        self.closed()

    def closed(self, error: str | None = None) -> None:
        """It is over both ways, with an error for who still reads."""
        if self.input_open:
            self.inlet.end(error)
            self.inbox.drop()
        self.input_open = self.output_open = False
        self._session.forget_closed(self)


class Session:
    """All streams of a connection. `accept` decides on each new one; `over` is called once."""

    def __init__(
        self, link: Link, accept: Callable[[Stream], bool], over: Callable[[], None]
    ) -> None:
        self.link = link
        self._accept = accept
        self._over = over
        self._reader = FrameReader()
        self._writer = FrameWriter()
        self._streams: dict[int, Stream] = {}
        self._last = 0
        self.gate = Gate(link)
        self._closing = False
        self._answers: bytearray | None = None

    def start(self) -> None:
        """Begins to read the link."""
        self.link.start(self._received, self._lost)

    def send(self, frame: Frame) -> None:
        """Queues a frame. Dropped once the link has gone."""
        encoded = self._writer.encode(frame)
        if self._answers is None:
            self.link.send(encoded)
        else:
            self._answers += encoded

    async def close(self) -> None:
        """Tells the other end that it is over, and closes the link once that has arrived."""
        self._closing = True
        for stream in list(self._streams.values()):
            stream.ignore_input()
        self.send(GoAway(self._last))
        await self.link.close()

    def forget_closed(self, stream: Stream) -> None:
        """Drops a stream that has ended both ways."""
        if not (stream.input_open or stream.output_open):
            self._streams.pop(stream.id, None)

    def _received(self, data: bytes) -> None:
        self._reader.feed(data)
        # One write for all answers: whoever sends many small frames must not make us send many.
        self._answers = bytearray()
        while (frame := self._reader.next_frame()) is not None:
            self._handle(frame)
        answers, self._answers = bytes(self._answers), None
        if answers:
            self.link.send(answers)

    def _handle(self, frame: Frame) -> None:
        match frame:
            case Data(number, content, fin):
                self._data(number, content, fin)
            case SynStream():
                self._opened(frame)
            case RstStream(number, _):
                if stream := self._streams.get(number):
                    stream.closed("the other end has reset the stream")
            case Headers(number, _, fin):
                self._data(number, b"", fin)
            case Ping(number):
                # Ours would be even. There are none, so such an answer is nobody's.
                if number % 2:
                    self.send(frame)
            case GoAway():
                # spdystream takes nothing any more once it has sent this.
                if not self._closing:
                    self.link.abort()
            case _:
                # An answer to a stream that nobody opened, credit, settings: nothing to do.
                return

    def _data(self, number: int, content: bytes, fin: bool) -> None:
        stream = self._streams.get(number)
        if stream is None or not stream.input_open:
            return
        stream.inlet.put(content)
        if fin:
            self._input_ended(stream)

    def _opened(self, frame: SynStream) -> None:
        if frame.stream % 2 == 0 or frame.stream <= self._last:
            raise Malformed(f"stream {frame.stream} after {self._last}: allowed are rising odd ids")
        self._last = frame.stream
        if self._closing:
            return
        if len(self._streams) >= MAX_STREAMS:
            self.send(RstStream(frame.stream, REFUSED_STREAM))
            return
        stream = Stream(self, frame.stream, frame.headers, self.gate.inbox(frame.stream))
        stream.output_open = not frame.unidirectional
        if not self._accept(stream):
            stream.reset()
            return
        self._streams[stream.id] = stream
        self.send(SynReply(stream.id))
        if frame.fin:
            self._input_ended(stream)

    def _input_ended(self, stream: Stream) -> None:
        stream.input_open = False
        stream.inlet.end()
        self.forget_closed(stream)

    def _lost(self) -> None:
        for stream in list(self._streams.values()):
            stream.closed("the other end has gone")
        self._streams.clear()
        self._over()
