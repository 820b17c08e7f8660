"""The poorest cloud that runs groups, on paper, and an adapter for it: all that one has to write.

A group is made by its name, and made anew by the same call once more. A list says nothing of how
groups are, and what is deleted is there a little longer. Nothing outlives a group, and what ran in
it wrote nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

from bridge.adapter import LogOptions, Rate, Support
from bridge.errors import Ambiguous, NotFound, Unavailable, Unsupported, Violation
from bridge.groups import capabilities, pods
from bridge.groups.adapter import Grouped
from bridge.groups.checks import Needs
from bridge.groups.discovery import Discovery
from bridge.groups.due import Due
from bridge.groups.launches import Launches
from bridge.groups.looks import Looks
from bridge.groups.options import GroupOptions
from bridge.groups.pods import Ending, Made, Pods
from bridge.groups.prepare import Preparation
from bridge.registry import RegistryClient
from bridge.workload import ContainerState, Exit, Identity, Observed, Running, Waiting, Workload

_STEP = 0.02
"""Seconds that the cloud takes for anything."""


@dataclass(frozen=True)
class Group:
    """As the cloud shows it."""

    name: str
    tags: Mapping[str, str]
    command: Sequence[str]
    made_at: float
    state: str = "pending"
    """Then "running" and "ended", or "failed" where there was no room; "deleting" at last."""
    started_at: float | None = None
    ended_at: float | None = None
    code: int = 0


class PaperCloud:
    """One account. `lost`: so many answers of calls that make a group are lost; `full`: so many
    groups never start; `hidden`: what was made is not found yet."""

    def __init__(self) -> None:
        self.lost = self.full = 0
        self.hidden = False
        self.made = Counter[str]()
        self._groups: dict[str, Group] = {}

    async def put(self, name: str, tags: Mapping[str, str], command: Sequence[str]) -> None:
        """Makes a group, or makes it anew."""
        await asyncio.sleep(_STEP)
        self.made[name] += 1
        state = "failed" if self.full else "pending"
        self.full = max(0, self.full - 1)
        self._groups[name] = Group(name, tags, command, time.time(), state)
        if self.lost:
            self.lost -= 1
            raise Ambiguous("the answer was lost")

    async def get(self, name: str) -> Group:
        """One group, whole. NotFound."""
        await asyncio.sleep(_STEP)
        found = self._groups.get(name)
        if found is None or self.hidden:
            raise NotFound(name)
        now = found
        if found.state == "pending":
            now = replace(found, state="running", started_at=time.time())
        elif found.state == "running" and found.command[0] == "exit":
            now = self._end(found, int(found.command[1]))
        self._groups[name] = now
        if now.state == "deleting":
            # It is there for this once more.
            del self._groups[name]
        return now

    async def list(self) -> Sequence[tuple[str, Mapping[str, str]]]:
        """(name, tags) of all groups."""
        await asyncio.sleep(_STEP)
        there = [one for one in self._groups.values() if one.state != "deleting"]
        return [] if self.hidden else [(one.name, one.tags) for one in there]

    async def stop(self, name: str) -> None:
        """Ends what runs in a group, which stays. NotFound."""
        group = await self.get(name)
        if group.state == "running":
            self._groups[name] = self._end(group, 143)

    async def delete(self, name: str) -> None:
        """Begins to remove a group. NotFound."""
        group = await self.get(name)
        self._groups[name] = replace(group, state="deleting")

    def vanish(self, name: str) -> None:
        """Somebody has removed it."""
        del self._groups[name]

    def names(self) -> Iterable[str]:
        """Of all that costs something."""
        return list(self._groups)

    def _end(self, group: Group, code: int) -> Group:
        return replace(group, state="ended", ended_at=time.time(), code=code)


@dataclass(slots=True)
class GroupPod(pods.Pod):
    """What the cloud has said of its group."""

    LOST: ClassVar[str] = "the cloud no longer has its group"

    found: Group | None = None
    taken_on: float | None = None
    doubted_at: float | None = None
    """When a group was asked for, and nobody answered."""

    @property
    def has_group(self) -> bool:
        return self.found is not None

    @property
    def is_settled(self) -> bool:
        return self.doubted_at is None

    @property
    def is_stopped(self) -> bool:
        return self.found is not None and self.found.state in ("ended", "failed", "deleting")

    @property
    def never_started(self) -> bool:
        return self.found is not None and self.found.state == "failed"

    @property
    def created_at(self) -> float:
        return self.found.made_at if self.found else 0.0

    @property
    def started_at(self) -> float | None:
        return self.found.started_at if self.found else None

    @property
    def accepted_at(self) -> float | None:
        return self.taken_on

    @property
    def hard_stop(self) -> float | None:
        return None

    @property
    def fs_group(self) -> int | None:
        return None

    @property
    def made(self) -> tuple[Made, ...]:
        return self.containers

    def failure(self) -> Waiting:
        return Waiting("OutOfCapacity", "there is no room")

    def shown(self) -> Observed:
        assert self.found is not None
        group, (one,) = self.found, self.containers
        state: Waiting | Running | Exit = Waiting("ContainerCreating")
        if group.ended_at is not None:
            signal = 15 if group.code == 143 else 0
            reason = "Error" if group.code else "Completed"
            state = Exit(group.code, group.ended_at, reason, signal, started_at=group.started_at)
        elif group.started_at is not None:
            state = Running(group.started_at)
        shown = ContainerState(
            one.name, state, container_id=f"paper-groups://{group.name}", image=one.image
        )
        return Observed(
            self.identity, (shown,), ended=self.is_stopped, pod_ips=("192.0.2.1",),
            accepted_at=self.taken_on,
        )  # fmt: skip


def tags_of(pod: GroupPod) -> dict[str, str]:
    """What outlives whoever has launched it."""
    return {
        "identity": json.dumps(asdict(pod.identity)),
        "accepted": str(pod.taken_on),
        "containers": json.dumps([asdict(one) for one in pod.made]),
    }


def pod_of(tags: Mapping[str, str]) -> GroupPod:
    """The pod whose group has these tags."""
    made = tuple(Made(**one) for one in json.loads(tags["containers"]))
    pod = GroupPod(Identity(**json.loads(tags["identity"])), made)
    pod.taken_on = float(tags["accepted"])
    return pod


class Groups:
    """The cloud as `GroupCloud`. `settled`: seconds by which a group that was made is found."""

    def __init__(self, cloud: PaperCloud, preparation: Preparation, settled: float) -> None:
        self._cloud = cloud
        self._preparation = preparation
        self._settled = settled

    async def launch(self, pod: GroupPod) -> bool:
        if pod.never_started:
            await self.remove(pod)
            pod.found = None
        if await self._found(pod):
            return True
        if not pod.is_settled:
            raise Unavailable("nobody knows yet whether it was made")
        ready = await self._preparation.prepared(pod, "amd64")
        pod.taken_on = pod.taken_on or time.time()
        pod.doubted_at = time.time()
        await self._cloud.put(pod.mark, tags_of(pod), ready.made.containers[0].command)
        pod.doubted_at = None
        return await self._found(pod)

    async def find_out(self, pod: GroupPod) -> None:
        if not pod.has_group and not await self._found(pod) and not pod.is_settled:
            raise Unavailable("nobody knows yet whether it was made")

    async def end(self, pod: GroupPod, why: Ending) -> None:
        if why is Ending.STOPPED or why is Ending.HARD_STOP:
            await self._cloud.stop(pod.mark)
        else:
            await self._cloud.delete(pod.mark)

    async def remove(self, pod: GroupPod) -> None:
        """Returns once its group is gone."""
        with contextlib.suppress(NotFound):
            await self._cloud.delete(pod.mark)
            while True:
                await self._cloud.get(pod.mark)

    async def _found(self, pod: GroupPod) -> bool:
        """Whether its group is there. What is not found for long enough was never made."""
        try:
            pod.found = await self._cloud.get(pod.mark)
        except NotFound:
            if pod.doubted_at is not None and time.time() > pod.doubted_at + self._settled:
                pod.doubted_at = None
            return False
        pod.doubted_at = None
        return True


class Poll(Looks):
    """One look a group."""

    def __init__(self, cloud: PaperCloud, known: Pods[GroupPod], due: Due[GroupPod]) -> None:
        super().__init__(0.05)
        self._cloud = cloud
        self._known = known
        self._due = due

    async def look(self, wanted: set[str]) -> None:
        some = [pod for pod in self._known if pod.mark in wanted or not pod.is_stopped]
        await asyncio.gather(*map(self.look_again, some))

    async def look_again(self, pod: GroupPod) -> None:
        if pod.found is None or pod.launch is not None or pod.missing:
            return None
        try:
            found = await self._cloud.get(pod.mark)
        except NotFound:
            pod.missing = True
            return self._known.tell(pod)
        if found != pod.found:
            pod.found = found
            self._known.tell(pod)
        return self._due.advance(pod)


class Search(Discovery):
    """One list."""

    def __init__(self, cloud: PaperCloud, known: Pods[GroupPod]) -> None:
        super().__init__(0.0)
        self._cloud = cloud
        self._known = known

    async def search(self) -> None:
        for name, tags in await self._cloud.list():
            if self._known.get(name) is None:
                pod = pod_of(tags)
                with contextlib.suppress(NotFound):
                    pod.found = await self._cloud.get(name)
                    self._known.add(pod)
        for pod in self._known:
            if pod.missing and pod.launch is None:
                self._known.forget(pod)


class Adapter(Grouped[GroupPod]):
    type: ClassVar[str] = "paper-groups"
    simulated: ClassVar[bool] = True
    capabilities: ClassVar[Mapping[str, Support]] = capabilities.TABLE
    rates: ClassVar[Mapping[str, Rate]] = {}
    _looks: Poll

    def __init__(self, name: str, cloud: PaperCloud, options: GroupOptions) -> None:
        super().__init__(name, settled=0.1, clock=time.time)
        self._cloud = cloud
        self._options = options
        self._registry = RegistryClient()
        needs = Needs(frozenset(), lambda workload: ())
        preparation = Preparation(options, needs, self._hosting, self._registry)
        self._groups = groups = Groups(cloud, preparation, settled=60.0)
        self._launches = Launches(groups, self._pods)
        self._due = Due(
            cloud=groups,
            pods=self._pods,
            launches=self._launches,
            start_deadline=options.start_deadline,
            look_at=self._look_at,
            clock=time.time,
        )
        self._looks = Poll(cloud, self._pods, self._due)
        self._discovery = Search(cloud, self._pods)

    async def open(self) -> None:
        await self._begin(self._options, self._helper_state(self._options, "paper"))

    async def close(self) -> None:
        await super().close()
        await self._registry.close()

    def check(self, workload: Workload) -> Sequence[Violation]:
        return ()

    def _taken_on(self, workload: Workload) -> GroupPod:
        return GroupPod(workload.identity, Made.all_of(workload), workload)

    async def _catch_up(self) -> None:
        await self._discovery.discover()
        await asyncio.gather(*map(self._looks.look_again, self._pods))

    async def _remove(self, pod: GroupPod) -> None:
        await self._groups.remove(pod)

    async def tail(self, identity: Identity, container: str, size: int) -> bytes:
        return b""

    async def lines(
        self, identity: Identity, container: str, options: LogOptions
    ) -> AsyncGenerator[bytes, None]:
        raise Unsupported("nobody here writes")
        yield b""
