"""Pods of backends that run them whole: what the tracker itself orders and tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from support import virtual
from support.paper import Cloud, PaperAdapter
from test_provider import Watcher, a_pod, asked

from bridge.errors import Violation
from bridge.provider.backend import Backend
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.workload import Identity, Observed, Workload


class Whole:
    """Starts all containers of a pod at once; asked to end, each leaves with 0 after 3 seconds."""

    type, simulated, name = "paper", False, "paper"
    capabilities, rates = PaperAdapter.capabilities, PaperAdapter.rates

    def __init__(self, inner: PaperAdapter) -> None:
        self._inner = inner

    async def open(self) -> None:
        await self._inner.open()

    async def close(self) -> None:
        await self._inner.close()

    def check(self, _: Workload) -> Sequence[Violation]:
        return ()

    async def run(self, workload: Workload) -> None:
        await self._inner.run(workload)
        for one in workload.containers:
            await self._inner.start(workload, one.name, 0)

    async def list(self) -> Sequence[Observed]:
        return await self._inner.list()

    async def stop(self, identity: Identity, _: float) -> None:
        cloud, loop = self._inner.cloud, asyncio.get_running_loop()
        for one in cloud.pods[identity.key].containers:
            loop.call_later(3, cloud.end, identity.key, one.name, 0, 0)

    async def stop_sandbox(self, identity: Identity) -> None:
        await self._inner.stop_sandbox(identity)

    async def delete(self, identity: Identity) -> None:
        await self._inner.delete(identity)

    def events(self) -> AsyncIterator[Observed]:
        return self._inner.events()


def test_a_deletion_after_the_deadline_leaves_the_reason() -> None:
    async def story() -> None:
        whole: Any = Whole(PaperAdapter(Cloud(virtual.clock)))
        provider = Provider(Tracker([Backend(whole, {})], clock=virtual.clock))
        watcher = Watcher(provider)
        tasks = [asyncio.create_task(provider.run()), asyncio.create_task(watcher.follow())]
        recorded = pod_pb2.Recorded()
        recorded.start_time.FromSeconds(int(virtual.clock()))
        request = asked(a_pod(activeDeadlineSeconds=20), recorded=recorded)
        await provider.create_pod(request)
        await asyncio.sleep(21)
        await provider.delete_pod(pb.DeletePodRequest(pod=request.pod, grace_period_seconds=5))
        facts = await watcher.ended("one")
        for task in tasks:
            task.cancel()
        assert (facts.failed, facts.reason) == (True, "DeadlineExceeded")

    virtual.run(story())
