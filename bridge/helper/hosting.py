"""Pods with the helper in them, on a cloud that runs groups of containers: the provider's half.

A backend launches what `bridge.helper.wrap` made of a pod, and lists it as its cloud shows it. All
else is the same on every cloud, and here: what the helpers say and leave behind, what a pod then
looks like, and what somebody wants to do in its containers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol

from bridge.adapter import Channel, LogOptions, Usage
from bridge.errors import BridgeError, Invalid, NotFound, Unavailable, Unsupported, Violation
from bridge.helper import view
from bridge.helper.keys import SECRET_LENGTH, pod_key
from bridge.helper.logs import Marks, window, within
from bridge.helper.payload import Settings
from bridge.helper.record import LONGEST, Record, read
from bridge.helper.state import HelperState
from bridge.helper.tunnel import NotConnected, Reported, Tunnels
from bridge.helper.wrap import INSTALL, OURS, WATCH, place_of
from bridge.workload import (
    ContainerState,
    Exit,
    Files,
    Identity,
    Key,
    Observed,
    Role,
    Waiting,
    Workload,
)

_log = logging.getLogger(__name__)

SLACK = 5.0
"""Seconds beyond a pod's own grace before a cloud kills what is left: the helper's record."""
_SPEAKS = 30.0
"""Seconds for which a group's helper is expected to say how its containers are."""
_RETURNS = 60.0
"""Seconds after a provider's start for which helpers that run already are expected to connect: each
tries every 30 at least, and a connection may take its time."""
_SETTLED, _AGAIN = 10.0, 0.2
"""Seconds after which a cloud has all of a log, and between looks until then."""
_LIFETIME, _MARGIN = timedelta(days=7), timedelta(days=1)
"""How long a pod's own certificate is good at least, and beyond the time that the pod may run."""
_PORTS = (16384, 16384)
"""The first, and how many: below those that connections going out take on most machines."""
_TRIES = 32
_COMING = 20.0
"""Seconds for which somebody who wants something of a helper waits for it to connect."""
_WORDS = 1024
"""Bytes of what a helper that failed wrote that are shown."""
_TELLS = 2.0
"""Seconds within which `watch` tells of a container's end, where that has told it."""
_LEAVE = 30.0
"""Seconds that containers are given to end when their pod cannot become whole."""


class Cloud(Protocol):
    """What is asked of the backend. Errors as of an adapter's calls."""

    async def look(self, identity: Identity) -> Observed | None:
        """The group as the cloud shows it; None: there is none."""

    async def tail(self, identity: Identity, container: str, size: int) -> bytes:
        """The end of what a container wrote; empty where nothing is to be read."""

    def tell(self, identity: Identity) -> None:
        """The pod may have changed: somebody should look again."""

    def lines(
        self, identity: Identity, container: str, options: LogOptions
    ) -> AsyncGenerator[bytes, None]:
        """A container's whole log, of all its runs."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where helpers connect to. `listen`: the address of this machine that is listened at. `port`
    0: any that is free, and after a restart the same one. `host`: what the helpers dial."""

    listen: str
    port: int
    host: str


@dataclass(slots=True)
class _Pod:
    """What is known of one pod besides what its cloud says."""

    identity: Identity | None = None
    creating: str = ""
    """What its containers wait for until the helper speaks; empty: it was not launched here."""
    without: str = ""
    """Why it has no helper where it was to have one."""
    said: Record | None = None
    """What its helper said last."""
    is_read: bool = False
    """Its end is known: `record` is what its helper left, None where that was nothing."""
    record: Record | None = None
    failures: dict[str, Exit] = field(default_factory=dict)
    """Helpers that never came to their work, by container."""
    mute: dict[str, float] = field(default_factory=dict)
    """Containers of which only the cloud says that they ended, and since when (monotonic)."""
    is_ended: bool = False
    """It was ended for that."""


