"""The adapter: what the parts of this package do, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import orjson

from adapters.engine import addresses, capabilities, mounts, names, subpaths
from adapters.engine.abilities import Abilities
from adapters.engine.check import check
from adapters.engine.client import Conflict, Engine, lines, part
from adapters.engine.facts import Facts
from adapters.engine.launch import Launcher, Memory
from adapters.engine.notices import Listener, Notices
from adapters.engine.observe import Entry, Pod, observed, pods
from adapters.engine.oom import KernelLog
from adapters.engine.options import Options
from adapters.engine.scratch import Scratch
from adapters.engine.sight import Sight
from adapters.engine.stats import Meter
from adapters.engine.stops import Stops
from bridge.adapter import Rate, Support
from bridge.errors import BridgeError, NotFound, Unavailable, Violation
from bridge.workload import Identity, Observed, Workload

_TELLING = frozenset({"start", "die", "died", "oom", "destroy", "remove"})
"""Actions of a container after which the pod is another one."""
_FEW = 32
"""Changed pods that are asked for one by one; for more, one list is cheaper."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
"""Seconds between attempts to hear the engine's events."""
_REMOVALS = 5
"""Rounds of a deletion before it is left to the next call."""
_STOP_SIGNAL = f"{names.PREFIX}stop-signal"


