"""Pods that name their node themselves, which no scheduler has looked at: what a kubelet asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import node_kit
import pytest
from control_plane_kit import ControlPlane, Namespace
from node_kit import Place, until

pytestmark = pytest.mark.slow

MERGE = "application/merge-patch+json"
NODE_AFFINITY = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"


@pytest.fixture(scope="module")
def place(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A node with the taint that nodes of ours have where nobody says otherwise."""
    with node_kit.place(control_plane, tmp_path_factory.mktemp("admission")) as made:
        made.up(nodes=[made.node_config(no_taint=None)])
        yield made


def requires(*expressions: dict[str, Any]) -> dict[str, Any]:
    terms = {"nodeSelectorTerms": [{"matchExpressions": list(expressions)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def test_our_own_taint_keeps_away_only_the_scheduler(place: Place, namespace: Namespace) -> None:
    taints = place.node()["spec"]["taints"]
    assert {one["effect"] for one in taints} == {"NoSchedule"}
    place.pod(namespace, "p", tolerations=[])
    assert place.ended(namespace, "p")["status"]["phase"] == "Succeeded"


@pytest.mark.parametrize(
    ("spec", "reason", "message"),
    [
        ({"nodeSelector": {"zone": "nowhere"}}, "NodeAffinity", NODE_AFFINITY),
        (
            {
                "affinity": requires(
                    {"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]}
                )
            },
            "NodeAffinity",
            NODE_AFFINITY,
        ),
        (
            {"os": {"name": "windows"}},
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        ),
    ],
)
def test_what_does_not_match_fails_in_the_kubelets_words(
    place: Place, namespace: Namespace, spec: dict[str, Any], reason: str, message: str
) -> None:
    place.pod(namespace, "p", **spec)
    status = place.ended(namespace, "p")["status"]
    assert (status["phase"], status["reason"]) == ("Failed", reason)
    assert status["message"] == f"Pod was rejected: {message}"
    (event,) = until(lambda: place.events("Pod", "p", namespace=namespace.name), "an event")
    assert (event["type"], event["reason"], event["message"]) == ("Warning", reason, message)


def test_a_label_that_came_just_before_the_pod_counts(place: Place, namespace: Namespace) -> None:
    labels = {"metadata": {"labels": {"example.org/room": "quiet"}}}
    place.api.patch(place.path(), labels, MERGE)
    wanted = {"key": "example.org/room", "operator": "In", "values": ["quiet"]}
    place.pod(namespace, "p", affinity=requires(wanted), nodeSelector={"kubernetes.io/os": "linux"})
    assert place.ended(namespace, "p")["status"]["phase"] == "Succeeded"


def test_a_pod_that_has_no_sandbox_has_its_nodes_address(
    place: Place, namespace: Namespace
) -> None:
    missing = {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}}
    place.pod(namespace, "p", containers=[node_kit.container("exit 0", env=[missing])])

    def waits(pod: dict[str, Any]) -> bool:
        return "CreateContainerConfigError" in str(pod["status"].get("containerStatuses"))

    status = namespace.until("pods", "p", waits)["status"]
    assert "podIP" not in status
    address = place.node()["status"]["addresses"][0]
    assert (status["hostIP"], status["hostIPs"]) == (
        address["address"],
        [{"ip": address["address"]}],
    )
