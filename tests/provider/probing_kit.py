"""One pod with probes and hooks on the able paper backend, in virtual time."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from support import virtual
from support.paper import Cloud
from support.paper_able import Able, AbleAdapter, Answer

from bridge.provider.backend import Backend
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb

CLUSTER = str(uuid.uuid4())
WHO = pod_pb2.PodIdentity(
    cluster=CLUSTER, node="n", namespace="default", name="p", uid=str(uuid.uuid4())
)
Facts = pod_pb2.PodFacts


def main(**more: Any) -> dict[str, Any]:
    return {"name": "c", "image": "i", **more}


def command(word: str, **more: Any) -> dict[str, Any]:
    return {"exec": {"command": [word]}, **more}


class World:
    """A backend, and the provider over it while `serving`."""

    def __init__(self) -> None:
        self.cloud = Cloud(virtual.clock)
        self.able = Able(virtual.clock)
        self.provider: Provider
        self.tracker: Tracker
        self.facts: Facts | None = None
        self.notices: list[tuple[str, str, str]] = []
        self.shown: list[str] = []
        """What container c went through."""
        self._news = asyncio.Event()

    @asynccontextmanager
    async def serving(self, **limits: int) -> AsyncIterator[World]:
        backend = Backend(AbleAdapter(self.cloud, self.able), limits)
        self.tracker = Tracker([backend], clock=virtual.clock)
        self.provider = Provider(self.tracker)
        tasks = [
            asyncio.create_task(self.provider.run()),
            asyncio.create_task(self._follow(self.provider)),
        ]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert self.able.open_channels == 0

    async def create(self, *containers: dict[str, Any], **spec: Any) -> None:
        await self.provider.create_pod(self.request(*containers, **spec))

    def request(self, *containers: dict[str, Any], **spec: Any) -> pb.CreatePodRequest:
        return pb.CreatePodRequest(
            pod=WHO, manifest=self.manifest(*containers, **spec), generation=1
        )

    def manifest(self, *containers: dict[str, Any], **spec: Any) -> bytes:
        metadata = {"name": "p", "namespace": "default", "uid": WHO.uid}
        pod = {"kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}}
        return json.dumps(pod).encode()

    async def update(self, generation: int, *containers: dict[str, Any], **spec: Any) -> int:
        request = pb.UpdatePodRequest(
            pod=WHO, manifest=self.manifest(*containers, **spec), generation=generation
        )
        return (await self.provider.update_pod(request)).generation

    async def delete(self, grace: int) -> None:
        await self.provider.delete_pod(pb.DeletePodRequest(pod=WHO, grace_period_seconds=grace))

    async def until(self, met: Callable[[Facts], bool]) -> Facts:
        while self.facts is None or not met(self.facts):
            self._news.clear()
            await self._news.wait()
        return self.facts

    async def running(self, restart: int = 0, name: str = "c") -> Facts:
        def met(facts: Facts) -> bool:
            one = named(facts, name)
            return one is not None and one.HasField("running") and one.restart_count == restart

        return await self.until(met)

    async def ended(self) -> Facts:
        return await self.until(lambda facts: facts.stage == pod_pb2.POD_STAGE_ENDED)

    async def _follow(self, provider: Provider) -> None:
        told = (0, 0)
        request = pb.WatchPodsRequest(cluster=CLUSTER, node="n")
        async for message in provider.watch_pods(request):
            for event in message.events:
                if event.WhichOneof("event") != "pod":
                    continue
                self.facts = event.pod
                for one in event.pod.notices:
                    if (moment := (one.time.seconds, one.time.nanos)) > told:
                        told = moment
                        self.notices.append((one.container, one.reason, one.message))
                self._see(named(event.pod, "c"))
            self._news.set()

    def _see(self, one: pod_pb2.ContainerFacts | None) -> None:
        if one is None:
            return
        state = str(one.WhichOneof("state"))
        if state == "running":
            ready = not one.HasField("ready") or one.ready
            started = not one.HasField("started") or one.started
            state += f" {'started' if started else 'starting'} {'ready' if ready else 'unready'}"
        elif state == "waiting":
            state = one.waiting.reason
        if not self.shown or self.shown[-1] != state:
            self.shown.append(state)


def named(facts: Facts, name: str) -> pod_pb2.ContainerFacts | None:
    return next((one for one in facts.containers if one.name == name), None)


def ready(facts: Facts) -> bool:
    one = named(facts, "c")
    return one is not None and one.HasField("running") and one.ready


def in_turn(*answers: Answer) -> Callable[[], Answer]:
    """Each once, the last one for ever."""
    left = list(answers)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


GOOD, BAD = Answer(), Answer(1, b"not yet\n")
