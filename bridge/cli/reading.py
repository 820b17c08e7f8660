"""Reading containers' logs through a provider, and writing them out as kubectl does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bridge.agent.request import identity
from bridge.cli.select import Found, RunState
from bridge.cli.targets import reached, require
from bridge.errors import Invalid, NotFound, Unavailable
from bridge.local.outcome import pod_over
from bridge.local.session import NODE
from bridge.rpc.v1 import provider_pb2 as pb

if TYPE_CHECKING:
    from bridge.cli.onlooker import Onlooker
    from bridge.pods import Manifest

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of each log. None: no limit. Times are seconds since the epoch."""

    tail: int | None = None
    since: float | None = None
    timestamps: bool = False
    limit_bytes: int | None = None
    previous: bool = False


@dataclass(slots=True)
class Writer:
    """Writes logs to standard output: as they are, or whole lines behind who wrote them."""

    prefix: bool
    _partial: dict[str, bytes] = field(default_factory=dict)

    def write(self, pod: Manifest, container: str, data: bytes) -> None:
        """Bytes of a container's log."""
        if not self.prefix:
            self._out(data)
            return
        who = f"[pod/{pod['metadata']['name']}/{container}] "
        whole, newline, rest = (self._partial.pop(who, b"") + data).rpartition(b"\n")
        if rest:
            self._partial[who] = rest
        if newline:
            self._out(b"".join(who.encode() + line + b"\n" for line in whole.split(b"\n")))

    def end(self, pod: Manifest, container: str) -> None:
        """The log is at its end: a last line without a newline is written now."""
        who = f"[pod/{pod['metadata']['name']}/{container}] "
        if rest := self._partial.pop(who, b""):
            self._out(who.encode() + rest + b"\n")

    @staticmethod
    def _out(data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


# Which containers.


def containers_of(pod: Manifest, wanted: str, *, every: bool) -> tuple[list[str], str]:
    """(containers, what to say of a choice that nobody made). Invalid with the names there are."""
    spec = pod["spec"]
    inits = [one["name"] for one in spec.get("initContainers") or ()]
    mains = [one["name"] for one in spec["containers"]]
    names = inits + mains
    if every:
        return names, ""
    if wanted:
        if wanted in names:
            return [wanted], ""
        listed = ", ".join([*mains, *(f"{one} (init)" for one in inits)])
        name = pod["metadata"]["name"]
        raise Invalid(f'container "{wanted}" is not in pod "{name}"; allowed: {listed}')
    chosen = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER, "")
    if chosen in names:
        return [chosen], ""
    said = ""
    if len(names) > 1:
        listed = ", ".join([*mains, *(f"{one} (init)" for one in inits)])
        said = f'Defaulted container "{mains[0]}" out of: {listed}'
    return mains[:1], said


def status_of(pod: Manifest, container: str) -> Manifest:
    """A container's status; empty where nothing is known of it."""
    status = pod.get("status") or {}
    for group in ("initContainerStatuses", "containerStatuses"):
        for one in status.get(group) or ():
            if one["name"] == container:
                found: Manifest = one
                return found
    return {}


def newest_run(status: Manifest) -> int | None:
    """The number of the newest run of a container that has begun; None: none has."""
    count = int(status.get("restartCount") or 0)
    state = status.get("state") or {}
    if "running" in state:
        return count
    if ended := state.get("terminated"):
        return count if ended.get("startedAt") or status.get("containerID") else None
    return count if (status.get("lastState") or {}).get("terminated") else None


def no_log(pod: Manifest, container: str, *, previous: bool) -> str:
    """Why a container has no log (yet), in kubectl's words; empty where it has one."""
    status = status_of(pod, container)
    name = pod["metadata"]["name"]
    last = (status.get("lastState") or {}).get("terminated")
    if previous:
        if last is not None:
            return ""
        return f'previous terminated container "{container}" in pod "{name}" not found'
    if newest_run(status) is not None:
        return ""
    state = status.get("state") or {}
    if ended := state.get("terminated"):
        said = ": ".join(part for part in (ended.get("reason"), ended.get("message")) if part)
        return f'container "{container}" in pod "{name}" never ran: {said}'
    if pod_over(pod):
        phase = pod["status"]
        said = ": ".join(part for part in (phase.get("reason"), phase.get("message")) if part)
        return f'container "{container}" in pod "{name}" never ran: {said or phase["phase"]}'
    waiting = state.get("waiting") or {"reason": "ContainerCreating"}
    said = ": ".join(part for part in (waiting.get("reason"), waiting.get("message")) if part)
    return f'container "{container}" in pod "{name}" is waiting to start: {said}'


