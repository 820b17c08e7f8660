"""Ports of the host, which pods that name their node themselves may both want."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.kubelet.ports import HostPorts
from bridge.pods import Manifest


def a_pod(uid: str, *ports: dict[str, Any], kind: str = "containers", **more: Any) -> Manifest:
    container = {"name": "c", "ports": list(ports), **more}
    spec: Manifest = {"containers": [{"name": "main"}]}
    return {"metadata": {"uid": uid}, "spec": {**spec, kind: [container]}}


TAKEN = {"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}


@pytest.mark.parametrize(
    ("port", "free"),
    [
        (TAKEN, False),
        ({"containerPort": 81, "hostPort": 8080}, False),
        ({**TAKEN, "hostIP": "127.0.0.1"}, False),
        ({**TAKEN, "protocol": "UDP"}, True),
        ({**TAKEN, "hostPort": 8081}, True),
        ({"containerPort": 8080}, True),
    ],
)
def test_a_port_is_given_once(port: dict[str, Any], free: bool) -> None:
    ports = HostPorts()
    ports.add(a_pod("first", TAKEN))
    found = ports.lacks(a_pod("second", port))
    assert (found is None) is free
    if found is not None:
        assert found[0] == "NodePorts"
        assert found[1].startswith("Predicate NodePorts failed: node(s) didn't have free ports")


def test_other_addresses_are_other_ports() -> None:
    ports = HostPorts()
    ports.add(a_pod("first", {**TAKEN, "hostIP": "10.0.0.1"}))
    assert ports.lacks(a_pod("second", {**TAKEN, "hostIP": "10.0.0.2"})) is None
    assert ports.lacks(a_pod("second", {**TAKEN, "hostIP": "10.0.0.1"}))
    assert ports.lacks(a_pod("second", TAKEN))


def test_a_pod_does_not_stand_in_its_own_way_and_gives_back() -> None:
    ports = HostPorts()
    for _ in range(2):
        ports.add(a_pod("first", TAKEN, {**TAKEN, "hostIP": "10.0.0.1"}))
    assert ports.lacks(a_pod("first", TAKEN)) is None
    ports.remove("first")
    ports.remove("first")
    assert ports.lacks(a_pod("second", TAKEN)) is None


@pytest.mark.parametrize(("policy", "free"), [("Always", False), (None, True)])
def test_of_init_containers_only_sidecars_hold_ports(policy: str | None, free: bool) -> None:
    ports = HostPorts()
    more = {"restartPolicy": policy} if policy else {}
    ports.add(a_pod("first", TAKEN, kind="initContainers", **more))
    assert (ports.lacks(a_pod("second", TAKEN)) is None) is free
