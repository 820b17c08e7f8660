"""Really running a task's or a group's containers, by one of this project's own adapters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from adapters.simulators.common.names import hex_id
from bridge.adapter import Channel, LogOptions
from bridge.errors import BridgeError, Invalid, NotFound, Violation
from bridge.workload import (
    ContainerState,
    Exit,
    Identity,
    Observed,
    Running,
    Waiting,
    Workload,
)

_logger = logging.getLogger(__name__)

_LOOK = 0.25
"""Seconds between lists: an adapter's events are hints only."""
_SHARE = 10
"""A list that takes long is made so many times its own duration apart."""
_CHECK_OUTPUT = 64 * 1024


class Backend(Protocol):
    """What of an adapter is used here: `engine`, `process` and `Nothing` have all of it."""

    async def open(self) -> None:
        """As `bridge.adapter.Adapter`."""

    async def close(self) -> None:
        """As `bridge.adapter.Adapter`."""

    def check(self, workload: Workload) -> Sequence[Violation]:
        """As `bridge.adapter.Adapter`."""

    async def run(self, workload: Workload) -> None:
        """As `bridge.adapter.Adapter`."""

    async def list(self) -> Sequence[Observed]:
        """As `bridge.adapter.Adapter`."""

    async def delete(self, identity: Identity) -> None:
        """As `bridge.adapter.Adapter`."""

    async def start(self, workload: Workload, container: str, restart: int) -> None:
        """As `bridge.adapter.Containers`."""

    async def kill(self, identity: Identity, container: str, grace: float) -> None:
        """As `bridge.adapter.Containers`."""

    def logs(self, identity: Identity, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        """As `bridge.adapter.Logs`."""

    def events(self) -> AsyncIterator[Observed]:
        """As `bridge.adapter.Events`."""

    async def exec(
        self, identity: Identity, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> Channel:
        """As `bridge.adapter.Exec`."""

    async def attach(self, identity: Identity, container: str, *, stdin: bool) -> Channel:
        """As `bridge.adapter.Attach`."""


class Runner:
    """An adapter, and what is true of each task in it. `cloud`: whose, in names that people see."""

    def __init__(self, kind: str, cloud: str) -> None:
        self.kind = kind
        self._folder = (
            Path(tempfile.mkdtemp(prefix=f"podbridge-{cloud}-")) if kind == "process" else None
        )
        self._backend = _make(kind, cloud, self._folder)
        self._seen: dict[str, Observed] = {}
        self._ours: set[str] = set()
        self._listeners: dict[str, Callable[[], None]] = {}
        self._watching: list[asyncio.Task[None]] = []

    @property
    def has_images(self) -> bool:
        """Whether images are used; else a command runs on this host as it is, or not at all."""
        return self.kind == "engine"

    async def open(self) -> None:
        """Unavailable where the adapter cannot run anything here."""
        try:
            await self._backend.open()
        except BaseException:
            self._remove_folder()
            raise
        self._watching = [
            asyncio.create_task(self._follow(), name="runner events"),
            asyncio.create_task(self._look(), name="runner list"),
        ]

    async def close(self) -> None:
        """Ends and removes all that is left of what was run."""
        for one in self._watching:
            one.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        with contextlib.suppress(BridgeError):
            ours = [one for one in await self._backend.list() if one.identity.uid in self._ours]
            await asyncio.gather(*(self._backend.delete(one.identity) for one in ours))
        await self._backend.close()
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(BridgeError):
                async for observed in self._backend.events():
                    self._note(observed)
            await asyncio.sleep(_LOOK)

    async def _look(self) -> None:
        pause = _LOOK
        while True:
            await asyncio.sleep(pause)
            if not self._listeners:
                continue
            begun = time.monotonic()
            try:
                for observed in await self._backend.list():
                    self._note(observed)
            except BridgeError as error:
                _logger.warning("cannot list what runs: %s", error)
            pause = max(_LOOK, _SHARE * (time.monotonic() - begun))

    def _note(self, observed: Observed) -> None:
        uid = observed.identity.uid
        if uid not in self._listeners:
            return
        seen = self._seen.get(uid)
        if seen is not None:
            observed = _further(seen, observed)
        if observed != seen:
            self._seen[uid] = observed
            self._listeners[uid]()

    async def take(self, name: str, layer: bytes) -> str:
        """Gives the engine an image of one layer, a tar; the address by which tasks reach this
        host. Invalid: images are not used; else as the engine's calls."""
        if not self.has_images:
            raise Invalid(f"no images are used: tasks are run on {self.kind}")
        from adapters import engine  # noqa: PLC0415 - only what is used

        made: Any = self._backend
        return await engine.take(made, name, layer)

    def listen(self, uid: str, heard: Callable[[], None]) -> None:
        """Calls that whenever something of the task has changed, until it is deleted."""
        self._ours.add(uid)
        self._listeners[uid] = heard

    def state(self, uid: str, container: str) -> ContainerState | None:
        """What was last seen of a container."""
        observed = self._seen.get(uid)
        return observed.container(container) if observed is not None else None

    def address(self, uid: str) -> str:
        """The task's own address, where it has one of its own."""
        observed = self._seen.get(uid)
        return observed.pod_ips[0] if self.has_images and observed and observed.pod_ips else ""

    async def prepare(self, workload: Workload) -> str:
        """Makes what the containers share; what is wrong with the task, or nothing."""
        problems = self._backend.check(workload)
        if problems:
            return "; ".join(str(one) for one in problems)
        try:
            await self._backend.run(workload)
        except BridgeError as error:
            return error.message
        return ""

    async def start(self, workload: Workload, container: str, restart: int = 0) -> str:
        """Starts that run of a container; what stood in its way, or nothing."""
        try:
            await self._backend.start(workload, container, restart)
        except BridgeError as error:
            return error.message
        return ""

    async def kill(self, identity: Identity, container: str, grace: float) -> None:
        """SIGTERM, then SIGKILL `grace` real seconds later."""
        with contextlib.suppress(NotFound):
            await self._backend.kill(identity, container, grace)

    async def delete(self, identity: Identity) -> None:
        """Removes what is left of a task."""
        self._listeners.pop(identity.uid, None)
        self._seen.pop(identity.uid, None)
        try:
            await self._backend.delete(identity)
        except BridgeError as error:
            _logger.warning("cannot remove task %s: %s", identity.uid, error)

    async def lines(self, identity: Identity, container: str) -> AsyncIterator[bytes]:
        """A container's log to its end: time, a space, the line; in pieces of any length."""
        options = LogOptions(follow=True, timestamps=True)
        async for piece in self._backend.logs(identity, container, options):
            yield piece

    async def log(
        self, identity: Identity, container: str, *, tail: int | None, timestamps: bool, most: int
    ) -> bytes:
        """The end of the log of a container's latest run: `most` bytes of it. BridgeError."""
        options = LogOptions(timestamps=timestamps, tail_lines=tail)
        found = bytearray()
        async for piece in self._backend.logs(identity, container, options):
            found += piece
            # Not with each piece: what is left is moved every time.
            if len(found) > 2 * most:
                del found[:-most]
        return bytes(found[-most:])

    async def attach(self, identity: Identity, container: str) -> Channel:
        """What a container writes from now on. BridgeError."""
        return await self._backend.attach(identity, container, stdin=False)

    async def terminal(self, identity: Identity, container: str, command: Sequence[str]) -> Channel:
        """A command with a terminal. BridgeError."""
        return await self._backend.exec(identity, container, command, stdin=True, tty=True)

    async def succeeds(self, identity: Identity, container: str, command: Sequence[str]) -> bool:
        """Whether a command in the container exits with 0."""
        try:
            channel = await self._backend.exec(identity, container, command, stdin=False, tty=False)
        except BridgeError:
            return False
        try:
            left = _CHECK_OUTPUT
            while (piece := (await channel.read())[1]) and left > 0:
                left -= len(piece)
            return await channel.wait() == 0
        except BridgeError:
            return False
        finally:
            await channel.close()


def _further(seen: Observed, observed: Observed) -> Observed:
    """What is seen now, but that no container goes back: each of its runs runs once, and what says
    otherwise was seen before and told late."""
    containers = {one.name: one for one in seen.containers}
    for one in observed.containers:
        before = containers.get(one.name)
        if before is None or _stage(one) >= _stage(before):
            containers[one.name] = one
    addresses = observed.pod_ips or seen.pod_ips
    return replace(observed, containers=tuple(containers.values()), pod_ips=addresses)


def _stage(one: ContainerState) -> tuple[int, int]:
    return one.restart, (Waiting, Running, Exit).index(type(one.state))


def _make(kind: str, cloud: str, folder: Path | None) -> Backend:
    made: Any
    if kind == "process":
        from adapters.process import Adapter, Options  # noqa: PLC0415 - only what is used

        made = Adapter(f"{cloud}-simulator", Options(root=folder))
    elif kind == "null":
        from adapters.simulators.common.nothing import Nothing  # noqa: PLC0415 - only what is used

        made = Nothing()
    else:
        from adapters import engine  # noqa: PLC0415 - only what is used

        made = engine.make(
            f"{cloud}-simulator", engine.Options(owner=f"podbridge-{cloud}-{hex_id(8)}")
        )
    backend: Backend = made
    return backend