# Reading.


@dataclass(slots=True)
class Reader:
    """Reads logs of one run's pods. `live` holds its objects, kept up to date while it is
    followed."""

    live: Live
    provider: Onlooker
    part: Part
    writer: Writer

    async def check(self, pod: Manifest) -> None:
        """Unsupported where the pod's backend keeps no logs; Unavailable where none answers."""
        await require(self.provider, self.live.state, pod, "logs", "keeps no logs")

    async def read(self, pod: Manifest, container: str) -> None:
        """One log, as far as it goes now. NotFound where there is none (yet)."""
        if words := no_log(pod, container, previous=self.part.previous):
            raise NotFound(words)
        await self._stream(pod, container, self.part, follow=False)
        self.writer.end(pod, container)

    async def follow(self, uid: str, container: str) -> None:
        """One log from now on, through all runs of the container, until its pod is over."""
        shown, part = -1, self.part
        while (pod := self.live.state.pods.get(uid)) is not None:
            number = newest_run(status_of(pod, container))
            if number is not None and number > shown:
                await self._stream(pod, container, part, follow=True)
                shown, part = number, Part(timestamps=part.timestamps)
                continue
            if pod_over(pod) or self.live.ended or part.previous:
                break
            await self.live.changed()
        if pod is not None:
            self.writer.end(pod, container)

    async def _stream(self, pod: Manifest, container: str, part: Part, *, follow: bool) -> None:
        status = status_of(pod, container)
        waits = "waiting" in (status.get("state") or {})
        request = pb.GetContainerLogsRequest(
            pod=identity(self.live.state.run.wanted.uid, NODE, pod),
            container=container,
            follow=follow and not part.previous,
            # While it waits to run again its newest run is the one that kubectl calls previous.
            previous=part.previous and not waits,
            timestamps=part.timestamps,
            tail_lines=part.tail,
            limit_bytes=part.limit_bytes,
        )
        if part.since is not None:
            request.since_time.FromNanoseconds(int(part.since * 1e9))
        async for piece in self.provider.get_container_logs(request):
            self.writer.write(pod, container, piece.content)


@asynccontextmanager
async def reader_of(live: Live, part: Part, writer: Writer) -> AsyncIterator[Reader]:
    """A reader over the run's own provider, once that knows every pod. Unavailable."""
    async with reached(live.state) as provider:
        yield Reader(live, provider, part, writer)


class Live:
    """One run's objects, kept up to date by the process that attends it."""

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.ended = state.attendant is None
        """Nothing of it changes any more."""
        self._news = asyncio.Event()

    async def changed(self) -> None:
        """Returns after the next change, or the end of all changes."""
        if not self.ended:
            await self._news.wait()

    async def run(self) -> None:
        """Takes in changes until the run is over or nobody attends it any more."""
        from bridge.local.control import ControlClient

        try:
            if not self.ended:
                async for change in ControlClient(self.state.run.control).changes():
                    if self.state.apply(change):
                        self._tell()
        except Unavailable:
            # It ended meanwhile: what is known is how it stood.
            pass
        finally:
            self.ended = True
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def pods(
        self, wanted: Callable[[Found], bool], done: Callable[[], bool]
    ) -> AsyncIterator[Manifest]:
        """The pods that are wanted, each once: those that are there, then new ones, until `done`
        says that none will come."""
        seen: set[str] = set()
        while True:
            for uid, pod in list(self.state.pods.items()):
                if uid not in seen and wanted(Found(self.state, pod)):
                    seen.add(uid)
                    yield pod
            if self.ended or done():
                return
            await self.changed()
