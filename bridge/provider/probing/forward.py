"""Joins a `Channel` and a socket, for libraries that want a socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from bridge.adapter import Channel
from bridge.errors import BridgeError

PIECE = 32 * 1024
"""Bytes that are read at once."""


async def join(channel: Channel, ours: socket.socket) -> None:
    """Carries bytes both ways until both ends have closed or one breaks; closes both."""
    ours.setblocking(False)
    loop = asyncio.get_running_loop()

    async def inward() -> None:
        while data := await loop.sock_recv(ours, PIECE):
            await channel.write(data)
        await channel.close_input()

    async def outward() -> None:
        while data := (await channel.read())[1]:
            await loop.sock_sendall(ours, data)
        ours.shutdown(socket.SHUT_WR)

    try:
        await _both(inward(), outward())
    except (BridgeError, OSError):
        # Whoever holds the other end of the socket sees it close, which is what has happened.
        pass
    finally:
        ours.close()
        await channel.close()


async def _both(*ways: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def as_socket(channel: Channel) -> AsyncIterator[socket.socket]:
    """A socket that is the connection's other end; the caller's library closes it."""
    ours, theirs = socket.socketpair()
    joined = asyncio.create_task(join(channel, ours), name="join a probe's connection")
    try:
        yield theirs
    finally:
        theirs.close()
        joined.cancel()
        await asyncio.gather(joined, return_exceptions=True)
        # One that was cancelled before it began has closed nothing.
        ours.close()
        await channel.close()
