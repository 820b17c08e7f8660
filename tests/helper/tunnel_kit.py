"""Pods of real helpers whose tunnels end in the test."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from helper_kit import IDENTITY, PATIENCE, Make, Pod
from support.channels import drained

from bridge.adapter import Channel
from bridge.helper.payload import Tunnel
from bridge.helper.tunnel import Event, Reported, Tunnels
from bridge.workload import Container, State

SECRET = b"provider's secret " * 2
MIB = 1024 * 1024
DAY = timedelta(days=1)


class Rig:
    """One pod, and the provider's end of its tunnels."""

    def __init__(self, tunnels: Tunnels, pod: Pod) -> None:
        self.tunnels, self.pod = tunnels, pod

    async def connected(self, *names: str, watched: bool = False) -> None:
        """Waits until these containers' helpers are there."""
        async with asyncio.timeout(PATIENCE):
            async for _ in events(self.tunnels):
                known = self.tunnels.pod(IDENTITY.key)
                if known and known.containers >= {*names} and (known.watched or not watched):
                    return

    async def sh(self, script: str, *, stdin: bool = False, tty: bool = False) -> Channel:
        command = ["/bin/sh", "-c", script]
        return await self.tunnels.exec(IDENTITY, "m", command, stdin=stdin, tty=tty)

    async def says(self, script: str) -> bytes:
        return (await drained(await self.sh(script)))[0]


async def events(tunnels: Tunnels) -> AsyncIterator[Event | None]:
    """Once at once, then after each event."""
    yield None
    async for event in tunnels.events():
        yield event


async def state_of(tunnels: Tunnels, name: str, met: Callable[[State], object]) -> Reported:
    """The first report in which that container is so."""
    async with asyncio.timeout(PATIENCE):
        async for event in tunnels.events():
            if isinstance(event, Reported):
                for one in event.record.containers:
                    if one.name == name and met(one.state):
                        return event
    raise AssertionError("the tunnels were closed")


@asynccontextmanager
async def listening(secret: bytes = SECRET, port: int = 0) -> AsyncIterator[tuple[Tunnels, str]]:
    tunnels = Tunnels(secret)
    host, port = await tunnels.start("127.0.0.1", port)
    try:
        yield tunnels, f"{host}:{port}"
    finally:
        await tunnels.close()


def settings(address: str, secret: bytes = SECRET) -> Tunnel:
    return Tunnels(secret).settings(IDENTITY, address, DAY)


@asynccontextmanager
async def rig(make: Make, *containers: Container, **more: Any) -> AsyncIterator[Rig]:
    """That pod, running and connected, with its watcher."""
    async with listening() as (tunnels, address):
        pod = make(*containers, tunnel=settings(address), **more)
        pod.all()
        made = Rig(tunnels, pod)
        await made.connected(*(one.name for one in containers), watched=True)
        for one in containers:
            await asyncio.to_thread(pod.until, one.name, lambda said: said["state"] == "running")
        yield made
        # While the provider still listens: a helper that is killed leaves nothing to wait for.
        await asyncio.to_thread(pod.close)


def resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def gone(pid: int) -> bool:
    """Neither there nor a zombie that somebody forgot."""
    return not Path(f"/proc/{pid}").exists()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
