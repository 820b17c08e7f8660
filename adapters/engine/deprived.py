"""The engine with everything taken away that a poor cloud lacks, and given back by the helper.

Nothing is asked of the engine but: run this group of containers, is it over, and what did each
write. Files, order, restarts, probes, codes, messages, exec, attach, port-forward and usage are the
helper's, in the containers: what works here works on any cloud that runs groups of containers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from adapters.engine import addresses, capabilities
from adapters.engine.adapter import Adapter
from adapters.engine.group import Group, is_whole
from adapters.engine.images import Image
from adapters.engine.options import Options
from adapters.engine.own_image import OwnImage
from bridge.adapter import LogOptions, Rate, Support
from bridge.errors import NotFound, Unavailable, Violation
from bridge.helper import state, view
from bridge.helper.commands import commands
from bridge.helper.hosted import Hosted
from bridge.helper.hosting import SLACK, Door, Hosting, names
from bridge.helper.need import lost, wraps
from bridge.helper.program import machine_of, program
from bridge.helper.wrap import Process, bare, places, wrap
from bridge.registry import RegistryClient
from bridge.workload import Files, Identity, Observed, Workload

_YOUNG = 60.0
"""Seconds for which a group that is not whole is taken for one that another provider makes."""


class _Engine:
    """The engine as a poor cloud."""

    def __init__(self, engine: Adapter) -> None:
        self._engine = engine

    async def look(self, identity: Identity) -> Observed | None:
        """The group."""
        return await self._engine.look(identity)

    async def tail(self, identity: Identity, container: str, size: int) -> bytes:
        """The end of what a container wrote."""
        kept = b""
        try:
            async with aclosing(self._engine.logs(identity, container, LogOptions())) as pieces:
                async for piece in pieces:
                    kept = (kept + piece)[-size:]
        except NotFound:
            return b""
        return kept

    def tell(self, identity: Identity) -> None:
        """The pod may have changed."""
        self._engine.notices.tell(identity)

    def lines(
        self, identity: Identity, container: str, options: LogOptions
    ) -> AsyncGenerator[bytes, None]:
        """A container's whole log."""
        return self._engine.logs(identity, container, options)


