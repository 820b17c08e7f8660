"""The adapter in docs/adding-a-backend.md: it is what the page says, and passes the suite."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from contract import Bench, Contract, container, workload

from bridge import adapter as seam
from bridge.errors import Unsupported
from bridge.provider.backend import Backend
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.workload import Identity, Workload

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-backend.md"
LONGEST = 80
"""Lines: an example that is longer is no example."""


@pytest.fixture(scope="module")
def module() -> Iterator[Any]:
    (source,) = (
        one
        for one in re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
        if "class Adapter" in one
    )
    assert source.count("\n") <= LONGEST
    made = ModuleType("memory_of_the_docs")
    sys.modules[made.__name__] = made
    exec(compile(source, str(PAGE), "exec"), made.__dict__)
    yield made
    del sys.modules[made.__name__]


class MemoryBench(Bench):
    survives = False
    real = False

    def __init__(self, make: Callable[[str], seam.Adapter]) -> None:
        self._make = make

    async def adapter(self) -> seam.Adapter:
        made = self._make("memory")
        await made.open()
        return made

    async def vanish(self, adapter: seam.Adapter, who: Identity) -> None:
        await adapter.delete(who)

    def endless(self) -> Workload:
        return workload(container("anything"))

    def brief(self, code: int = 0) -> Workload:
        return workload(container("exit", str(code)))


@pytest.fixture
def bench(module: Any) -> MemoryBench:
    return MemoryBench(module.Adapter)


class TestMemory(Contract):
    pass


def asked(*command: str, **spec: Any) -> pb.CreatePodRequest:
    who = pod_pb2.PodIdentity(
        cluster=str(uuid.uuid4()), node="n", namespace="default", name="p", uid=str(uuid.uuid4())
    )
    one = {"name": "main", "image": "any", "command": list(command)}
    manifest = {"metadata": {"name": "p"}, "spec": {"restartPolicy": "Never", **spec}}
    manifest["spec"]["containers"] = [one]
    return pb.CreatePodRequest(pod=who, manifest=json.dumps(manifest).encode())


async def test_a_pod_goes_all_the_way_through_a_provider(module: Any) -> None:
    backend = Backend(module.Adapter("memory"), {}, list_every=0.01)
    provider = Provider(Tracker([backend]))
    running = asyncio.create_task(provider.run())
    request = asked("exit", "3")
    stages = []
    try:
        answer = await provider.create_pod(request)
        assert answer.accepted.backend == "memory"
        assert [one.field for one in answer.accepted.approximations] == ["spec.containers[0].image"]
        watched = pb.WatchPodsRequest(cluster=request.pod.cluster, node="n")
        async with asyncio.timeout(20):
            async for message in provider.watch_pods(watched):
                for event in message.events:
                    if event.WhichOneof("event") != "pod":
                        continue
                    stages.append(event.pod.stage)
                    if event.pod.stage == pod_pb2.POD_STAGE_ENDED:
                        ended = event.pod.containers[0].terminated
                        ack = pb.PodAck(uid=request.pod.uid, revision=event.revision)
                        acks = pb.AckPodsRequest(
                            cluster=request.pod.cluster, epoch=message.epoch, pods=[ack]
                        )
                        await provider.ack_pods(acks)
                        await provider.delete_pod(pb.DeletePodRequest(pod=request.pod))
                if pod_pb2.POD_STAGE_GONE in stages:
                    break
        assert (ended.exit_code, ended.reason) == (3, "Error")
        assert stages == sorted(stages)
        assert await backend.adapter.list() == []
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"restartPolicy": "OnFailure"}, "spec.restartPolicy"),
        ({"hostNetwork": True}, "spec.hostNetwork"),
    ],
)
async def test_it_refuses_by_field(module: Any, spec: dict[str, Any], field: str) -> None:
    provider = Provider(Tracker([Backend(module.Adapter("memory"), {})]))
    with pytest.raises(Unsupported) as refused:
        await provider.create_pod(asked("exit", "0", **spec))
    assert [one.field for one in refused.value.violations] == [field]
