"""Stats: what running pods use."""

from __future__ import annotations

from bridge.conformance.kit import Kit
from bridge.conformance.model import expect
from bridge.conformance.pods import ENDLESS
from bridge.conformance.register import check
from bridge.rpc.v1 import provider_pb2 as pb

_SECTION = "Stats"


async def _stats(kit: Kit, *uids: str) -> dict[str, pb.PodStats]:
    request = pb.GetStatsRequest(cluster=kit.cluster, node=kit.node, uids=uids)
    answer = await kit.wire.unary("GetStats", request)
    return {one.pod.uid: one for one in answer.pods}


@check(
    "stats.running",
    "tells what a running pod uses, and only of pods that were asked for",
    section=_SECTION,
    rule="Usage by pod and container, with the time of its measurement; pods whose usage is not"
    " known are left out.",
    needs="stats",
)
async def running(kit: Kit) -> None:
    """Two pods, all of them and one."""
    pods = [kit.pod(ENDLESS), kit.pod(ENDLESS)]
    for pod in pods:
        await kit.create(pod)
    for pod in pods:
        await kit.running(pod)
    both = {one.uid for one in pods}
    with kit.waiting("usage of both running pods"):
        while set(found := await _stats(kit)) != both:
            # A backend may measure only now and then.
            await kit.watch().quiet(0.3)
    for pod in pods:
        usage = {one.name: one for one in found[pod.uid].containers}
        expect(set(usage) == {"main"}, "usage of the container main", ", ".join(usage))
        expect(usage["main"].HasField("time"), "the time of its measurement", usage["main"])
    one = await _stats(kit, pods[0].uid)
    expect(set(one) == {pods[0].uid}, "only the pod that was asked for", ", ".join(one))


@check(
    "stats.gone",
    "is silent about a pod that is gone",
    section=_SECTION,
    rule="Pods whose usage is not known are left out.",
    needs="stats",
)
async def gone(kit: Kit) -> None:
    """After its deletion."""
    pod = kit.pod(ENDLESS)
    await kit.create(pod)
    await kit.running(pod)
    await kit.delete(pod, grace=0)
    await kit.gone(pod)
    found = await _stats(kit)
    expect(pod.uid not in found, "nothing about the pod that is gone", found)