class Hosting:
    """The helpers of one backend's pods."""

    def __init__(
        self,
        name: str,
        cloud: Cloud,
        *,
        settled: float = _SETTLED,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`settled`: seconds after a container's end by which the cloud has all of its log.
        `clock`: the cloud's, which its times are of."""
        self._name = name
        self._clock = clock
        self._cloud = cloud
        self._settled = settled
        self._secret = b""
        self._tunnels = Tunnels(b"\0" * SECRET_LENGTH)
        self._address = ""
        self._acts = True
        self._hearing: asyncio.Task[None] | None = None
        self._pods: dict[Key, _Pod] = {}
        self._returning = 0.0
        """Until when (monotonic) helpers come back that connected to an earlier provider."""

    async def open(self, kept: HelperState, door: Door | None, *, acts: bool = True) -> None:
        """Lets helpers connect; None: none can, and their records tell all. `acts` False: it is
        another process that they connect to, and that ends pods. Unavailable: no port is free."""
        self._secret = kept.secret
        self._acts = acts
        self._tunnels = Tunnels(kept.secret)
        if door is not None:
            port = await self._listen(kept, door)
            self._address = f"[{door.host}]:{port}" if ":" in door.host else f"{door.host}:{port}"
        self._hearing = asyncio.create_task(self._hear(), name=f"helpers of {self._name}")

    async def _listen(self, kept: HelperState, door: Door) -> int:
        """The port that is configured, or the one of last time, which stays the one to come back
        to."""
        if door.port:
            try:
                await self._tunnels.start(door.listen, door.port)
            except OSError:
                raise Unavailable(f"port {door.port} of {door.listen} is taken") from None
            self._returning = time.monotonic() + _RETURNS
            return door.port
        for port in (kept.port, *(_PORTS[0] + secrets.randbelow(_PORTS[1]) for _ in range(_TRIES))):
            if not port:
                continue
            with contextlib.suppress(OSError):
                await self._tunnels.start(door.listen, port)
                if not kept.port:
                    kept.with_port(port)
                elif port == kept.port:
                    self._returning = time.monotonic() + _RETURNS
                return port
            if port == kept.port:
                _log.warning(
                    "%s: port %d is taken: helpers that run already will not be heard until their"
                    " pods are over",
                    self._name,
                    port,
                )
        raise Unavailable(f"no free port for helpers on {door.listen}: configure one")

    async def _hear(self) -> None:
        """What helpers say is news of their pods."""
        async with aclosing(self._tunnels.events()) as events:
            async for event in events:
                pod = self._pods.setdefault(event.key, _Pod())
                if isinstance(event, Reported):
                    pod.said = event.record
                if pod.identity is not None:
                    self._cloud.tell(pod.identity)

    async def close(self) -> None:
        """Lets go of the connections. What runs goes on running."""
        if self._hearing is not None:
            self._hearing.cancel()
            await asyncio.gather(self._hearing, return_exceptions=True)
            await self._tunnels.close()

    def settings(self, workload: Workload, host_addresses: Sequence[str] = ()) -> Settings:
        """What the helpers of a pod are given: their key, and the way here where there is one."""
        tunnel = None
        if self._address:
            longest = timedelta(seconds=workload.hard_stop or 0.0) + _MARGIN
            lifetime = max(_LIFETIME, longest)
            tunnel = self._tunnels.settings(workload.identity, self._address, lifetime)
        key = pod_key(self._secret, workload.identity.key)
        return Settings(key, host_addresses=tuple(host_addresses), tunnel=tunnel)

    def launching(self, workload: Workload) -> None:
        """The pod is on its way to the cloud."""
        pod = self._pods.setdefault(workload.identity.key, _Pod())
        pod.creating = creating(workload)

    def without(self, identity: Identity, words: str) -> None:
        """The pod goes without a helper, and `words` say why and what is lost."""
        _log.warning("pod %s: %s", identity.uid, words)
        self._pods.setdefault(identity.key, _Pod()).without = words

    def pods(self) -> set[Key]:
        """The pods of which anything is known."""
        return {*self._pods}

    def forget(self, key: Key) -> None:
        """The pod is gone: another run may come under its key."""
        self._pods.pop(key, None)

    async def view(self, group: Observed) -> Observed:
        """The pod, from the group as the cloud shows it."""
        pod = self._pods.setdefault(group.identity.key, _Pod())
        if not view.is_wrapped(group):
            ended = all(isinstance(one.state, Exit) for one in group.containers)
            words = group.message or pod.without
            return replace(group, ended=group.ended or ended, message=words)
        pod.identity = group.identity
        if not view.is_over(group):
            is_young = self._clock() < (group.accepted_at or 0.0) + _SPEAKS
            waits = (pod.creating or "ContainerCreating") if is_young else ""
            returning = not pod.creating and time.monotonic() < self._returning
            said = self._heard(pod)
            if said is not None and self._acts:
                await self._give_up(pod, group, said)
            return view.observed(
                group,
                said,
                final=False,
                failures=pod.failures,
                creating=waits,
                returning=returning,
            )
        if not pod.is_read and not await self._read(pod, group):
            # Until its log is whole the end is not known.
            loop = asyncio.get_running_loop()
            loop.call_later(_AGAIN, self._cloud.tell, group.identity)
            own = [one for one in group.containers if not one.name.startswith(OURS)]
            return view.observed(
                replace(group, containers=tuple(own)), self._heard(pod), final=False
            )
        final = pod.record is not None
        shown = view.observed(group, pod.record, final=final, failures=pod.failures)
        # What befell its containers is told live alone.
        return replace(shown, notices=() if pod.said is None else pod.said.notices)

    async def _read(self, pod: _Pod, group: Observed) -> bool:
        """Reads what a pod's helper left. False: there may be more to come, or it cannot be read
        just now, which is no reason to tell nothing of all other pods."""
        try:
            found = await self._record(group.identity)
            if found is None and self._may_be_short(group):
                return False
            pod.failures.clear()
            for one in group.containers:
                if view.is_mute(one, found) or (found is None and one.name == INSTALL):
                    await self._learn_failure(pod, group.identity, one)
        except BridgeError as error:
            _log.info("pod %s: its record: %s", group.identity.uid, error)
            return False
        pod.record, pod.is_read = found, True
        return True

    async def _learn_failure(self, pod: _Pod, who: Identity, container: ContainerState) -> None:
        """What it wrote, where that was a helper that never came to its work. Errors as of the
        cloud's calls."""
        wrote = await self._cloud.tail(who, container.name, _WORDS)
        if (end := view.failure(container, wrote)) is not None:
            _log.warning("pod %s: %s: %s", who.uid, container.name, end.message)
            pod.failures[container.name] = end

    async def _give_up(self, pod: _Pod, group: Observed, said: Record) -> None:
        """Ends a pod that cannot become what was asked for: its others would wait for a container
        that never comes."""
        now, who = time.monotonic(), group.identity
        mute = [one for one in group.containers if view.is_mute(one, said)]
        pod.mute = {one.name: pod.mute.get(one.name, now) for one in mute}
        for one in mute:
            age = now - pod.mute[one.name]
            if one.name in pod.failures or age > self._settled + _TELLS:
                continue
            asyncio.get_running_loop().call_later(_TELLS, self._cloud.tell, who)
            if age >= _TELLS:
                try:
                    await self._learn_failure(pod, who, one)
                except BridgeError as error:
                    _log.info("pod %s: %s", who.uid, error)
        if pod.failures and not pod.is_ended:
            pod.is_ended = await self._tunnels.stop(who, _LEAVE)

    def _heard(self, pod: _Pod) -> Record | None:
        """What a helper of the pod has said last; it may be gone by now."""
        helpers = None if pod.identity is None else self._tunnels.pod(pod.identity.key)
        if helpers is not None and helpers.record is not None:
            pod.said = helpers.record
        return pod.said

    async def _record(self, identity: Identity) -> Record | None:
        sealed = await self._cloud.tail(identity, WATCH, 2 * LONGEST)
        try:
            return read(sealed, pod_key(self._secret, identity.key), identity)
        except (Invalid, NotFound):
            return None

    def _may_be_short(self, group: Observed) -> bool:
        """Whether `watch` came to its own end, so recently that its log may not be whole."""
        watch = group.container(WATCH)
        if watch is None or not isinstance(watch.state, Exit) or watch.state.code:
            return False
        return self._clock() < watch.state.finished_at + self._settled

    async def stop(self, identity: Identity, grace: float) -> bool:
        """Has the pod's helpers end it; False: none is connected, or there is no grace."""
        return grace > 0 and await self._tunnels.stop(identity, grace)

    async def logs(
        self, identity: Identity, container: str, options: LogOptions
    ) -> AsyncGenerator[bytes, None]:
        """The log of the latest run, or of the one before it. NotFound, Unavailable."""
        found = await self._cloud.look(identity)
        if found is None or container.startswith(OURS):
            raise NotFound(f"no container {container} in pod {identity.uid}")
        # While its helper is not back yet nobody knows which run is the latest: then it is all.
        state = (await self.view(found)).container(container) or found.container(container)
        if state is None:
            raise NotFound(f"no run of container {container} in pod {identity.uid}")

        def all_runs(some: LogOptions) -> AsyncGenerator[bytes, None]:
            return self._cloud.lines(identity, container, some)

        span = window(state, previous=options.previous)
        marks = Marks(pod_key(self._secret, identity.key), identity, container)
        async with aclosing(within(all_runs, options, span, marks)) as pieces:
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
        NotFound where it has ended, also while it was asked, or its pod is on its way in."""
        try:
            return await ask()
        except Unavailable as error:
            found = await self._cloud.look(identity)
            if found is None:
                raise NotFound(f"no pod {identity.uid}") from None
            if (why := _waits(found, container)) is not None:
                name = container or "the pod"
                raise NotFound(f"{name} has not started yet: {why.reason}") from None
            if not view.is_wrapped(found):
                raise Unsupported("the pod has no helper, which would have to do that") from None
            shown = await self.view(found)
            state = shown.container(container)
            unknown = bool(container) and found.container(container) is None
            if shown.ended or unknown or (state is not None and isinstance(state.state, Exit)):
                raise NotFound(f"{container or 'the pod'} does not run") from None
            if not isinstance(error, NotConnected):
                # It may have begun what it was asked for.
                raise
            if not self._acts:
                raise Unavailable("only who attends the pod can reach its helper") from None
            if not self._address:
                words = "no helper can connect to this provider: its backend has no tunnel"
                raise Unsupported(words) from None
            if not await self._tunnels.arrival(identity, container, _COMING):
                raise
        return await ask()

    async def stats(self, identities: Sequence[Identity]) -> Mapping[str, Sequence[Usage]]:
        """By pod UID, of the pods whose helpers are connected."""
        return await self._tunnels.stats(identities)

    async def update_files(
        self, identity: Identity, volumes: Sequence[Files], group: int | None
    ) -> None:
        """Replaces the content of these volumes, each at once; `group`: the pod's fsGroup.
        NotFound, Unavailable."""
        await self._tunnels.update_files(identity, [place_of(one, group) for one in volumes])


def _waits(group: Observed, container: str) -> Waiting | None:
    """What the container waits for in a pod of which the cloud runs nothing yet; "": any of its
    containers. Until then nobody can see from the group whether the helper will be in it."""
    if view.is_wrapped(group):
        return None
    states = [one.state for one in group.containers if container in ("", one.name)]
    waiting = [one for one in states if isinstance(one, Waiting)]
    return waiting[0] if waiting and len(waiting) == len(states) else None


def creating(workload: Workload) -> str:
    """What a pod's containers wait for before they begin, as the kubelet calls it."""
    inits = any(one.role is not Role.MAIN for one in workload.containers)
    return "PodInitializing" if inits else "ContainerCreating"


def names(workload: Workload) -> Sequence[Violation]:
    """Containers and volumes whose names are the helper's own."""
    words = f'names that begin with "{OURS}" are the helper\'s here'
    found = [one.name for one in (*workload.containers, *workload.volumes)]
    return [Violation("spec", f"{name}: {words}") for name in found if name.startswith(OURS)]
