"""Pods run whole, as a cloud runs a group of containers: nobody starts or restarts a single one.

All images are there before anything is made, and all containers before the first is started: what
was made says by itself how to go on, whoever looks. One container may run before all others, and
one is the essential one, whose end ends the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

from adapters.engine.adapter import Adapter
from adapters.engine.images import Image
from adapters.engine.notices import Listener
from adapters.engine.observe import Entry, Pod
from bridge.errors import BridgeError
from bridge.helper.hosting import creating
from bridge.helper.wrap import INSTALL, WATCH
from bridge.workload import (
    ContainerState,
    Exit,
    Identity,
    Key,
    Observed,
    Running,
    Waiting,
    Workload,
)

_AGAIN, _LONGEST = 1.0, 60.0
"""Seconds before what the engine would not do is asked for again: doubling from the first on."""
_ESSENTIAL_GRACE = 10.0
"""Seconds between the stop signal and the kill for what outlives the essential container."""

_log = logging.getLogger(__name__)

Prepare = Callable[[Workload, Mapping[str, Image]], Awaitable[Workload]]
"""The workload as it is to be made, from the images of its containers."""


@dataclass(slots=True)
class _Launch:
    """A pod on its way in."""

    workload: Workload
    task: asyncio.Task[None] | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """It goes no further."""


@dataclass(frozen=True, slots=True)
class Roles:
    """Which containers of a group are not like the others."""

    first: str
    """Runs before all others; empty: none does."""
    essential: str
    """Ends all others with its own end. It is made last."""


def roles(names: Collection[str]) -> Roles:
    """Those of the containers of a group, or of as many as have been made: the helper's are made
    first and last; where it is not in a group, that is one container."""
    if INSTALL in names:
        return Roles(INSTALL, WATCH)
    return Roles("", next(iter(names), ""))


def is_whole(names: Collection[str]) -> bool:
    """Whether all of a group has been made."""
    return roles(names).essential in names


class Group:
    """Makes groups on an engine, and moves them on."""

    def __init__(self, engine: Adapter, prepare: Prepare) -> None:
        self._engine = engine
        self._prepare = prepare
        self._launches: dict[Key, _Launch] = {}
        self._steps: dict[Key, asyncio.Task[None]] = {}

    async def run(self, workload: Workload) -> None:
        """Begins to launch it; where it is whole already, nothing more."""
        key = workload.identity.key
        if key in self._launches:
            return
        pod = await self._engine.sight.pod(workload.identity)
        if is_whole(pod.runs) or key in self._launches:
            return
        launch = self._launches[key] = _Launch(workload)
        launch.task = asyncio.create_task(self._launch(launch), name=f"launch {key[1]}")

    def pending(self) -> list[Observed]:
        """The pods of which the engine has nothing yet."""
        return [self._shown(one) for one in self._launches.values()]

    def has(self, identity: Identity) -> bool:
        """Whether the pod is on its way in."""
        return identity.key in self._launches

    def _shown(self, launch: _Launch) -> Observed:
        waits = self._engine.memory.waits.get(launch.workload.identity.key, {})
        states = []
        for one in launch.workload.containers:
            _, waiting = waits.get(one.name, (0, Waiting(creating(launch.workload))))
            states.append(ContainerState(one.name, waiting))
        return Observed(launch.workload.identity, tuple(states), ended=launch.stop.is_set())

    async def end_launch(self, identity: Identity, *, forget: bool) -> None:
        """Launches it no further. It is shown as ended until it is forgotten."""
        if (step := self._steps.get(identity.key)) is not None:
            await asyncio.gather(step, return_exceptions=True)
        launch = self._launches.get(identity.key)
        if launch is None:
            return
        launch.stop.set()
        self._engine.notices.tell(identity)
        if launch.task is not None:
            # Not cancelled: what the engine was just asked to make would come all the same.
            await asyncio.gather(launch.task, return_exceptions=True)
        if forget:
            self._launches.pop(identity.key, None)
            self._engine.memory.making.discard(identity.key)
        self._engine.notices.tell(identity)

    async def close(self) -> None:
        """Ends what is under way. What runs goes on running."""
        tasks = [one.task for one in self._launches.values() if one.task is not None]
        for task in (running := [*tasks, *self._steps.values()]):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _launch(self, launch: _Launch) -> None:
        workload, identity = launch.workload, launch.workload.identity
        pause = _AGAIN
        self._engine.memory.making.add(identity.key)
        while True:
            try:
                images = await self._images(launch)
                if images is not None and await self._make(launch, images):
                    break
            except BridgeError as error:
                _log.info("pod %s: %s", identity.uid, error)
                kind = "CreateContainerError" if error.permanent else error.kind
                self._wait(workload, Waiting(kind, error.message))
            except Exception as error:  # noqa: BLE001 - the pod is shown as waiting, not forgotten
                _log.exception("pod %s", identity.uid)
                self._wait(workload, Waiting("CreateContainerError", repr(error)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await launch.stop.wait()
                return
            pause = min(pause * 2, _LONGEST)
        self._launches.pop(identity.key, None)
        self._engine.memory.making.discard(identity.key)
        self._engine.notices.tell(identity)

    def _wait(self, workload: Workload, waiting: Waiting) -> None:
        waits = self._engine.memory.waits.setdefault(workload.identity.key, {})
        waits.update({one.name: (0, waiting) for one in workload.containers})
        self._engine.notices.tell(workload.identity)

    async def _images(self, launch: _Launch) -> Mapping[str, Image] | None:
        """All images of the pod's own containers, once the engine has them. None: stopped."""
        workload = launch.workload
        waits = self._engine.memory.waits.setdefault(workload.identity.key, {})
        for one in workload.containers:
            waits.setdefault(one.name, (0, Waiting(creating(workload))))
        with self._engine.notices.listen() as listener:
            while not launch.stop.is_set():
                found: dict[str, Image] = {}
                for one in workload.containers:
                    image = await self._engine.launcher.images.need(workload, one, 0)
                    if isinstance(image, Image):
                        found[one.name] = image
                        waits[one.name] = (0, Waiting(creating(workload)))
                    elif waits.get(one.name) != (0, image):
                        waits[one.name] = (0, image)
                        self._engine.notices.tell(workload.identity)
                if len(found) == len(workload.containers):
                    return found
                await _about(listener, workload.identity)
        return None

    async def _make(self, launch: _Launch, images: Mapping[str, Image]) -> bool:
        """Whether all of it is made now, and the first one started."""
        workload = launch.workload
        made = await self._prepare(workload, images)
        await self._engine.launcher.run(made)
        self._engine.memory.making.add(workload.identity.key)
        # The essential one last: where it is there, everything is.
        names = [one.name for one in made.containers]
        who = roles(names)
        names = [one for one in names if one not in (who.first, who.essential)]
        for name in (*([who.first] if who.first else []), *names, who.essential):
            if launch.stop.is_set():
                return False
            await self._engine.launcher.start(made, name, 0, begin=False)
            pod = await self._engine.sight.pod(workload.identity)
            if pod.run(name, 0) is None:
                return False
        self._engine.memory.waits.pop(workload.identity.key, None)
        await self._engine.launcher.start(made, who.first or who.essential, 0)
        return True

    def advance(self, group: Observed) -> None:
        """Does in the background what is due for a group that is whole; one on its way in is its
        launch's affair."""
        who = roles([one.name for one in group.containers])
        first, last = group.container(who.first), group.container(who.essential)
        if last is None or group.identity.key in self._steps or self.has(group.identity):
            return
        others = [one for one in group.containers if one.name != who.first]
        waits = any(isinstance(one.state, Waiting) for one in others)
        if isinstance(last.state, Exit):
            if any(isinstance(one.state, Running) for one in others):
                self._step(group.identity, self._end)
        elif group.identity.key in self._engine.memory.stopped:
            # What has not begun never will.
            return
        elif first is None:
            if waits:
                self._step(group.identity, self._begin)
        elif isinstance(first.state, Exit):
            if first.state.code == 0 and waits:
                self._step(group.identity, self._begin)
        elif isinstance(first.state, Waiting):
            self._step(group.identity, self._begin_first)

    def was_halted(self, group: Observed) -> bool:
        """Whether it was stopped before its essential container had begun, which never will."""
        if (
            group.identity.key not in self._engine.memory.stopped
            or group.identity.key in self._steps
        ):
            return False
        last = group.container(roles([one.name for one in group.containers]).essential)
        runs = any(isinstance(one.state, Running) for one in group.containers)
        return last is not None and isinstance(last.state, Waiting) and not runs

    def _step(self, identity: Identity, do: Callable[[Identity], Awaitable[None]]) -> None:
        async def step() -> None:
            try:
                await do(identity)
            except BridgeError as error:
                _log.info("pod %s: %s", identity.uid, error)
            finally:
                self._steps.pop(identity.key, None)

        self._steps[identity.key] = asyncio.create_task(step(), name=f"step {identity.uid}")

    async def _end(self, identity: Identity) -> None:
        await self._engine.stop(identity, _ESSENTIAL_GRACE)

    async def _begin_first(self, identity: Identity) -> None:
        await self._begin_all(identity, lambda name: name == INSTALL)

    async def _begin(self, identity: Identity) -> None:
        await self._begin_all(identity, lambda name: name != INSTALL)

    async def _begin_all(self, identity: Identity, wanted: Callable[[str], bool]) -> None:
        if identity.key in self._engine.memory.stopped:
            return
        pod = await self._engine.sight.pod(identity)
        for run in _new(pod):
            if wanted(run.container):
                await self._engine.launcher.begin(identity, run)
        self._engine.notices.tell(identity)


def _new(pod: Pod) -> list[Entry]:
    return [run for runs in pod.runs.values() for run in runs[:1] if run.is_new]


async def _about(listener: Listener, identity: Identity) -> None:
    """Returns when that pod may have changed."""
    while True:
        changed = await listener.take()
        if changed is None or any(one.key == identity.key for one in changed):
            return
