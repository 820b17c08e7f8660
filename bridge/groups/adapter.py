"""What an adapter does where its cloud runs groups of containers: the same for every such cloud."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar

from bridge.adapter import LogOptions
from bridge.groups.discovery import Discovery
from bridge.groups.due import Due
from bridge.groups.launches import Launches
from bridge.groups.looks import Looks
from bridge.groups.options import GroupOptions
from bridge.groups.pods import Ending, Pod, Pods
from bridge.helper import state
from bridge.helper.hosted import Hosted
from bridge.helper.hosting import SLACK, Door, Hosting
from bridge.helper.state import HelperState
from bridge.workload import Files, Identity, Observed, Workload

_AT_ONCE = 0.1
"""Seconds of grace where there is none: the helper then kills."""

P = TypeVar("P", bound=Pod)


class Grouped(Hosted, ABC, Generic[P]):
    """`run`, `list`, `stop`, `delete`, and the abilities `Events`, `Updates`, `Acts` and those of
    `Hosted`. What an adapter has besides says `docs/groups.md`."""

    _launches: Launches[P]
    _due: Due[P]
    _looks: Looks
    _discovery: Discovery

    def __init__(self, name: str, *, settled: float, clock: Callable[[], float]) -> None:
        """`settled`: seconds after a container's end by which the cloud has all of its log.
        `clock`: the cloud's (epoch seconds)."""
        self.name = name
        self._pods = Pods[P]()
        self._hosting = Hosting(name, self, settled=settled, clock=clock)
        self._background: list[asyncio.Task[None]] = []

    # What a cloud says.

    @abstractmethod
    def _taken_on(self, workload: Workload) -> P:
        """A pod that is to be launched, of which nothing is known yet."""

    @abstractmethod
    async def _catch_up(self) -> None:
        """Brings what is known here up to date, for a list: all pods of this owner, or an error."""

    @abstractmethod
    async def _remove(self, pod: P) -> None:
        """Removes all that is left of a pod that runs no more; returns when that is confirmed."""

    # Opening and closing.

    def _helper_state(self, options: GroupOptions, owner: str) -> HelperState:
        """What is kept of this owner's helpers. Invalid."""
        folder = Path(options.helper_state) if options.helper_state else state.default_folder()
        return state.load(folder, owner)

    async def _begin(self, options: GroupOptions, kept: HelperState) -> None:
        """Lets helpers connect, and begins to look at groups. Unavailable: no port is free."""
        acts = self._due.acts
        tunnel = options.tunnel if acts else None
        door = Door(tunnel.listen, tunnel.port, tunnel.address) if tunnel else None
        await self._hosting.open(kept, door, acts=acts)
        if acts:
            looks = asyncio.create_task(self._looks.run(), name=f"groups of {self.name}")
            self._background.append(looks)

    def only_look(self) -> None:
        """Launches nothing anew, ends and removes nothing, and leaves events to others."""
        self._due.acts = False

    async def close(self) -> None:
        """Lets go of the connections. What runs goes on running."""
        for one in self._background:
            one.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._hosting.close()
        await self._launches.close()
        await self._due.close()

    # An adapter's calls.

    async def run(self, workload: Workload) -> None:
        """Begins to launch it; where it is there, nothing more."""
        pod = self._pods.add(self._taken_on(workload))
        if pod.launch is None and not pod.has_group and not pod.is_over:
            pod.workload = pod.workload or workload
            self._hosting.launching(workload)
            self._launches.start(pod)

    async def list(self) -> Sequence[Observed]:
        """All pods of this owner. Errors as of the cloud's calls."""
        await self._catch_up()
        pods = list(self._pods)
        for key in self._hosting.pods() - {pod.identity.key for pod in pods}:
            self._hosting.forget(key)
        views = await asyncio.gather(*map(self._view, pods))
        found = [one for one in views if one is not None]
        return sorted(found, key=lambda one: one.identity.key)

    async def _view(self, pod: P) -> Observed | None:
        group = pod.group()
        if group is None:
            return None
        shown = await self._hosting.view(group)
        if not group.failed or not (pod.is_over or shown.ended):
            return shown
        # What befell the group as a whole goes before what its containers came to.
        return replace(
            shown,
            failed=True,
            reason=group.reason,
            message=group.message,
            disrupted=group.disrupted,
        )

    async def stop(self, identity: Identity, grace: float) -> None:
        """Begins to end it."""
        pod = self._pods.of(identity)
        if pod is None:
            return
        await self._launches.end(pod)
        if not pod.has_group or pod.is_over:
            self._pods.tell(pod)
            return
        if await self._hosting.stop(identity, max(grace, _AT_ONCE)):
            self._kill_later(pod, grace + SLACK)
        else:
            await self._due.end(pod, Ending.STOPPED)

    def _kill_later(self, pod: P, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if pod.killing is not None:
            pod.killing.cancel()
        pod.killing = loop.call_later(seconds, self._due.kill, pod)

    async def delete(self, identity: Identity) -> None:
        """Ends and removes all of it; returns when the cloud says that nothing of it runs."""
        pod = self._pods.of(identity)
        if pod is None:
            await self._discovery.discover(now=True)
            if (pod := self._pods.of(identity)) is None:
                return
        await self._launches.end(pod)
        if pod.runs and not pod.missing:
            await self._due.end(pod, Ending.DELETED)
            await self._due.stopped(pod)
        await self._remove(pod)
        self._hosting.forget(identity.key)
        self._pods.forget(pod)

    def _look_at(self, mark: str) -> None:
        """Has the pod of that mark looked at now."""
        self._looks.look_at(mark)

    async def events(self) -> AsyncIterator[Observed]:
        """Pods as they change, and as what they wait for does."""
        with self._pods.listen() as listener:
            while True:
                for pod in await listener.take():
                    if self._pods.get(pod.mark) is pod and (found := await self._view(pod)):
                        yield found

    async def update_files(self, identity: Identity, volumes: Sequence[Files]) -> None:
        """Replaces the content of these volumes, each at once. NotFound, Unavailable."""
        pod = self._pods.of(identity)
        await self._hosting.update_files(identity, volumes, pod.fs_group if pod else None)

    # What the helpers' provider asks of its cloud.

    async def look(self, identity: Identity) -> Observed | None:
        """The group of the pod's containers; None: there is none."""
        pod = self._pods.of(identity)
        return pod.group() if pod is not None else None

    def tell(self, identity: Identity) -> None:
        """The pod may have changed, and its group with it."""
        if (pod := self._pods.of(identity)) is not None:
            self._look_at(pod.mark)
            self._pods.tell(pod)

    @abstractmethod
    async def tail(self, identity: Identity, container: str, size: int) -> bytes:
        """The end of what a container wrote; empty where nothing is to be read."""

    @abstractmethod
    def lines(
        self, identity: Identity, container: str, options: LogOptions
    ) -> AsyncGenerator[bytes, None]:
        """A container's whole log, of all its runs. NotFound, Unsupported."""
