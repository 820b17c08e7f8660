"""A connection whose two directions break apart from each other, without buffers of its own.

asyncio's streams drop what was received once a write has failed. But a process that ends with
stdin unread breaks the writing side of its connection, and its last words are still to be read.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeVar

_T = TypeVar("_T")


class Duplex(Protocol):
    """Bytes both ways. Reading and writing may go on at once, each in a task of its own."""

    async def read(self, most: int) -> bytes:
        """The next bytes; empty at the end. OSError: it broke. A cancelled read loses nothing."""

    async def write(self, data: bytes) -> None:
        """Returns when the kernel has taken them. OSError: nobody will."""

    def close_output(self) -> None:
        """Ends our direction."""

    async def close(self) -> None:
        """Ends both; who reads or writes sees an end or an error. May be repeated."""


class Socket:
    """A non-blocking socket as a Duplex."""

    def __init__(self, connected: socket.socket, received: bytes = b"") -> None:
        """`received` was read from it already."""
        self._socket = connected
        self._received = received
        self._idle = asyncio.Event()
        self._idle.set()
        self._busy = 0
        self._closed = False

    async def read(self, most: int) -> bytes:
        """The next bytes."""
        if self._received:
            data, self._received = self._received[:most], self._received[most:]
            return data
        return await self._use(self._receive(most))

    async def _receive(self, most: int) -> bytes:
        """Takes bytes only when it gives them out at once.

        The loop's own `sock_recv` takes them first and wakes its caller later: they are lost if
        that one is cancelled in between.
        """
        while True:
            try:
                return self._socket.recv(most)
            except (BlockingIOError, InterruptedError):
                await self._readable()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._socket, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._socket)

    async def write(self, data: bytes) -> None:
        """Sends them all."""
        await self._use(asyncio.get_running_loop().sock_sendall(self._socket, data))

    async def _use(self, work: Coroutine[Any, Any, _T]) -> _T:
        """One operation on the socket, which is not closed before its end."""
        if self._closed:
            work.close()
            raise ConnectionAbortedError("the connection is closed")
        self._busy += 1
        self._idle.clear()
        try:
            return await work
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    def close_output(self) -> None:
        """Half-closes it."""
        with suppress(OSError):  # The other side was faster.
            self._socket.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        """Closes it."""
        if self._closed:
            return
        self._closed = True
        with suppress(OSError):  # It may have no other side any more.
            self._socket.shutdown(socket.SHUT_RDWR)
        # That wakes whoever reads or writes; closed earlier, they would wait on whatever gets the
        # socket's number next.
        await self._idle.wait()
        self._socket.close()


class _Streams:
    """asyncio's streams as a Duplex: for TLS, which asyncio has nowhere else."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, most: int) -> bytes:
        return await self._reader.read(most)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def close_output(self) -> None:
        # TLS as asyncio has it cannot end one direction: the other side's stdin stays open.
        if self._writer.can_write_eof():
            with suppress(OSError):
                self._writer.write_eof()

    async def close(self) -> None:
        self._writer.transport.abort()


async def of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Duplex:
    """Takes over a connection from asyncio's streams, with what they have read ahead."""
    transport = writer.transport
    if transport.get_extra_info("sslcontext") is not None:
        return _Streams(reader, writer)
    assert isinstance(transport, asyncio.ReadTransport)
    if not transport.is_closing():
        with suppress(RuntimeError):  # The reader has paused it already, or seen the end.
            transport.pause_reading()
    received = b""
    while not reader.at_eof():
        try:
            async with asyncio.timeout(0):
                received += await reader.read(1 << 20)
        except TimeoutError:
            break
    descriptor = os.dup(transport.get_extra_info("socket").fileno())
    transport.abort()
    connected = socket.socket(fileno=descriptor)
    connected.setblocking(False)
    return Socket(connected, received)
