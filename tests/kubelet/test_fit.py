from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.kubelet.fit import Room, fits, pod_requests


def container(name: str, **asked: str) -> dict[str, Any]:
    names = {one.replace("_", "-"): value for one, value in asked.items()}
    return {"name": name, "resources": {"requests": names}}


def a_pod(*containers: dict[str, Any], uid: str = "u", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"uid": uid}, "spec": {"containers": list(containers), **spec}}


NODE = {"cpu": "1", "memory": "1Gi", "pods": "3", "ephemeral-storage": "10Gi"}


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (a_pod(container("a", cpu="2")), ("cpu", 2000, 0, 1000)),
        (a_pod(container("a", memory="2Gi")), ("memory", 2 << 30, 0, 1 << 30)),
        (
            a_pod(container("a", ephemeral_storage="11Gi")),
            ("ephemeral-storage", 11 << 30, 0, 10 << 30),
        ),
        # What Kubernetes names and the node has not is 0; what it does not name is not judged.
        (
            a_pod({"name": "a", "resources": {"requests": {"hugepages-2Mi": "4Mi"}}}),
            ("hugepages-2Mi", 4 << 20, 0, 0),
        ),
        (a_pod({"name": "a", "resources": {"requests": {"example.com/gpu": "1"}}}), None),
        (a_pod(container("a", cpu="1", memory="1Gi")), None),
        (a_pod({"name": "a"}), None),
        # Only the first thing that is short.
        (a_pod(container("a", cpu="3", memory="3Gi")), ("cpu", 3000, 0, 1000)),
    ],
)
def test_what_is_short_in_the_kubelets_words(
    pod: dict[str, Any], expected: tuple[str, int, int, int] | None
) -> None:
    found = fits(pod, NODE, ())
    if expected is None:
        assert found is None
        return
    name, asked, used, capacity = expected
    assert found == (
        f"OutOf{name}",
        f"Node didn't have enough resource: {name}, requested: {asked}, used: {used},"
        f" capacity: {capacity}",
    )


def test_what_others_ask_for_counts() -> None:
    others = [a_pod(container("a", cpu="400m"), uid=str(n)) for n in range(2)]
    assert fits(a_pod(container("a", cpu="200m")), NODE, others) is None
    assert fits(a_pod(container("a", cpu="201m")), NODE, others) == (
        "OutOfcpu",
        "Node didn't have enough resource: cpu, requested: 201, used: 800, capacity: 1000",
    )


def test_places_come_first() -> None:
    others = [a_pod({"name": "a"}, uid=str(n)) for n in range(3)]
    assert fits(a_pod(container("a", cpu="9")), NODE, others) == (
        "OutOfpods",
        "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3",
    )
    gpu = NODE | {"example.com/gpu": "1"}
    pod = a_pod({"name": "a", "resources": {"requests": {"example.com/gpu": "2"}}})
    found = fits(pod, gpu, others[:2])
    assert found is not None
    assert found[0] == "OutOfexample.com/gpu"


@pytest.mark.parametrize(
    ("spec", "cpu"),
    [
        ({"initContainers": [container("i", cpu="3")]}, 3000),
        ({"initContainers": [container("i", cpu="500m")]}, 1000),
        # A sidecar counts with the others, and with every init container after it.
        (
            {"initContainers": [{**container("s", cpu="2"), "restartPolicy": "Always"}]},
            3000,
        ),
        (
            {
                "initContainers": [
                    container("i", cpu="4"),
                    {**container("s", cpu="2"), "restartPolicy": "Always"},
                    container("j", cpu="3"),
                ]
            },
            5000,
        ),
        # An init container that asks for nothing runs beside the sidecars all the same.
        (
            {
                "initContainers": [
                    {**container("s", cpu="2"), "restartPolicy": "Always"},
                    {"name": "j"},
                ]
            },
            3000,
        ),
        ({"overhead": {"cpu": "250m"}}, 1250),
        ({"resources": {"requests": {"cpu": "700m"}}}, 700),
        ({"resources": {"requests": {"cpu": "700m"}}, "overhead": {"cpu": "1"}}, 1700),
        ({"resources": {"requests": {"example.com/gpu": "1"}}}, 1000),
        ({"ephemeralContainers": [container("e", cpu="9")]}, 1000),
    ],
)
def test_requests_are_counted_as_the_scheduler_counts(spec: dict[str, Any], cpu: int) -> None:
    assert pod_requests(a_pod(container("a", cpu="1"), **spec))["cpu"] == cpu


def test_a_resize_under_way_counts_with_the_larger() -> None:
    pod = a_pod(container("a", cpu="1"))
    pod["status"] = {"containerStatuses": [{"name": "a", "allocatedResources": {"cpu": "2"}}]}
    assert pod_requests(pod)["cpu"] == 2000


amount = st.integers(0, 5)
pods = st.lists(st.tuples(st.integers(0, 3), amount), max_size=12)


@given(steps=pods, asked=amount)
def test_room_is_the_same_as_counting_all(steps: list[tuple[int, int]], asked: int) -> None:
    room, there = Room({"cpu": "6", "pods": "4"}), dict[str, Any]()
    for uid, cpu in steps:
        pod = a_pod(container("a", cpu=str(cpu)), uid=str(uid))
        if str(uid) in there and cpu == 0:
            room.remove(str(uid))
            del there[str(uid)]
        else:
            room.add(pod)
            there[str(uid)] = pod
    new = a_pod(container("a", cpu=str(asked)), uid="2")
    others = [pod for uid, pod in there.items() if uid != "2"]
    assert room.lacks(new) == fits(new, {"cpu": "6", "pods": "4"}, others)
    assert len(room) == len(there)


def test_the_node_may_become_smaller() -> None:
    room = Room(NODE)
    room.add(a_pod(container("a", cpu="1"), uid="a"))
    room.remove("never there")
    room.resize({"cpu": "500m", "pods": "3"})
    assert room.lacks(a_pod(container("a", cpu="1m"), uid="b")) is not None


def test_a_resize_that_is_put_off_takes_nothing_from_others() -> None:
    room = Room({"cpu": "4", "pods": "4"})
    pod = a_pod(container("a", cpu="1"), uid="a")
    room.add(pod)
    asks = a_pod(container("a", cpu="64"), uid="a")
    had = {"name": "a", "resources": {"requests": {"cpu": "1"}}, "allocatedResources": {"cpu": "1"}}
    asks["status"] = {"containerStatuses": [had]}
    assert room.lacks(asks) is not None
    room.add(asks, granted=True)
    assert room.lacks(a_pod(container("b", cpu="3"), uid="b")) is None
    assert room.lacks(a_pod(container("b", cpu="3001m"), uid="b")) is not None
