"""The node as Kubernetes has it: made, kept, shared out over backends, and never deleted by us."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import node_kit
import pytest
from control_plane_kit import ControlPlane, Namespace, fake_node
from node_kit import Place, is_ready, until

from bridge.kubelet.lock import ACT, RENEW
from bridge.times import parse_rfc3339

pytestmark = pytest.mark.slow

NULL = {"name": "nothing", "type": "null", "max_pods": 5, "cpu": "3", "memory": "1Gi"}
PROCESS = {"name": "here", "type": "process", "max_pods": 7, "cpu": "2500m", "memory": "4Gi"}
TAINT = {"key": "virtual-kubelet.io/provider", "value": "podbridge", "effect": "NoSchedule"}


@pytest.fixture
def place(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Place]:
    with node_kit.place(control_plane, tmp_path) as made:
        yield made


def test_it_is_ready_and_says_what_it_is(place: Place) -> None:
    config = place.node_config(
        no_taint=None, region="eu-1", labels={"team": "a"}, capacity_type="spot"
    )
    one = place.up(nodes=[config], backends=[PROCESS, NULL])
    node = place.node()
    assert TAINT in node["spec"]["taints"]
    cluster = place.api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"]
    assert node["spec"]["providerID"] == f"podbridge://{cluster}/{place.name}"
    labels = {
        "kubernetes.io/hostname": place.name,
        "kubernetes.io/os": "linux",
        "type": "virtual-kubelet",
        "node.kubernetes.io/exclude-from-external-load-balancers": "true",
        "backend.podbridge.io/here": "process",
        "backend.podbridge.io/nothing": "null",
        "topology.kubernetes.io/region": "eu-1",
        "podbridge.io/capacity-type": "spot",
        "team": "a",
    }
    assert labels.items() <= node["metadata"]["labels"].items()
    status = node["status"]
    sizes = {"pods": "12", "cpu": "5500m", "memory": "5Gi"}
    assert sizes.items() <= status["capacity"].items()
    assert sizes.items() <= status["allocatable"].items()
    states = {one["type"]: one["status"] for one in status["conditions"]}
    assert states == {
        "Ready": "True",
        "MemoryPressure": "False",
        "DiskPressure": "False",
        "PIDPressure": "False",
        "NetworkUnavailable": "False",
    }
    assert {"type": "InternalIP", "address": "127.0.0.1"} in status["addresses"]
    assert status["daemonEndpoints"]["kubeletEndpoint"]["Port"] == config["port"]
    assert status["nodeInfo"]["kubeletVersion"].startswith(f"{place.plane.version}-podbridge-")
    # Nobody has had to be told anything.
    assert [line for line in one.said.splitlines() if line] == [
        f"joining {place.plane.server} ({place.plane.version}) as {place.name}; Ctrl-C leaves"
    ]


def test_deleted_it_is_made_anew_at_once_and_its_pods_run_on(
    place: Place, namespace: Namespace
) -> None:
    place.up()
    first = place.node()["metadata"]["uid"]
    pod = place.pod(namespace, "p", "echo once >> once; sleep 1000")
    place.running(namespace, "p")
    work = {pid for pid, _ in place.work()}
    place.api.delete(place.path())
    since = time.monotonic()
    until(
        lambda: is_ready(node := place.node()) and node["metadata"]["uid"] != first,
        "it is made anew",
    )
    # The pod collector would end the pods of a node that is not there after 40 s.
    assert time.monotonic() - since < 20
    place.running(namespace, "p")
    assert place.api.get(namespace.path("pods", "p"))["metadata"]["uid"] == pod["metadata"]["uid"]
    assert {pid for pid, _ in place.work()} == work


def test_it_stays_when_we_leave_and_is_taken_up_again(place: Place, namespace: Namespace) -> None:
    config = place.config(nodes=[place.node_config(no_taint=None)])
    one = place.up("--no-taint", config=config)
    node = place.node()
    assert TAINT not in node["spec"].get("taints", [])
    pod = place.pod(namespace, "p", "sleep 1000")
    place.running(namespace, "p")
    work = {pid for pid, _ in place.work()}
    assert one.stop() == 0
    assert one.said.endswith("left; the nodes and their pods stay\n")
    left = place.node()
    assert left["metadata"]["uid"] == node["metadata"]["uid"]
    assert is_ready(left)
    assert place.holder() == ""
    assert {pid for pid, _ in place.work()} == work
    place.up("--no-taint", config=config)
    place.acting()
    assert place.node()["metadata"]["uid"] == node["metadata"]["uid"]
    assert "hi" in namespace.kubectl("exec", "p", "--", "echo", "hi").out
    assert {pid for pid, _ in place.work()} == work
    found = place.running(namespace, "p")
    assert found["metadata"]["uid"] == pod["metadata"]["uid"]
    assert found["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_name_that_another_node_has_is_refused(place: Place, control_plane: ControlPlane) -> None:
    with fake_node(control_plane) as other:
        before = other.api.get(other.path)
        one = place.up(nodes=[place.node_config(name=other.name)], ready=False)
        assert one.end() == 2, one.said
        said = f'the node "{other.name}" is kept by a kubelet {control_plane.version}'
        assert said in one.said, one.said
        after = other.api.get(other.path)
        assert after["spec"] == before["spec"]
        assert after["status"] == before["status"]
        assert before["metadata"]["labels"].items() <= after["metadata"]["labels"].items()
        assert "type" not in after["metadata"]["labels"]


def test_a_node_of_another_cluster_id_is_refused(place: Place) -> None:
    other = "11111111-2222-3333-4444-555555555555"
    spec = {"providerID": f"podbridge://{other}/{place.name}"}
    place.api.post("/api/v1/nodes", {"metadata": {"name": place.name}, "spec": spec})
    one = place.up(ready=False)
    assert one.end() == 2, one.said
    assert f"was made for the cluster id {other}; with" in one.said
    assert place.node()["spec"]["providerID"] == spec["providerID"]


def test_two_nodes_over_their_own_backends(place: Place, namespace: Namespace) -> None:
    real = place.node_config(name=f"{place.name}-a", backends=["here"])
    nothing = place.node_config(name=f"{place.name}-b", backends=["nothing"])
    place.up(nodes=[real, nothing], backends=[PROCESS, NULL])
    first, second = place.node(real["name"]), place.node(nothing["name"])
    for node, backend in ((first, PROCESS), (second, NULL)):
        assert node["metadata"]["labels"]["podbridge.io/backend"] == backend["name"]
        sizes = {"pods": str(backend["max_pods"]), "memory": backend["memory"]}
        assert sizes.items() <= node["status"]["allocatable"].items()
    assert (first["status"]["allocatable"]["cpu"], second["status"]["allocatable"]["cpu"]) == (
        "2500m",
        "3",
    )
    # The scheduler chooses by label; the pod runs on that node's backend and no other.
    place.pod(
        namespace,
        "real",
        "echo really",
        nodeName=None,
        nodeSelector={"podbridge.io/backend": "here"},
    )
    place.pod(
        namespace,
        "nothing",
        "exit 3",
        nodeName=None,
        nodeSelector={"podbridge.io/backend": "nothing"},
    )
    ended = place.ended(namespace, "real")
    assert ended["spec"]["nodeName"] == real["name"]
    assert namespace.kubectl("logs", "real").out == "really\n"
    running = place.running(namespace, "nothing")
    assert running["spec"]["nodeName"] == nothing["name"]
    # One that asks for what its node does not have never runs.
    meta = {"name": "astray", "annotations": {"podbridge.io/backend": "nothing"}}
    spec = {"containers": [node_kit.container("true")], "nodeName": real["name"]}
    spec["tolerations"] = [{"operator": "Exists"}]
    namespace.api.post(namespace.path("pods"), {"metadata": meta, "spec": spec})
    refused = place.ended(namespace, "astray")
    assert refused["status"]["phase"] == "Failed"
    assert 'found "nothing"; this node has: here' in refused["status"]["message"]


def test_the_heartbeat_goes_on_while_pods_keep_the_loop_busy(
    place: Place, namespace: Namespace
) -> None:
    place.up(backends=[{"name": "nothing", "type": "null", "max_pods": 1000}])
    lease, number, since = place.lease(), 0, time.monotonic()
    first = lease["spec"]["renewTime"]
    while (now := lease["spec"]["renewTime"]) == first:
        for _ in range(10):
            place.pod(namespace, f"p{number}", "true")
            number += 1
        if number % 100 == 0:
            namespace.api.delete(namespace.path("pods"), grace=0)
        lease = place.lease()
        assert time.monotonic() - since < 2 * ACT, f"no heartbeat in the time of {number} pods"
    assert number > 50
    assert parse_rfc3339(now) - parse_rfc3339(first) < RENEW + 1.5
    node = place.node()
    assert is_ready(node)
    # With the Node goes its Lease.
    assert lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]
