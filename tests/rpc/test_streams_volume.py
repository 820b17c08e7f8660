"""A gigabyte each way through gRPC, with a reader that stops: nothing lost, nothing heaped up."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support import pipes
from support.pipes import BLOCK, PIECES, WIRE

from bridge.rpc.client import RemoteProvider
from bridge.rpc.streams import Remote, open_exec, open_forward
from bridge.rpc.v1 import stream_pb2 as pb

GIB = 1024 * 1024 * 1024
MOST = 32 * 1024
"""KiB that the server may need more than before."""


@asynccontextmanager
async def elsewhere(address: str) -> AsyncIterator[int]:
    """A server of pumps in a process of its own: its id."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, pipes.__file__, address, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        assert await server.stdout.readline() == b"ready\n"
        yield server.pid
    finally:
        server.terminate()
        await server.wait()


def memory(pid: int, *, peak: bool) -> int:
    """KiB resident in the process: now, or at the most since its peak was set back."""
    name = "VmHWM:" if peak else "VmRSS:"
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise AssertionError


async def opened(remote: RemoteProvider, kind: str, size: int) -> Remote:
    if kind == "forward":
        start = pb.PortForwardStart(pod=WIRE, port=size // len(BLOCK))
        return await open_forward(remote, start)
    asked = pb.ExecStart(pod=WIRE, container="c", command=["pump", str(size)])
    asked.stdin = asked.stdout = True
    return await open_exec(remote, asked)


async def send(channel: Remote, size: int) -> None:
    for _ in range(size // len(BLOCK)):
        for piece in PIECES:
            await channel.write(piece)
    await channel.close_input()


async def receive(channel: Remote, size: int, pid: int) -> tuple[str, str]:
    """The digest of what came, and what the other end says is the digest of what it got."""
    hashed, left, said = hashlib.sha256(), size, b""
    while (piece := await channel.read())[0]:
        content = piece[1]
        assert len(content) <= 32 * 1024
        hashed.update(content[:left])
        said += content[left:]
        if left > size // 2 >= left - len(content):
            await stop_reading(pid)
        left = max(0, left - len(content))
    return hashed.hexdigest(), said.decode()


async def stop_reading(pid: int) -> None:
    """Until the other process, too, has nothing more to do for it."""
    before = -1
    while before != (before := ticks(pid)):  # noqa: ASYNC110 - another process works
        await asyncio.sleep(0.3)


def ticks(pid: int) -> int:
    """What the process has used of the CPU in its own code, in ticks."""
    return int(Path(f"/proc/{pid}/stat").read_text().split()[13])


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def through(remote: RemoteProvider, kind: str, size: int, pid: int) -> tuple[str, str]:
    channel = await opened(remote, kind, size)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send(channel, size))
            received = tasks.create_task(receive(channel, size, pid))
        assert await channel.wait() == 0
        return received.result()
    finally:
        await channel.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["exec", "forward"])
async def test_a_gigabyte_each_way_costs_no_memory(kind: str, tmp_path: Path) -> None:
    async with elsewhere(f"unix://{tmp_path}/s") as pid:
        remote = RemoteProvider(f"unix://{tmp_path}/s")
        try:
            # What a first call loads is no part of what a stream needs.
            await through(remote, kind, len(BLOCK), pid)
            forget_peak(pid)
            before = memory(pid, peak=False)
            received, sent = await through(remote, kind, GIB, pid)
            more = memory(pid, peak=True) - before
        finally:
            await remote.close()
    expected = pipes.digest(GIB)
    assert received == expected
    assert sent == expected
    assert more <= MOST
