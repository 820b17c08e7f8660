"""What the adapter can do besides running pods: each finds the container, and hands over."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace

from adapters.engine import dial, logs, names, resize, streams, updates
from adapters.engine.client import Engine, part
from adapters.engine.facts import Facts
from adapters.engine.launch import Launcher, Memory
from adapters.engine.observe import Entry, Pod, entry, pods
from adapters.engine.place import Place
from adapters.engine.sight import Sight
from adapters.engine.stats import Meter
from bridge.adapter import Channel, LogOptions, Usage
from bridge.errors import NotFound
from bridge.workload import Container, Files, Identity

_GROUP = f"{names.PREFIX}fs-group"


class Abilities:
    """The optional abilities of the adapter, which sets these."""

    client: Engine
    _facts: Facts
    launcher: Launcher
    memory: Memory
    _meter: Meter
    sight: Sight

    async def logs(
        self, identity: Identity, container: str, options: LogOptions
    ) -> AsyncGenerator[bytes, None]:
        """The log of the latest run, or of the one before it. NotFound, Unavailable."""
        # What is about to run has no log yet, and the run before it is the latest; what could not
        # be started has an empty one.
        failed = self._facts.has_failed
        found = await self.sight.runs(identity, container)
        runs = [run for run in found if not run.is_new or failed(run.id)]
        back = 1 if options.previous else 0
        if len(runs) <= back:
            what = "previous run" if back else "run"
            raise NotFound(f"no {what} of container {container} in pod {identity.uid}")
        if runs[back].is_new:
            return
        async with aclosing(logs.logs(self.client, runs[back].id, options)) as pieces:
            async for piece in pieces:
                yield piece

    async def exec(
        self, identity: Identity, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> Channel:
        """Starts a command in the running container. NotFound; Invalid: it cannot be started."""
        known = self.memory.running.get(identity.key, {}).get(container)
        if known is not None:
            # A probe every few seconds, and people: a look at the engine costs more than the rest.
            with suppress(NotFound):
                return await streams.exec_in(self.client, known, command, stdin=stdin, tty=tty)
        run = await self._running(identity, container)
        return await streams.exec_in(self.client, run.id, command, stdin=stdin, tty=tty)

    async def attach(self, identity: Identity, container: str, *, stdin: bool) -> Channel:
        """Joins the streams of the running container. NotFound."""
        run = await self._running(identity, container)
        return await streams.attach(self.client, run.id, stdin=stdin)

    async def _running(self, identity: Identity, container: str) -> Entry:
        for run in (await self.sight.runs(identity, container))[:1]:
            if run.status == "running":
                self.memory.running.setdefault(identity.key, {})[container] = run.id
                return run
        self.memory.running.get(identity.key, {}).pop(container, None)
        raise NotFound(f"container {container} of pod {identity.uid} does not run")

    async def dial(self, identity: Identity, port: int, *, inside: bool) -> Channel:
        """One TCP connection to the pod. NotFound; Unavailable: nothing answers there."""
        place = self.memory.places.get(identity.key)
        if place is None or not place.stands():
            place = await self._place(identity)
        return await dial.dial(pid=place.pid, pod_ip=place.address, port=port, inside=inside)

    async def _place(self, identity: Identity) -> Place:
        pause = (await self.sight.pod(identity)).pause
        if pause is None or pause.status != "running":
            raise NotFound(f"pod {identity.uid} does not run")
        if not self.client.local:
            return Place(next(iter(pause.addresses), ""))
        if pause.said is None:
            said = await self.client.call("GET", f"containers/{part(pause.id)}/json")
            pause = replace(pause, said=said)
        place = Place.of(pause)
        if place.stands():
            self.memory.places[identity.key] = place
        return place

    async def update_files(self, identity: Identity, volumes: Sequence[Files]) -> None:
        """Replaces the content of these volumes, each at once. NotFound, Unavailable."""
        group = await self.group_of(identity)
        async with self.launcher.lock(identity.key):
            await updates.update_files(self.client, identity, volumes, group)

    async def group_of(self, identity: Identity) -> int | None:
        """The pod's fsGroup. NotFound."""
        pause = (await self.sight.pod(identity)).pause
        if pause is None:
            raise NotFound(f"no pod {identity.uid}")
        group = pause.labels.get(_GROUP, "")
        return int(group) if group else None

    async def resize(self, identity: Identity, container: Container) -> None:
        """Puts the container's resources in force. NotFound, Invalid, Unsupported."""
        run = await self._running(identity, container.name)
        await resize.resize(self.client, run.id, container)

    async def stats(self, identities: Sequence[Identity]) -> Mapping[str, Sequence[Usage]]:
        """By pod UID. Unavailable."""
        wanted = {one.key for one in identities}
        filters = {**names.filters(self.client.owner), "status": ["running"]}
        said = await self.client.call("GET", "containers/json", params={"filters": filters})
        found = pods(one for one in map(entry, said or ()) if one is not None)
        chosen = [pod for key, pod in found.items() if key in wanted]
        everything = {run.id: run.container for pod in found.values() for run in _runs(pod)}
        self._meter.keep(everything)
        used = await self._meter.usage(
            {run.id: run.container for pod in chosen for run in _runs(pod)}
        )
        return {
            pod.identity.uid: usages
            for pod in chosen
            if (usages := [used[run.id] for run in _runs(pod) if run.id in used])
        }


def _runs(pod: Pod) -> list[Entry]:
    return [run for runs in pod.runs.values() for run in runs]