class Deprived(Hosted):
    """`helper: always` and `auto`: Docker or Podman as the poorest cloud."""

    type: ClassVar[str] = "engine"
    simulated: ClassVar[bool] = False
    capabilities: ClassVar[Mapping[str, Support]] = capabilities.HELPED
    rates: ClassVar[Mapping[str, Rate]] = {}
    fills_in: ClassVar[bool] = True

    def __init__(self, name: str, options: Options) -> None:
        self.name = name
        self._options = options
        self._engine = Adapter(name, options)
        self._group = Group(self._engine, self._prepare)
        self.client = self._engine.client
        self._own = OwnImage(self.client, "helper", program)
        self._image = ""
        self._hosting = Hosting(name, _Engine(self._engine))
        self._acts = True
        asks = options.helper_images == "registry"
        self._registry = RegistryClient() if asks else None

    async def open(self) -> None:
        """Finds the engine, and gives it the helper. Unavailable, Unauthorized, Invalid,
        Unsupported."""
        folder = self._options.helper_state
        kept = state.load(Path(folder) if folder else state.default_folder(), self._options.owner)
        await self._engine.open()
        door = None
        if self._acts:
            self._image = await self._own.reference()
            self._engine.launcher.images.own.add(self._image)
            host = self._options.helper_address or await self._gateway()
            door = Door(self._options.helper_listen, self._options.helper_port, host)
        await self._hosting.open(kept, door, acts=self._acts)

    def only_look(self) -> None:
        """Begins and ends nothing by itself, and leaves helpers to who does."""
        self._acts = False

    async def _gateway(self) -> str:
        """The machine's own address in the network of the pods."""
        try:
            return await addresses.gateway(self.client, self._options.network or "")
        except Unavailable as error:
            raise Unavailable(f"{error.message}: say helper_address") from None

    async def close(self) -> None:
        """Lets go of the connections. What runs goes on running."""
        await self._hosting.close()
        await self._group.close()
        if self._registry is not None:
            await self._registry.close()
        await self._engine.close()

    def check(self, workload: Workload) -> Sequence[Violation]:
        """What cannot be done of it here."""
        wrong = [*self._engine.check(workload), *names(workload)]
        more = places(workload) if self._wraps(workload) else lost(workload)
        return [*wrong, *more]

    def _wraps(self, workload: Workload) -> bool:
        return wraps(workload, self._options.helper)

    async def run(self, workload: Workload) -> None:
        """Begins to launch it; where it is there, nothing more."""
        await self._group.run(workload)
        self._hosting.launching(workload)

    async def _prepare(self, workload: Workload, images: Mapping[str, Image]) -> Workload:
        if not self._wraps(workload):
            return bare(workload)
        if self._registry is None:
            processes: Mapping[str, Process] = {
                name: Process(image.entrypoint, image.cmd, image.stop_signal)
                for name, image in images.items()
            }
        else:
            machine = machine_of(str(self.client.info.get("Architecture", "")))
            found = await commands(self._registry, workload, machine)
            if found.without:
                self._hosting.without(workload.identity, found.without)
                return bare(workload)
            processes = found.processes
        hosts = addresses.of_host(self.client.address)
        settings = self._hosting.settings(workload, hosts)
        return wrap(workload, processes, settings, self._image)

    async def list(self) -> Sequence[Observed]:
        """All pods of this owner. Errors as of the engine's calls."""
        # What is on its way now may have arrived by the end of the list, and too late for it.
        coming, known = self._group.pending(), self._hosting.pods()
        found = [one for one in await self._engine.list() if self._is_whole(one)]
        shown = {one.identity.key: one for one in await asyncio.gather(*map(self._view, found))}
        for one in (*self._group.pending(), *coming):
            shown.setdefault(one.identity.key, one)
        for key in known - shown.keys():
            self._hosting.forget(key)
        return [shown[key] for key in sorted(shown)]

    def _is_whole(self, group: Observed) -> bool:
        """Or it is on its way in, here or from another provider, or was left half made."""
        if is_whole([one.name for one in group.containers]):
            return True
        made = group.accepted_at or 0.0
        return not self._group.has(group.identity) and time.time() > made + _YOUNG

    async def _view(self, group: Observed) -> Observed:
        if self._acts:
            self._group.advance(group)
        shown = await self._hosting.view(group)
        return replace(shown, ended=True) if self._group.was_halted(group) else shown

    async def stop(self, identity: Identity, grace: float) -> None:
        """Begins to end it."""
        await self._group.end_launch(identity, forget=False)
        if await self._hosting.stop(identity, grace):
            # The engine's own signal would tell them of their pod's grace, which may be another.
            await self._engine.kill_later(identity, grace + SLACK)
            return
        found = await self._engine.look(identity) if grace > 0 else None
        slack = SLACK if found is not None and view.is_wrapped(found) else 0.0
        await self._engine.stop(identity, grace + slack)

    async def stop_sandbox(self, identity: Identity) -> None:
        """Lets go of the pod's namespaces, address and ports."""
        await self._engine.stop_sandbox(identity)

    async def delete(self, identity: Identity) -> None:
        """Kills and removes all of it; returns when the engine lists nothing more. Unavailable."""
        await self._group.end_launch(identity, forget=True)
        await self._engine.delete(identity)
        self._hosting.forget(identity.key)

    async def events(self) -> AsyncIterator[Observed]:
        """Pods as their containers start and end, and as what they wait for changes."""
        async with aclosing(self._engine.events()) as events:
            async for one in events:
                if self._is_whole(one):
                    yield await self._view(one)

    async def update_files(self, identity: Identity, volumes: Sequence[Files]) -> None:
        """Replaces the content of these volumes, each at once. NotFound, Unavailable."""
        group = await self._engine.group_of(identity)
        await self._hosting.update_files(identity, volumes, group)
