"""What tests do with a `Channel`, and how they wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bridge.adapter import Channel

PATIENCE = 90.0
"""Seconds after which a test that waits for the thing itself gives up."""


async def drained(channel: Channel) -> tuple[bytes, bytes, int]:
    """All that comes, and the exit code."""
    found = {"stdout": bytearray(), "stderr": bytearray()}
    async with asyncio.timeout(PATIENCE):
        while True:
            name, data = await channel.read()
            if not name:
                assert data == b""
                break
            assert 0 < len(data) <= 32 * 1024
            found[name] += data
        code = await channel.wait()
    await channel.close()
    return bytes(found["stdout"]), bytes(found["stderr"]), code


async def reads(channel: Channel, end: bytes) -> bytes:
    """What comes on stdout until it ends so."""
    found = b""
    async with asyncio.timeout(PATIENCE):
        while not found.endswith(end):
            name, data = await channel.read()
            assert name == "stdout", (name, found)
            found += data
    return found


async def soon(true: Callable[[], Awaitable[bool]]) -> None:
    """Waits until that is so."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if await true():
                return
            await asyncio.sleep(0.01)