class Adapter(Abilities):
    """Docker or Podman (see the package)."""

    type: ClassVar[str] = "engine"
    simulated: ClassVar[bool] = False
    capabilities: ClassVar[Mapping[str, Support]] = capabilities.TABLE
    rates: ClassVar[Mapping[str, Rate]] = {}

    def __init__(self, name: str, options: Options | None = None) -> None:
        self.name = name
        chosen = self._options = options or Options()
        self.client = Engine(chosen.host, owner=chosen.owner, timeout=chosen.timeout)
        self._kernel = KernelLog()
        self.notices = Notices()
        self.memory = Memory()
        self._scratch = Scratch(self.client)
        self._facts = Facts(self.client, self._scratch, self._kernel)
        self.sight = Sight(self.client)
        self._stops = Stops(self.client)
        self._meter = Meter(self.client)
        self.launcher = Launcher(
            self.client,
            self.memory,
            self._facts,
            self._scratch,
            self.sight,
            tell=self.notices.tell,
            pause_image=chosen.pause_image,
            network=chosen.network,
            parallel=chosen.parallel,
        )

    async def open(self) -> None:
        """Finds the engine and connects. Unavailable, Unauthorized, Invalid."""
        await self.client.open()
        if self.client.local:
            self._kernel.open()

    async def close(self) -> None:
        """Lets go of the connections. What runs goes on running."""
        await self.launcher.images.close()
        await self._stops.close()
        self._kernel.close()
        await self.client.close()

    def check(self, workload: Workload) -> Sequence[Violation]:
        """What this engine cannot do of it."""
        return check(workload, self.client)

    async def run(self, workload: Workload) -> None:
        """Makes the volumes and the pause container. Starts nothing else."""
        await self.launcher.run(workload)

    async def start(self, workload: Workload, container: str, restart: int) -> None:
        """Starts that run, unless it or a later one has started; with no image yet, it waits."""
        await self.launcher.start(workload, container, restart)

    async def list(self) -> Sequence[Observed]:
        """All pods of this owner. Errors as of the engine's calls."""
        # Before the pods: whoever has a mount is among them, or is gone. So with what is known of
        # them: those that are made meanwhile may come too late for this list.
        held = self._held()
        known = (self.memory.pods() | self.sight.pods()) - self.memory.making
        entries = await self.sight.all()
        listed = [one.id for one in entries]
        self._facts.keep({*listed, *self.sight.known()})
        for container in self._stops.pending():
            if container not in listed:
                self._stops.ended(container)
        found = pods(entries)
        # A removal may have ended between containers and volumes.
        left = {one.key: one for _, one in await self._volumes() if one.key not in found}
        if left:
            # Or the pods were made since the containers were listed. One that is being made now
            # may be whole before the next list is, which lacks it all the same.
            making = set(self.memory.making)
            again = pods(await self.sight.all())
            for key, identity in left.items():
                if key in again or key not in making:
                    found[key] = again.get(key) or Pod(identity)
        for key in known - found.keys() - self.memory.making:
            self.memory.forget(key)
            self.sight.forget(key)
        kept = {mounts.held_of(self.client, pod.identity) for pod in found.values()}
        for gone in held - kept:
            await asyncio.to_thread(subpaths.release, gone)
        order = sorted(found.values(), key=lambda pod: pod.order)
        return await self._observe(order)

    def _held(self) -> set[str]:
        if not self.client.local or not subpaths.allowed():
            return set()
        return set(subpaths.pods(mounts.held_by(self.client)))

    async def _volumes(self) -> Sequence[tuple[str, Identity]]:
        """All volumes of this owner, and whose they are. One label alone is asked for: of several
        Podman wants any, and not all."""
        filters = names.filters(self.client.owner)
        said = await self.client.call("GET", "volumes", params={"filters": filters})
        found = []
        for one in (said or {}).get("Volumes") or ():
            identity = names.identity_of(one.get("Labels") or {})
            if identity is not None:
                found.append((str(one["Name"]), identity))
        return found

    async def look(self, identity: Identity) -> Observed | None:
        """One pod; None where the engine has nothing of it. Errors as of the engine's calls."""
        pod = await self.sight.pod(identity)
        if pod.pause is None:
            return None
        return next(iter(await self._observe([pod])))

    async def _observe(self, found: Iterable[Pod]) -> Sequence[Observed]:
        wanted = list(found)
        facts = await self._facts.of(wanted)
        for pod in wanted:
            for run in (run for runs in pod.runs.values() for run in runs if run.is_over):
                self._stops.ended(run.id)
        addresses_ = addresses.of_host(self.client.address)
        return [
            observed(
                pod,
                facts,
                self.memory.waits.get(pod.identity.key, {}),
                stopped=pod.identity.key in self.memory.stopped,
                broken=pod.identity.key in self.memory.broken,
                leaving=pod.identity.key in self.memory.leaving,
                host_ips=addresses_,
            )
            for pod in wanted
        ]

    async def stop(self, identity: Identity, grace: float) -> None:
        """Begins to end every container of it."""
        self.launcher.images.forget(identity)
        async with self.launcher.lock(identity.key):
            pod = await self.sight.pod(identity)
            if pod.pause is None:
                return
            self.memory.waits.pop(identity.key, None)
            self.memory.stopped.add(identity.key)
            await self._end([runs[0] for runs in pod.runs.values()], grace)
        self.notices.tell(identity)

    async def kill_later(self, identity: Identity, grace: float) -> None:
        """Kills, after `grace` seconds and without a signal before, what of it runs then."""
        async with self.launcher.lock(identity.key):
            pod = await self.sight.pod(identity)
            self.memory.stopped.add(identity.key)
            runs = [runs[0] for runs in pod.runs.values() if not runs[0].is_over]
            for run in runs:
                await self._stops.order(run.id, "", grace)

    async def stop_sandbox(self, identity: Identity) -> None:
        """Ends the pause container of a pod whose work has ended, and with it the namespaces, the
        address and the host's ports."""
        async with self.launcher.lock(identity.key):
            pod = await self.sight.pod(identity)
            if pod.pause is not None and pod.pause.status == "running" and pod.is_quiet:
                await self._scratch.release(pod.identity, pod.pause.id)
                await self._end([pod.pause], 0)

    async def kill(self, identity: Identity, container: str, grace: float) -> None:
        """Begins to end the container's latest run."""
        async with self.launcher.lock(identity.key):
            pod = await self.sight.pod(identity)
            await self._end(pod.runs.get(container, [])[:1], grace)

    async def _end(self, runs: Sequence[Entry], grace: float) -> None:
        live = [run for run in runs if not run.is_over and not run.is_new]
        signals = [run.labels.get(_STOP_SIGNAL, "SIGTERM") for run in live]
        await asyncio.gather(
            *(
                self._stops.order(run.id, signal, grace)
                for run, signal in zip(live, signals, strict=True)
            )
        )

    async def delete(self, identity: Identity) -> None:
        """Kills and removes all of it; returns when the engine lists nothing more. Unavailable."""
        self.launcher.images.forget(identity)
        async with self.launcher.lock(identity.key):
            self.memory.forget(identity.key)
            self.memory.leaving.add(identity.key)
            try:
                await self._delete(identity)
            finally:
                self.memory.leaving.discard(identity.key)

    async def _delete(self, identity: Identity) -> None:
        for turn in range(_REMOVALS):
            # What is known is removed; then the engine's list says whether that was all.
            pod = await self.sight.pod(identity, listed=turn > 0)
            if turn == 0 and pod.pause is None:
                continue
            if pod.pause is None and not pod.runs:
                await self._remove_volumes(identity)
                self._scratch.forget(identity)
                return
            await self._remove(pod)
        raise Unavailable(f"pod {identity.uid} is still there")

    async def _remove(self, pod: Pod) -> None:
        runs = [run for runs in pod.runs.values() for run in runs]
        everything = [*runs, *([pod.pause] if pod.pause is not None else [])]
        for one in everything:
            self._stops.ended(one.id)
        if pod.pause is not None and self.client.podman and not any(map(_may_have_more, runs)):
            # With all that joins it, in one call. It leaves the volumes that images declare.
            params = {"force": True, "v": True, "depend": True, "timeout": 0}
            path = f"containers/{part(pod.pause.id)}"
            try:
                await self.client.call("DELETE", path, params=params, libpod=True)
            except NotFound:
                return
            return
        # First the kill: a removal by force would wait for the stop signal to be heeded.
        await self._end([one for one in everything if not one.is_over], 0)
        await asyncio.gather(*(self.launcher.remove(run.id) for run in runs))
        if pod.pause is not None:
            await self.launcher.remove(pod.pause.id)

    async def _remove_volumes(self, identity: Identity) -> None:
        if subpaths.allowed():
            await asyncio.to_thread(subpaths.release, mounts.held_of(self.client, identity))
        for name, owner in await self._volumes():
            if owner.key != identity.key:
                continue
            try:
                await self.client.call("DELETE", f"volumes/{part(name)}")
            except NotFound:
                continue
            except Conflict as error:
                raise Unavailable(error.message) from None

    async def events(self) -> AsyncGenerator[Observed, None]:
        """Pods as their containers start and end, and as what they wait for changes."""
        with self.notices.listen() as listener:
            hearing = asyncio.create_task(self._hear(listener), name=f"events of {self.name}")
            try:
                while True:
                    changed = await listener.take()
                    for one in await self._changed(changed):
                        yield one
            finally:
                hearing.cancel()
                await asyncio.gather(hearing, return_exceptions=True)

    async def _changed(self, identities: Sequence[Identity] | None) -> Sequence[Observed]:
        try:
            if identities is None:
                return await self.list()
            if len(identities) > _FEW:
                keys = {one.key for one in identities}
                return [one for one in await self.list() if one.identity.key in keys]
            looked = await asyncio.gather(*map(self.sight.pod, identities))
            return await self._observe([one for one in looked if one.pause is not None])
        except BridgeError:
            return []  # A hint: the next list tells it.

    async def _hear(self, listener: Listener) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._follow(listener)
                pause = _FIRST_PAUSE
            except (BridgeError, ValueError, AttributeError):
                # Away, or something on the way answers that is no engine: lists go on meanwhile.
                pause = min(pause * 2, _LONGEST_PAUSE)
            await asyncio.sleep(pause)
            # Whatever happened meanwhile was not heard.
            listener.add_all()

    async def _follow(self, listener: Listener) -> None:
        filters: dict[str, Any] = {**names.filters(self.client.owner), "type": ["container"]}
        async with self.client.stream("GET", "events", params={"filters": filters}) as answer:
            async for line in lines(answer):
                try:
                    said = orjson.loads(line) if line.strip() else {}
                except orjson.JSONDecodeError:
                    # Cut, since it was too long: some container of an image with huge labels.
                    listener.add_all()
                    continue
                action = str(said.get("Action", "")).partition(":")[0]
                actor = said.get("Actor") or {}
                labels = actor.get("Attributes") or {}
                identity = names.identity_of(labels)
                # A pause container that starts changes nothing that anybody waits for.
                telling = action in _TELLING and (action != "start" or names.CONTAINER in labels)
                if identity is not None and telling:
                    self.sight.heard(identity, str(actor.get("ID", "")))
                    listener.add(identity)


def _may_have_more(run: Entry) -> bool:
    """Whether the run may have volumes that are not the pod's: those that its image declares, and
    the engine makes for it."""
    if run.said is None:
        return True
    return any(
        one.get("Type") == "volume" and not str(one.get("Name", "")).startswith(names.OURS)
        for one in run.said.get("Mounts") or ()
    )
