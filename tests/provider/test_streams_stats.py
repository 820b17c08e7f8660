"""GetStats as the provider serves it."""

from __future__ import annotations

import uuid

import pytest
from streams_kit import tell
from support import virtual
from support.paper import Cloud, PaperAdapter
from support.pipes import CLUSTER, POD, WIRE, PipesAdapter

from bridge.adapter import Usage
from bridge.errors import Invalid, Unavailable
from bridge.provider.service import Provider
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.workload import ContainerState, Identity, Observed, Running


async def _pods(provider: Provider, **more: object) -> list[pb.PodStats]:
    request = pb.GetStatsRequest(**{"cluster": CLUSTER, "node": "n", **more})
    return list((await provider.get_stats(request)).pods)


def test_stats_tell_what_is_known_of_the_pods_that_were_asked_for() -> None:
    cloud = Cloud(virtual.clock)
    who = Identity(CLUSTER, "n", "d", "plain", str(uuid.UUID(int=9)))
    cloud.pods[who.key] = Observed(who, containers=(ContainerState("c", Running(0.0)),))

    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        stranger = str(uuid.UUID(int=10))
        usage = [Usage("c", 1.5, 7, 8), Usage("d", 2.0)]
        adapter.usage = {POD.uid: usage, stranger: [Usage("x", 1.0, 1, 1)]}
        (pod,) = await _pods(provider)
        assert pod.pod == WIRE
        first, second = pod.containers
        assert (first.name, first.time.ToMilliseconds()) == ("c", 1500)
        assert (first.cpu_usage_core_nanoseconds, first.memory_working_set_bytes) == (7, 8)
        assert second.name == "d"
        assert not second.HasField("cpu_usage_core_nanoseconds")
        assert not second.HasField("memory_working_set_bytes")
        assert adapter.asked == [(POD,)]
        assert [one.pod.uid for one in await _pods(provider, uids=[POD.uid, stranger])] == [POD.uid]
        for none in ({"uids": [who.uid]}, {"node": "m"}, {"cluster": str(uuid.UUID(int=1))}):
            assert await _pods(provider, **none) == []
        adapter.given.append(Unavailable("no answer"))
        assert await _pods(provider) == []

    tell(story, PaperAdapter(cloud, "plain"))


@pytest.mark.parametrize("more", [{"cluster": "x"}, {"node": ""}])
def test_stats_need_a_cluster_and_a_node(more: dict[str, str]) -> None:
    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        with pytest.raises(Invalid):
            await _pods(provider, **more)

    tell(story)
