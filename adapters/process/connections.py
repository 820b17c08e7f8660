"""Connections to a pod's ports. Pods share the host's network, so they are the host's own."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from adapters.process.readiness import Readiness
from bridge.adapter import Size
from bridge.errors import Unavailable

_HOSTS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_PIECE = 32 * 1024
_PATIENCE = 10.0
"""Seconds for a connection within this host; it takes none unless the backlog is full."""


class Connection:
    """One TCP connection."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._ready = Readiness()
        self._ended = asyncio.Event()
        self._broken = ""

    async def read(self) -> tuple[str, bytes]:
        """The next bytes. Unavailable."""
        # A reader that always finds something must not keep all other tasks waiting.
        await asyncio.sleep(0)
        while not self._ended.is_set():
            try:
                data = self._peer.recv(_PIECE)
            except BlockingIOError:
                await self._ready.wait(readable=[self._peer.fileno()])
            except OSError as error:
                self._broken = self._broken or error.strerror or "the connection broke"
                self._ended.set()
            else:
                if data:
                    return "stdout", data
                self._ended.set()
        self._require_whole()
        return "", b""

    async def write(self, data: bytes) -> None:
        """Bytes for the other side; returns when they were taken. Unavailable."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._peer.send(view) :]
            except BlockingIOError:
                await self._ready.wait(writable=[self._peer.fileno()])
            except OSError as error:
                # What the other side has sent before can still be read.
                raise Unavailable(error.strerror or "the connection broke") from error

    def _require_whole(self) -> None:
        if self._broken:
            raise Unavailable(self._broken)

    async def close_input(self) -> None:
        """Closes this side's half."""
        with contextlib.suppress(OSError):
            self._peer.shutdown(socket.SHUT_WR)

    async def resize(self, size: Size) -> None:
        """Nothing to do: there is no terminal."""

    async def wait(self) -> int:
        """0, once `read` has come to the end. Unavailable."""
        await self._ended.wait()
        self._require_whole()
        return 0

    async def close(self) -> None:
        """Lets go of it."""
        self._ready.wake()
        if not self._ended.is_set():
            self._broken = "the connection was closed"
            self._ended.set()
        self._peer.close()


async def dial(port: int) -> Connection:
    """A connection to that port of this host, by IPv4 or else IPv6. Unavailable."""
    why = ""
    for family, host in _HOSTS:
        try:
            return Connection(await _connect(family, host, port))
        except TimeoutError:
            why = why or "no answer"
        except OSError as error:
            why = why or (error.strerror or str(error)).lower()
        except OverflowError:
            why = "no such port"
    raise Unavailable(f"dial tcp {_HOSTS[0][1]}:{port}: connect: {why}")


async def _connect(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    peer = socket.socket(family, socket.SOCK_STREAM)
    try:
        peer.setblocking(False)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(_PATIENCE):
            await asyncio.get_running_loop().sock_connect(peer, (host, port))
    except BaseException:
        peer.close()
        raise
    return peer
