"""A backend on paper: containers that end by script, in memory, with faults on order.

The `Cloud` outlives the adapters that are made over it, as a real one outlives its providers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from bridge.adapter import YES, LogOptions, Rate, Support
from bridge.errors import BridgeError, NotFound, Violation
from bridge.workload import (
    ContainerState,
    Exit,
    Identity,
    Key,
    Observed,
    Running,
    Workload,
)


@dataclass
class Cloud:
    """What is true. `script` says how each run ends: (container, restart) -> (seconds, code)."""

    clock: Callable[[], float]
    script: dict[tuple[str, int], tuple[float, int]] = field(default_factory=dict)
    pods: dict[Key, Observed] = field(default_factory=dict)
    runs: list[tuple[str, str, int]] = field(default_factory=list)
    """(pod name, container, restart) in the order of their starts."""
    launches: list[str] = field(default_factory=list)
    kills: list[tuple[float, str, int, float]] = field(default_factory=list)
    """(when, container, restart, grace) of each kill that was ordered."""
    dies_after: float = 0.1
    """Seconds from a kill to the end."""
    listeners: list[asyncio.Queue[Observed]] = field(default_factory=list)
    faults: dict[str, list[BridgeError]] = field(default_factory=dict)
    """By call: the errors of its next calls. "run!" performs and then raises."""
    list_takes: float = 0.0
    silent: bool = False
    """No events: only lists tell."""

    def fail(self, call: str) -> None:
        if errors := self.faults.get(call):
            raise errors.pop(0)

    def tell(self, key: Key) -> None:
        if not self.silent:
            for queue in self.listeners:
                queue.put_nowait(self.pods[key])

    def change(self, key: Key, state: ContainerState) -> None:
        pod = self.pods[key]
        others = tuple(one for one in pod.containers if one.name != state.name)
        states = (*others, state)
        ended = all(isinstance(one.state, Exit) for one in states)
        self.pods[key] = replace(pod, containers=states, ended=ended)
        self.tell(key)

    def end(self, key: Key, container: str, restart: int, code: int, signal: int = 0) -> None:
        pod = self.pods.get(key)
        state = pod.container(container) if pod else None
        if state is None or state.restart != restart or isinstance(state.state, Exit):
            return
        assert isinstance(state.state, Running)
        end = Exit(
            code,
            self.clock(),
            "Completed" if code == 0 else "Error",
            signal,
            started_at=state.state.started_at,
            container_id=state.container_id,
        )
        self.change(key, replace(state, state=end))


class PaperAdapter:
    """Starts each container by itself."""

    type: ClassVar[str] = "paper"
    simulated: ClassVar[bool] = False
    capabilities: ClassVar[Mapping[str, Support]] = {"spec": YES}
    rates: ClassVar[Mapping[str, Rate]] = {}

    def __init__(self, cloud: Cloud, name: str = "paper") -> None:
        self.cloud = cloud
        self.name = name
        self._queue: asyncio.Queue[Observed] = asyncio.Queue()

    async def open(self) -> None:
        self.cloud.fail("open")
        self.cloud.listeners.append(self._queue)

    async def close(self) -> None:
        if self._queue in self.cloud.listeners:
            self.cloud.listeners.remove(self._queue)

    def check(self, workload: Workload) -> Sequence[Violation]:
        return ()

    async def run(self, workload: Workload) -> None:
        self.cloud.fail("run")
        key = workload.identity.key
        if key not in self.cloud.pods:
            self.cloud.launches.append(workload.identity.name)
            self.cloud.pods[key] = Observed(
                workload.identity, pod_ips=("10.0.0.1",), accepted_at=self.cloud.clock()
            )
        self.cloud.fail("run!")

    async def list(self) -> Sequence[Observed]:
        self.cloud.fail("list")
        found = list(self.cloud.pods.values())
        await asyncio.sleep(self.cloud.list_takes)
        return found

    async def stop(self, identity: Identity, grace: float) -> None:
        self.cloud.fail("stop")
        for state in self.cloud.pods.get(identity.key, Observed(identity)).containers:
            self._signal(identity.key, state)

    async def stop_sandbox(self, identity: Identity) -> None:
        self.cloud.fail("stop_sandbox")
        if identity.key in self.cloud.pods:
            self.cloud.pods[identity.key] = replace(self.cloud.pods[identity.key], pod_ips=())
            self.cloud.tell(identity.key)

    async def delete(self, identity: Identity) -> None:
        self.cloud.fail("delete")
        self.cloud.pods.pop(identity.key, None)

    async def events(self) -> AsyncIterator[Observed]:
        while True:
            yield await self._queue.get()

    async def logs(
        self, identity: Identity, container: str, options: LogOptions
    ) -> AsyncIterator[bytes]:
        if identity.key not in self.cloud.pods:
            raise NotFound("no log")
        yield f"hello from {container}\n".encode()

    async def start(self, workload: Workload, container: str, restart: int) -> None:
        self.cloud.fail("start")
        key = workload.identity.key
        if key not in self.cloud.pods:
            raise NotFound("no such pod")
        known = self.cloud.pods[key].container(container)
        if known is not None and known.restart >= restart:
            return
        self.cloud.runs.append((workload.identity.name, container, restart))
        now = self.cloud.clock()
        previous = known.state if known is not None and isinstance(known.state, Exit) else None
        self.cloud.change(
            key,
            ContainerState(
                container,
                Running(now),
                restart=restart,
                previous=previous,
                container_id=f"paper://{container}.{restart}",
                image=workload.container(container).image,
            ),
        )
        if (script := self.cloud.script.get((container, restart))) is not None:
            seconds, code = script
            loop = asyncio.get_running_loop()
            loop.call_later(seconds, self.cloud.end, key, container, restart, code)
        self.cloud.fail("start!")

    async def kill(self, identity: Identity, container: str, grace: float) -> None:
        self.cloud.fail("kill")
        pod = self.cloud.pods.get(identity.key)
        if pod is not None and (state := pod.container(container)) is not None:
            self.cloud.kills.append((self.cloud.clock(), container, state.restart, grace))
            self._signal(identity.key, state)

    def _signal(self, key: Key, state: ContainerState) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(
            self.cloud.dies_after, self.cloud.end, key, state.name, state.restart, 143, 15
        )
