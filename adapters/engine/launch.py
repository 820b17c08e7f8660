"""Makes pods and starts containers, each exactly once.

Everything has a name that follows from what it is, so that a create that was already done answers
409, and what is there is looked at. One lock a pod orders what is done to it here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from adapters.engine import mounts, names, specs, volumes
from adapters.engine.check import LONGEST_PATH, TOO_LONG
from adapters.engine.client import Conflict, Engine, Refused, part
from adapters.engine.facts import Facts
from adapters.engine.images import Image, Images
from adapters.engine.observe import Entry, Pod
from adapters.engine.own_image import OwnImage
from adapters.engine.pause import COMMAND
from adapters.engine.pause import program as pause_program
from adapters.engine.place import Place
from adapters.engine.redaction import redacted
from adapters.engine.references import normalized
from adapters.engine.scratch import Scratch, hosts, start_error, volume
from adapters.engine.sight import Sight
from bridge.errors import Invalid, NotFound, SandboxFailed, Unavailable, Unsupported
from bridge.workload import Container, Identity, Key, Role, Waiting, Workload

_KEPT = 2
"""Runs of a container: the last one, and the one before it for its log and its exit."""


@dataclass(slots=True)
class Memory:
    """What is known for a while, and found out again where it is lost."""

    waits: dict[Key, dict[str, tuple[int, Waiting]]] = field(default_factory=dict)
    stopped: set[Key] = field(default_factory=set)
    """Pods of which nothing that never ran will run."""
    broken: set[Key] = field(default_factory=set)
    """Pods whose pause container was found dead when something was to be started."""
    making: set[Key] = field(default_factory=set)
    """Pods that are being made just now."""
    leaving: set[Key] = field(default_factory=set)
    """Pods that are being deleted just now."""
    filled: set[Key] = field(default_factory=set)
    """Pods whose pause container was started, and whose volumes were filled, from here."""
    running: dict[Key, dict[str, str]] = field(default_factory=dict)
    """By container: the ID of the run that ran when it was last looked at for a command."""
    places: dict[Key, Place] = field(default_factory=dict)
    """Where pods' networks were found."""

    def pods(self) -> set[Key]:
        """The pods of which anything is known."""
        known = {*self.waits, *self.stopped, *self.broken, *self.filled}
        return known | {*self.running, *self.places}

    def forget(self, key: Key) -> None:
        """The pod is gone, or begins anew."""
        self.waits.pop(key, None)
        self.stopped.discard(key)
        self.broken.discard(key)
        self.filled.discard(key)
        self.running.pop(key, None)
        self.places.pop(key, None)


@dataclass(frozen=True, slots=True)
class _Start:
    """A container that is there, and is to be started."""

    identity: Identity
    container: Container
    restart: int
    id: str
    bare: bool = False
    """Its image has no entry point: without a command of its own, its args are one."""

    @property
    def program(self) -> str:
        """What the runtime is to execute, where the container says so."""
        words = self.container.command or (self.container.args if self.bare else ())
        return words[0] if words else ""


