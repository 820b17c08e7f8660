"""The engine with everything taken away that a poor cloud lacks, and given back by the helper.

Nothing is asked of the engine but: run this group of containers, is it over, and what did each
write. Files, order, restarts, probes, codes, messages, exec, attach, port-forward and usage are the
helper's, in the containers: what works here works on any cloud that runs groups of containers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from adapters.engine import addresses, capabilities, helper_state
from adapters.engine.adapter import Adapter
from adapters.engine.client import part
from adapters.engine.group import Group, creating, is_whole
from adapters.engine.images import Image
from adapters.engine.options import Options
from adapters.engine.own_image import OwnImage
from bridge.adapter import Channel, LogOptions, Rate, Support, Usage
from bridge.errors import BridgeError, NotFound, Unavailable, Unsupported, Violation
from bridge.helper import view
from bridge.helper.commands import commands
from bridge.helper.keys import SECRET_LENGTH, pod_key
from bridge.helper.logs import window, within
from bridge.helper.need import lost, wraps
from bridge.helper.payload import Settings
from bridge.helper.program import machine_of, program
from bridge.helper.record import LONGEST, Record, read
from bridge.helper.tunnel import NotConnected, Reported, Tunnels
from bridge.helper.wrap import INSTALL, OURS, WATCH, Process, bare, place_of, wrap
from bridge.registry import RegistryClient
from bridge.workload import Exit, Files, Identity, Key, Observed, Workload

_log = logging.getLogger(__name__)

_YOUNG = 60.0
"""Seconds for which a group that is not whole is taken for one that another provider makes."""
_SPEAKS = 30.0
"""Seconds for which a group's helper is expected to say how its containers are."""
_SLACK = 5.0
"""Seconds beyond a pod's own grace before the engine kills what is left: the helper's record."""
_SETTLED, _AGAIN = 10.0, 0.2
"""Seconds after which an engine has written all of a log, and between looks until then."""
_LIFETIME = timedelta(days=7)
"""How long a pod's own certificate is good."""
_PORTS = (16384, 16384)
"""The first, and how many: below those that connections going out take on most machines."""
_TRIES = 32
_COMING = 20.0
"""Seconds for which somebody who wants something of a helper waits for it to connect."""
_WORDS = 1024
"""Bytes of what a failed install wrote that are shown."""


