"""A node over some of a provider's backends: its pods run on no other."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.errors import Invalid, Unavailable
from bridge.kubelet.subset import ANNOTATION, Subset, narrowed
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb

FARGATE = pb.Backend(name="east", type="fargate")
ACI = pb.Backend(name="west", type="aci")
PROCESS = pb.Backend(name="here", type="process")


def pod(asked: str = "") -> dict[str, Any]:
    annotations = {"a": "b", **({ANNOTATION: asked} if asked else {})}
    return {"metadata": {"name": "p", "annotations": annotations}}


@pytest.mark.parametrize(
    ("backends", "asked", "expected"),
    [
        ([FARGATE], "", "east"),
        ([PROCESS], "", "here"),
        ([FARGATE, ACI], "", "east,west"),
        # Never a fallback.
        ([FARGATE, PROCESS], "", "east"),
        ([FARGATE, PROCESS], "process", "here"),
        ([FARGATE, ACI], "west", "west"),
        ([FARGATE, ACI], " aci , east", "east,west"),
    ],
)
def test_a_pod_gets_the_backends_of_its_node(
    backends: list[pb.Backend], asked: str, expected: str
) -> None:
    given = pod(asked)
    made = narrowed(given, backends)
    assert made["metadata"]["annotations"] == {"a": "b", ANNOTATION: expected}
    assert given == pod(asked)


@pytest.mark.parametrize(
    ("backends", "asked", "words"),
    [
        ([FARGATE], "west", 'found "west"; this node has: east'),
        ([FARGATE, ACI], "east,process", 'found "process"; this node has: east, west'),
        ([PROCESS, pb.Backend(name="n", type="null")], "", "chosen without its name: here, n"),
    ],
)
def test_it_can_ask_for_no_others(backends: list[pb.Backend], asked: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        narrowed(pod(asked), backends)
    assert caught.value.violations[0].field == f"metadata.annotations[{ANNOTATION}]"


async def test_the_provider_is_asked_with_them_until_the_pod_is_placed() -> None:
    asked: list[str] = []

    async def create_pod(request: pb.CreatePodRequest) -> pb.CreatePodResponse:
        asked.append(json.loads(request.manifest)["metadata"]["annotations"].get(ANNOTATION, ""))
        return pb.CreatePodResponse()

    offered: list[pb.Backend] = []
    provider: Any = SimpleNamespace(create_pod=create_pod)
    subset = Subset(provider, lambda: offered or None)
    request = pb.CreatePodRequest(manifest=json.dumps(pod()).encode())
    with pytest.raises(Unavailable):
        await subset.create_pod(request)
    offered.append(FARGATE)
    await subset.create_pod(request)
    # What runs already stays where it is, whatever the node has by now.
    placed = pb.CreatePodRequest(manifest=json.dumps(pod()).encode())
    placed.recorded.CopyFrom(pod_pb2.Recorded(backend="west", started=True))
    await subset.create_pod(placed)
    # Of what does not, its author may have written where it was placed.
    placed.recorded.started = False
    with pytest.raises(Invalid, match=r'placed-on\]: found "west"; this node has: east'):
        await subset.create_pod(placed)
    placed.recorded.backend = "east"
    await subset.create_pod(placed)
    assert asked == ["east", "", ""]
