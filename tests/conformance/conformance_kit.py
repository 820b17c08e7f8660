"""A provider over `process` behind a real socket, sound or with one defect, and its judgement."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from adapters.process import Adapter, Options
from bridge.conformance import Report, Settings, checks, judge
from bridge.provider.backend import Backend
from bridge.provider.server import Server
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker

TIMEOUT = 20.0
"""Seconds that a check may take on a machine with much else to do; it takes one or two."""


class Place:
    """Where a provider serves. Each life of it has the class that `lives` names next."""

    def __init__(self, root: Path, *lives: type[Provider]) -> None:
        self.root = root / "pods"
        self.address = f"unix://{root}/s"
        self._lives = list(lives)
        self._running: asyncio.Task[None] | None = None
        self._server: Server | None = None
        self._adapter: Adapter | None = None

    async def start(self) -> None:
        """Begins a life."""
        life = self._lives.pop(0) if len(self._lives) > 1 else self._lives[0]
        self._adapter = Adapter("process", Options(root=self.root))
        provider = life(Tracker([Backend(self._adapter, {})]))
        self._server = Server(provider, self.address)
        self._running = asyncio.create_task(provider.run(), name="provider")
        await self._server.start()

    async def stop(self) -> None:
        """Ends it; pods go on."""
        assert self._server is not None
        assert self._running is not None
        await self._server.stop(0)
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    async def restart(self) -> None:
        """Ends one life and begins the next."""
        await self.stop()
        await self.start()

    async def clean(self) -> list[str]:
        """Removes what a provider has left; says what that was."""
        adapter = Adapter("process", Options(root=self.root))
        await adapter.open()
        try:
            left = [one.identity for one in await adapter.list()]
            for identity in left:
                await adapter.delete(identity)
        finally:
            await adapter.close()
        return [identity.name for identity in left]


@asynccontextmanager
async def serving(root: Path, *lives: type[Provider]) -> AsyncIterator[Place]:
    place = Place(root, *lives)
    await place.start()
    try:
        yield place
    finally:
        await place.stop()
        await place.clean()


async def judged(place: Place, focus: str, *, timeout: float = TIMEOUT) -> Report:
    chosen = [one for one in checks() if re.search(focus, one.id)]
    settings = Settings(timeout=timeout, restart=place.restart)
    return await judge(place.address, chosen, settings)


def failed(report: Report) -> dict[str, str]:
    """What was seen in each check that failed."""
    return {one.check.id: f"{one.expected}; seen {one.seen}" for one in report.failed}