class Deprived:
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
        self._secret = b""
        self._tunnels = Tunnels(b"\0" * SECRET_LENGTH)
        self._address = ""
        self._hearing: asyncio.Task[None] | None = None
        self._known: dict[Key, Identity] = {}
        self._records: dict[Key, Record | None] = {}
        self._failures: dict[Key, str] = {}
        self._said: dict[Key, Record] = {}
        self._creating: dict[Key, str] = {}
        self._without: dict[Key, str] = {}
        """Why a pod has no helper, of those that were to have one."""
        asks = options.helper_images == "registry"
        self._registry = RegistryClient() if asks else None

    async def open(self) -> None:
        """Finds the engine, and gives it the helper. Unavailable, Unauthorized, Invalid,
        Unsupported."""
        folder = self._options.helper_state
        kept = helper_state.load(
            Path(folder) if folder else helper_state.default_folder(), self._options.owner
        )
        self._secret = kept.secret
        await self._engine.open()
        self._image = await self._own.reference()
        self._engine.launcher.images.own.add(self._image)
        self._tunnels = Tunnels(kept.secret)
        port = await self._listen(kept)
        host = self._options.helper_address or await self._gateway()
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._hearing = asyncio.create_task(self._hear(), name=f"helpers of {self.name}")

    async def _listen(self, kept: helper_state.HelperState) -> int:
        """The port for helpers: the one that is configured, or the one of last time, which stays
        the one to come back to."""
        listen = self._options.helper_listen
        if configured := self._options.helper_port:
            try:
                await self._tunnels.start(listen, configured)
            except OSError:
                raise Unavailable(f"port {configured} of {listen} is taken") from None
            return configured
        for port in (kept.port, *(_PORTS[0] + secrets.randbelow(_PORTS[1]) for _ in range(_TRIES))):
            if not port:
                continue
            with contextlib.suppress(OSError):
                await self._tunnels.start(listen, port)
                if not kept.port:
                    kept.with_port(port)
                return port
            if port == kept.port:
                _log.warning(
                    "%s: port %d is taken: helpers that run already will not be heard until their"
                    " pods are over",
                    self.name,
                    port,
                )
        raise Unavailable(f"no free port for helpers on {listen}: say helper_port")

    async def _gateway(self) -> str:
        """The machine's own address in the network of the pods."""
        name = self._options.network or ("podman" if self.client.podman else "bridge")
        said = await self.client.call("GET", f"networks/{part(name)}")
        for one in (said.get("IPAM") or {}).get("Config") or ():
            if one.get("Gateway"):
                return str(one["Gateway"])
        raise Unavailable(f"the network {name} has no gateway: say helper_address")

    async def _hear(self) -> None:
        """What helpers say is news of their pods."""
        async with aclosing(self._tunnels.events()) as events:
            async for event in events:
                if isinstance(event, Reported):
                    self._said[event.key] = event.record
                if (identity := self._known.get(event.key)) is not None:
                    self._engine.notices.tell(identity)

    async def close(self) -> None:
        """Lets go of the connections. What runs goes on running."""
        if self._hearing is not None:
            self._hearing.cancel()
            await asyncio.gather(self._hearing, return_exceptions=True)
            await self._tunnels.close()
        await self._group.close()
        if self._registry is not None:
            await self._registry.close()
        await self._engine.close()

    def check(self, workload: Workload) -> Sequence[Violation]:
        """What cannot be done of it here."""
        wrong = [*self._engine.check(workload), *_names(workload)]
        return wrong if self._wraps(workload) else [*wrong, *lost(workload)]

    def _wraps(self, workload: Workload) -> bool:
        return wraps(workload, self._options.helper)

    async def run(self, workload: Workload) -> None:
        """Begins to launch it; where it is there, nothing more."""
        self._creating[workload.identity.key] = creating(workload)
        await self._group.run(workload)

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
                _log.warning("pod %s: %s", workload.identity.uid, found.without)
                self._without[workload.identity.key] = found.without
                return bare(workload)
            processes = found.processes
        return wrap(workload, processes, self._settings(workload.identity), self._image)

    def _settings(self, identity: Identity) -> Settings:
        tunnel = self._tunnels.settings(identity, self._address, _LIFETIME)
        return Settings(
            pod_key(self._secret, identity.key),
            host_addresses=addresses.of_host(self.client.address),
            tunnel=tunnel,
        )

    async def list(self) -> Sequence[Observed]:
        """All pods of this owner. Errors as of the engine's calls."""
        # What is on its way now may have arrived by the end of the list, and too late for it.
        coming = self._group.pending()
        found = [one for one in await self._engine.list() if self._is_whole(one)]
        shown = {one.identity.key: one for one in await asyncio.gather(*map(self._view, found))}
        for one in (*self._group.pending(), *coming):
            shown.setdefault(one.identity.key, one)
        for known in (
            self._records,
            self._failures,
            self._known,
            self._without,
            self._creating,
            self._said,
        ):
            for key in known.keys() - shown.keys():
                del known[key]
        return [shown[key] for key in sorted(shown)]

    def _is_whole(self, group: Observed) -> bool:
        """Or it is on its way in, here or from another provider, or was left half made."""
        if is_whole([one.name for one in group.containers]):
            return True
        made = group.accepted_at or 0.0
        return not self._group.has(group.identity) and time.time() > made + _YOUNG

    async def _view(self, group: Observed) -> Observed:
        self._group.advance(group)
        key = group.identity.key
        if not view.is_wrapped(group):
            ended = all(isinstance(one.state, Exit) for one in group.containers)
            words = group.message or self._without.get(key, "")
            return replace(group, ended=group.ended or ended, message=words)
        self._known[key] = group.identity
        if not view.is_over(group):
            said = self._heard(key)
            is_young = time.time() < (group.accepted_at or 0.0) + _SPEAKS
            waits = self._creating.get(key, "ContainerCreating") if is_young else ""
            return view.observed(group, said, final=False, creating=waits)
        if key not in self._records:
            found = await self._record(group.identity)
            if found is None and _may_be_short(group):
                # Until its log is whole the end is not known.
                loop = asyncio.get_running_loop()
                loop.call_later(_AGAIN, self._engine.notices.tell, group.identity)
                own = [one for one in group.containers if not one.name.startswith(OURS)]
                said = self._heard(key)
                return view.observed(replace(group, containers=tuple(own)), said, final=False)
            self._records[key] = found
            first = group.container(INSTALL)
            if self._records[key] is None and first is not None:
                self._failures[key] = await self._tail(group.identity, INSTALL, _WORDS)
        record = self._records[key]
        words = self._failures.get(key, "").strip()
        return view.observed(group, record, final=record is not None, installing=words)

    def _heard(self, key: Key) -> Record | None:
        """What a helper of the pod has said last; it may be gone by now."""
        helpers = self._tunnels.pod(key)
        if helpers is not None and helpers.record is not None:
            self._said[key] = helpers.record
        return self._said.get(key)

    async def _record(self, identity: Identity) -> Record | None:
        log = await self._tail(identity, WATCH, 2 * LONGEST)
        try:
            sealed = log.encode(errors="surrogateescape")
            return read(sealed, pod_key(self._secret, identity.key), identity)
        except BridgeError:
            return None

    async def _tail(self, identity: Identity, container: str, size: int) -> str:
        """The end of what a container of ours wrote."""
        kept = b""
        try:
            async with aclosing(self._engine.logs(identity, container, LogOptions())) as pieces:
                async for piece in pieces:
                    kept = (kept + piece)[-size:]
        except NotFound:
            return ""
        return kept.decode(errors="surrogateescape")

    async def stop(self, identity: Identity, grace: float) -> None:
        """Begins to end it."""
        await self._group.end_launch(identity, forget=False)
        if grace > 0 and await self._tunnels.stop(identity, grace):
            # The engine's own signal would tell them of their pod's grace, which may be another.
            await self._engine.kill_later(identity, grace + _SLACK)
            return
        found = await self._engine.look(identity) if grace > 0 else None
        slack = _SLACK if found is not None and view.is_wrapped(found) else 0.0
        await self._engine.stop(identity, grace + slack)

    async def stop_sandbox(self, identity: Identity) -> None:
        """Lets go of the pod's namespaces, address and ports."""
        await self._engine.stop_sandbox(identity)

    async def delete(self, identity: Identity) -> None:
        """Kills and removes all of it; returns when the engine lists nothing more. Unavailable."""
        await self._group.end_launch(identity, forget=True)
        await self._engine.delete(identity)
        self._records.pop(identity.key, None)
        self._failures.pop(identity.key, None)
        self._without.pop(identity.key, None)
        self._said.pop(identity.key, None)
        self._creating.pop(identity.key, None)

    async def events(self) -> AsyncIterator[Observed]:
        """Pods as their containers start and end, and as what they wait for changes."""
        async with aclosing(self._engine.events()) as events:
            async for one in events:
                if self._is_whole(one):
                    yield await self._view(one)

    async def logs(
        self, identity: Identity, container: str, options: LogOptions
    ) -> AsyncIterator[bytes]:
        """The log of the latest run, or of the one before it. NotFound, Unavailable."""
        found = await self._engine.look(identity)
        if found is None or container.startswith(OURS):
            raise NotFound(f"no container {container} in pod {identity.uid}")
        state = (await self._view(found)).container(container)
        if state is None:
            raise NotFound(f"no run of container {container} in pod {identity.uid}")

        def all_runs(some: LogOptions) -> AsyncGenerator[bytes, None]:
            return self._engine.logs(identity, container, some)

        span = window(state, previous=options.previous)
        async with aclosing(within(all_runs, options, span)) as pieces:
            async for piece in pieces:
                yield piece

    async def exec(
        self, identity: Identity, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> Channel:
        """Starts a command. NotFound, Invalid, Unavailable: no helper is connected."""
        return await self._reach(
            identity,
            container,
            lambda: self._tunnels.exec(identity, container, command, stdin=stdin, tty=tty),
        )

    async def attach(self, identity: Identity, container: str, *, stdin: bool) -> Channel:
        """Joins the container's process. NotFound, Unavailable."""
        return await self._reach(
            identity, container, lambda: self._tunnels.attach(identity, container, stdin=stdin)
        )

    async def dial(self, identity: Identity, port: int, *, inside: bool) -> Channel:
        """One TCP connection to the pod. NotFound, Unavailable."""
        return await self._reach(
            identity, "", lambda: self._tunnels.dial(identity, port, inside=inside)
        )

    async def _reach(
        self, identity: Identity, container: str, ask: Callable[[], Awaitable[Channel]]
    ) -> Channel:
        """What a helper opens. One that has just begun, or has lost us, is waited for a little.
        NotFound where it has ended."""
        try:
            return await ask()
        except NotConnected:
            found = await self._engine.look(identity)
            if found is None:
                raise NotFound(f"no pod {identity.uid}") from None
            if not view.is_wrapped(found):
                raise Unsupported("the pod has no helper, which would have to do that") from None
            shown = await self._view(found)
            state = shown.container(container)
            if shown.ended or (container and (state is None or isinstance(state.state, Exit))):
                raise NotFound(f"{container or 'the pod'} does not run") from None
            if not await self._tunnels.arrival(identity, container, _COMING):
                raise
        return await ask()

    async def stats(self, identities: Sequence[Identity]) -> Mapping[str, Sequence[Usage]]:
        """By pod UID, of the pods whose helpers are connected."""
        return await self._tunnels.stats(identities)

    async def update_files(self, identity: Identity, volumes: Sequence[Files]) -> None:
        """Replaces the content of these volumes, each at once. NotFound, Unavailable."""
        group = await self._engine.group_of(identity)
        await self._tunnels.update_files(identity, [place_of(one, group) for one in volumes])


def _may_be_short(group: Observed) -> bool:
    """Whether `watch` came to its own end, so recently that its log may not be whole."""
    watch = group.container(WATCH)
    if watch is None or not isinstance(watch.state, Exit) or watch.state.code:
        return False
    return time.time() < watch.state.finished_at + _SETTLED


def _names(workload: Workload) -> list[Violation]:
    words = f'names that begin with "{OURS}" are the helper\'s here'
    found = [one.name for one in (*workload.containers, *workload.volumes)]
    return [Violation("spec", f"{name}: {words}") for name in found if name.startswith(OURS)]