class Launcher:
    """`run` and `start` of the adapter."""

    def __init__(
        self,
        engine: Engine,
        memory: Memory,
        facts: Facts,
        scratch: Scratch,
        sight: Sight,
        *,
        tell: Callable[[Identity], None],
        pause_image: str,
        network: str,
        parallel: int,
    ) -> None:
        self._engine = engine
        self._memory = memory
        self._facts = facts
        self._scratch = scratch
        self._sight = sight
        self._tell = tell
        self._pause_image = pause_image
        self._network = network
        self._gate = asyncio.Semaphore(parallel)
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self._own = OwnImage(engine, "pause", pause_program)
        self.images = Images(engine, self._waits, time.monotonic)

    def lock(self, key: Key) -> asyncio.Lock:
        """Held while something is done to that pod."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    def _waits(
        self, identity: Identity, container: str, restart: int, waiting: Waiting | None
    ) -> None:
        """Shows what a run waits for; None: as before, but it is worth asking again."""
        waits = self._memory.waits.get(identity.key)
        if waits is None or waits.get(container, (-1,))[0] != restart:
            return  # Nobody wants that run any more.
        if waiting is not None:
            waits[container] = (restart, waiting)
        self._tell(identity)

    def _host(self) -> specs.Host:
        info = self._engine.info
        return specs.Host(
            owner=self._engine.owner,
            podman=self._engine.podman,
            memory=int(info.get("MemTotal") or 0),
            lowers_oom_scores=self._engine.lowers_oom_scores,
            network=self._network,
        )

    async def run(self, workload: Workload) -> None:
        """Makes the volumes and the pause container. If that runs, nothing more."""
        key = workload.identity.key
        async with self.lock(key), self._gate:
            self._memory.making.add(key)
            try:
                await self._make(workload)
            finally:
                self._memory.making.discard(key)

    async def _make(self, workload: Workload) -> None:
        identity = workload.identity
        await volumes.make(self._engine, workload)
        await self._scratch.make(identity)
        image = await self._image_of_pause()
        body = specs.pause(
            workload,
            self._host(),
            image,
            COMMAND,
            [
                specs.scratch_mount(volume(identity)),
                *volumes.pause_mounts(workload),
            ],
        )
        try:
            made = await self._create(identity, names.pause(identity), body)
        except NotFound:
            self._own.forget()
            raise
        except Refused as error:
            raise SandboxFailed(error.message) from None
        except Conflict:
            pod = await self._sight.pod(identity)
            if pod.pause is None or not pod.is_fresh:
                return
            made = pod.pause.id
        else:
            self._memory.forget(identity.key)
            self._sight.begun(identity, made)
        await self._prepare(workload, made)

    async def _prepare(self, workload: Workload, pause: str) -> None:
        """Starts the pause container and fills the volumes. Both may be repeated, as long as no
        other container of the pod has started. SandboxFailed: the engine does not start it."""
        try:
            await self._engine.call("POST", f"containers/{part(pause)}/start")
        except Refused as error:
            raise SandboxFailed(error.message) from None
        await volumes.fill(self._engine, workload)
        self._memory.filled.add(workload.identity.key)

    async def _image_of_pause(self) -> str:
        if not self._pause_image:
            return await self._own.reference()
        reference = normalized(self._pause_image)
        if await self.images.find(reference) is None:
            await self.images.fetch(reference)
        return reference

    async def _create(self, identity: Identity, name: str, body: Mapping[str, Any]) -> str:
        try:
            made = await self._engine.call(
                "POST", "containers/create", params={"name": name}, body=body
            )
        except BaseException:
            # It may be there all the same, or somebody else's.
            self._sight.doubt(identity)
            raise
        self._sight.made(identity, made["Id"])
        return str(made["Id"])

    async def start(
        self, workload: Workload, name: str, restart: int, *, begin: bool = True
    ) -> None:
        """Starts that run, unless it or a later one has started, or says what it waits for.
        Without `begin` it is made, and that is all."""
        try:
            container = workload.container(name)
        except KeyError:
            raise NotFound(f"no container {name}") from None
        identity = workload.identity
        async with self.lock(identity.key):
            pod = await self._sight.pod(identity)
            if pod.pause is None:
                raise NotFound(f"no pod {identity.uid}")
            there = pod.runs.get(name, [])
            if there and there[0].restart > restart:
                return
            run = pod.run(name, restart)
            if run is not None and (not run.is_new or self._facts.has_failed(run.id)):
                return
            if self._may_be_empty(workload, pod, pod.pause):
                await self._prepare(workload, pod.pause.id)
                pod = await self._sight.pod(identity)
            if pod.pause is None or pod.pause.status != "running":
                self._break(pod)
                return
            self._found(pod.pause)
            if run is not None and await mounts.stand(self._engine, workload, container):
                if begin:
                    await self._begin(_Start(identity, container, restart, run.id))
                return
            if run is not None:
                await self.remove(run.id)
            await self._launch(workload, pod, container, restart, begin)

    def _found(self, pause: Entry) -> None:
        """Keeps where the pod's network is: a probe has no time to ask a busy engine."""
        if self._engine.local and pause.said is not None and pause.addresses:
            self._memory.places[pause.identity.key] = Place.of(pause)

    def _may_be_empty(self, workload: Workload, pod: Pod, pause: Entry) -> bool:
        """Whether a provider may have died before the pod was whole: none of its containers was
        made, and it was not us who made the pod. A pause container that has ended before any of
        them was started (its own start may end with whoever asked for it) is started again."""
        if pause.is_over:
            return pod.is_fresh
        if pod.runs or workload.identity.key in self._memory.filled:
            return False
        return pause.is_new or volumes.are_filled(workload)

    def _break(self, pod: Pod) -> None:
        """The pause container has ended, and what ran beside it with it. Unavailable: nothing ran;
        it is started again the next time."""
        if pod.pause is not None and pod.is_fresh:
            raise Unavailable("the container that holds the pod's namespaces has ended")
        self._memory.broken.add(pod.identity.key)
        self._tell(pod.identity)

    def _wait(self, workload: Workload, name: str, restart: int, waiting: Waiting) -> None:
        key = workload.identity.key
        waits = self._memory.waits.setdefault(key, {})
        if waits.get(name) != (restart, waiting):
            waits[name] = (restart, waiting)
            self._tell(workload.identity)

    async def begin(self, identity: Identity, run: Entry) -> None:
        """Starts a run that was made."""
        async with self.lock(identity.key):
            bare = Container(run.container, Role.MAIN, run.labels.get(names.IMAGE, ""))
            await self._begin(_Start(identity, bare, run.restart, run.id))

    async def _launch(
        self, workload: Workload, pod: Pod, container: Container, restart: int, begin: bool
    ) -> None:
        # Before the pull begins: its end must find what it was for.
        waits = self._memory.waits.setdefault(workload.identity.key, {})
        if waits.get(container.name, (-1,))[0] != restart:
            waits[container.name] = (restart, Waiting("ContainerCreating"))
        image = await self.images.need(workload, container, restart)
        if isinstance(image, Waiting):
            self._wait(workload, container.name, restart, image)
            return
        async with self._gate:
            made = await self._make_run(workload, pod, container, restart, image)
            if made is None:
                return
            if begin:
                run = _Start(workload.identity, container, restart, made, not image.entrypoint)
                await self._begin(run)
        waits.pop(container.name, None)
        # A removed run's log is gone with it: never the last one's or the one's before.
        for old in pod.runs.get(container.name, [])[_KEPT - 1 :]:
            await self.remove(old.id)

    async def _make_run(
        self, workload: Workload, pod: Pod, container: Container, restart: int, image: Image
    ) -> str | None:
        """The container's ID; None where there is nothing to start, for now or any more."""
        if pod.pause is None:
            return None
        identity = workload.identity
        address = next(iter(pod.pause.addresses), "")
        try:
            await self._scratch.put(
                identity,
                pod.pause.id,
                {
                    "hosts": (hosts(workload, address), 0o644),
                    f"messages/{container.name}.{restart}": (b"", 0o666),
                },
            )
            made = [
                *await mounts.mounts(self._engine, workload, container),
                *specs.pod_files(
                    workload, await self._scratch.mountpoint(identity), container, restart
                ),
            ]
            wanted = specs.Run(pod.pause.id, restart, image.id, image.user, made, image.stop_signal)
            body = specs.run(workload, container, wanted, self._host())
        except (Invalid, Unsupported) as error:
            waiting = Waiting("CreateContainerConfigError", error.message)
            self._wait(workload, container.name, restart, waiting)
            return None
        try:
            name = names.run(identity, container.name, restart)
            return await self._create(identity, name, body)
        except Conflict:
            # Another process made it, or it was lost sight of: it may have run to its end by now,
            # and an engine starts what has ended once more.
            again = (await self._sight.pod(identity)).run(container.name, restart)
            return again.id if again is not None and again.is_new else None
        except (Invalid, NotFound, Refused) as error:
            if (await self._sight.pod(identity)).pause is None:
                raise NotFound(f"no pod {identity.uid}") from None
            waiting = Waiting("CreateContainerError", redacted(error.message, container))
            self._wait(workload, container.name, restart, waiting)
            return None

    async def _begin(self, run: _Start) -> None:
        if len(run.program.encode(errors="surrogateescape")) > LONGEST_PATH:
            await self._failed(run, TOO_LONG)
            return
        self._facts.beginning.add(run.id)
        try:
            await self._engine.call("POST", f"containers/{part(run.id)}/start")
        except (Invalid, NotFound, Refused, Conflict) as error:
            await self._failed(run, error.message)
        finally:
            self._facts.beginning.discard(run.id)

    async def _failed(self, run: _Start, words: str) -> None:
        """The engine would not start it: a run that ended, unless something else is the reason."""
        pod = await self._sight.pod(run.identity)
        there = pod.run(run.container.name, run.restart)
        if pod.pause is None or there is None:
            raise NotFound(f"no pod {run.identity.uid}")
        if not there.is_new:
            return
        if pod.pause.status != "running":
            self._break(pod)
            return
        how = start_error(time.time(), redacted(words, run.container))
        await self._scratch.fail(run.identity, pod.pause.id, run.container.name, run.restart, how)
        self._facts.fail(run.id, how)
        self._tell(run.identity)

    async def remove(self, container: str) -> None:
        """Removes one container, running or not; it is gone then, or an error says why not."""
        params = {"force": True, "v": True}
        try:
            await self._engine.call("DELETE", f"containers/{part(container)}", params=params)
        except NotFound:
            return
        except Conflict as error:
            # Its removal is under way already, or something still joins it: look again.
            raise Unavailable(error.message) from None
