"""Exec and attach, over SPDY or over channels.

What ends a command goes out on the error stream: since version 4 as a Status in JSON, before that
as a failure's text alone. A terminal's sizes come since version 3 (and on every WebSocket).
"""

from __future__ import annotations

import abc
import asyncio
import json
from typing import Any, Literal

from aiohttp import web

from bridge.kubelet.streams import FRAME, Wanted
from bridge.kubelet.streams import websocket as wire
from bridge.kubelet.streams.inbox import Gate, Inbox
from bridge.kubelet.streams.link import Link, WebSocketLink
from bridge.kubelet.streams.session import Session, Stream
from bridge.kubelet.streams.sizes import Sizes

_GONE = "the other end has gone"
_NAMES = ("stdin", "stdout", "stderr", "error", "resize")
"""The streams, in the order of their channels."""


class _Command(abc.ABC):
    """What both protocols share. `RemoteCommand` tells what each call does."""

    def __init__(self, response: web.StreamResponse, link: Link, stdin: Inbox, tty: bool) -> None:
        self.response = response
        self._link = link
        self._stdin = stdin
        self._sizes = Sizes()
        if not tty:
            self._sizes.end()

    async def read_stdin(self) -> bytes:
        """As `RemoteCommand.read_stdin`."""
        content = await self._stdin.read()
        self._check()
        return content

    async def read_resize(self) -> tuple[int, int] | None:
        """As `RemoteCommand.read_resize`."""
        size = await self._sizes.read()
        self._check()
        return size

    @abc.abstractmethod
    async def write(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        """As `RemoteCommand.write`."""

    @abc.abstractmethod
    async def finish(self, status: dict[str, Any]) -> None:
        """As `RemoteCommand.finish`."""

    async def gone(self) -> None:
        """As `RemoteCommand.gone`."""
        await self._link.gone.wait()

    def _check(self) -> None:
        if self._link.gone.is_set():
            raise ConnectionResetError(_GONE)

    def _lost(self) -> None:
        self._stdin.end(_GONE)
        self._sizes.end()


class SpdyCommand(_Command):
    """Over SPDY: `version` 1 to 4 of the protocol, one stream for each of stdin, stdout, ..."""

    def __init__(
        self, response: web.StreamResponse, link: Link, wanted: Wanted, version: int
    ) -> None:
        self._session = Session(link, self._accept, self._lost)
        self.gate = self._session.gate
        super().__init__(response, link, self.gate.inbox(0), wanted.tty)
        self._version = version
        self._expected = {
            name
            for name, expected in (
                ("error", True),
                ("stdin", wanted.stdin),
                ("stdout", wanted.stdout),
                ("stderr", wanted.stderr and not wanted.tty),
                ("resize", wanted.tty and version >= 3),
            )
            if expected
        }
        if "stdin" not in self._expected:
            self._stdin.end()
        if "resize" not in self._expected:
            self._sizes.end()
        self._streams: dict[str, Stream] = {}
        self._complete = asyncio.Event()

    async def open(self, within: float) -> bool:
        """Waits for the client's streams, so many seconds; False: it opened too few."""
        self._session.start()
        try:
            async with asyncio.timeout(within):
                await self._complete.wait()
        except TimeoutError:
            self._link.abort()
        return not self._link.gone.is_set() and self._complete.is_set()

    async def write(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        """As `RemoteCommand.write`."""
        self._check()
        if stream in self._streams:
            await self._streams[stream].write(data)

    async def finish(self, status: dict[str, Any]) -> None:
        """As `RemoteCommand.finish`."""
        self._check()
        await self._streams["error"].write(_ending(status, as_status=self._version >= 4))
        for name, stream in self._streams.items():
            if name in {"stdin", "resize"}:
                stream.reset()
            else:
                stream.end()
        await self._session.close()

    def _accept(self, stream: Stream) -> bool:
        name = stream.header("streamType")
        if name not in _NAMES or name in self._streams:
            return False
        self._streams[name] = stream
        if name == "stdin":
            stream.inlet = self._stdin
        elif name == "resize":
            stream.inlet = self._sizes
        else:
            stream.ignore_input()
        if self._expected <= self._streams.keys():
            self._complete.set()
        return True

    def _lost(self) -> None:
        super()._lost()
        self._complete.set()


class ChannelCommand(_Command):
    """Over WebSocket channels."""

    def __init__(
        self,
        response: web.StreamResponse,
        link: WebSocketLink,
        wanted: Wanted,
        protocol: wire.Protocol,
    ) -> None:
        self.gate = Gate(link)
        super().__init__(response, link, self.gate.inbox(0), wanted.tty)
        self._protocol = protocol
        self._outputs = {
            name: number
            for name, number, open_ in (
                ("stdout", 1, wanted.stdout),
                ("stderr", 2, wanted.stderr and not wanted.tty),
            )
            if open_
        }
        if not wanted.stdin:
            self._stdin.end()

    def open(self) -> None:
        """Begins to read, and tells the client that it may begin: an empty message on the first
        channel that we write to, as the kubelet has it."""
        self._link.start(self._received, self._lost)
        self._send(min(self._outputs.values(), default=3), b"")

    async def write(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        """As `RemoteCommand.write`."""
        self._check()
        if stream not in self._outputs:
            return
        for start in range(0, len(data), FRAME):
            await self._link.writable()
            self._send(self._outputs[stream], data[start : start + FRAME])

    async def finish(self, status: dict[str, Any]) -> None:
        """As `RemoteCommand.finish`."""
        await self._link.writable()
        if ending := _ending(status, as_status=self._protocol.status):
            self._send(3, ending)
        self._stdin.drop()
        await self._link.close()

    def _send(self, channel: int, content: bytes) -> None:
        self._link.send(wire.encode(self._protocol, channel, content))

    def _received(self, message: bytes) -> None:
        piece = wire.decode(self._protocol, len(_NAMES), message)
        if piece is None or _NAMES[piece.channel] not in {"stdin", "resize"}:
            return
        inlet = self._stdin if _NAMES[piece.channel] == "stdin" else self._sizes
        if piece.end:
            inlet.end()
        else:
            inlet.put(piece.content)


def _ending(status: dict[str, Any], *, as_status: bool) -> bytes:
    if as_status:
        return json.dumps(status, separators=(",", ":")).encode()
    if status.get("status") == "Success":
        return b""
    return str(status.get("message", "")).encode()
