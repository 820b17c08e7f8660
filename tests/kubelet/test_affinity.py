"""Which pods a node takes by labels, operating system and taints: the cases of Kubernetes' own
tests (nodeaffinity_test.go, node_affinity_test.go, predicate_test.go) and some more."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.kubelet.admission import Admission
from bridge.kubelet.affinity import AFFINITY, mismatch, other_system, untolerated
from bridge.pods import Manifest

LABELS = {"zone": "a", "gpu": "", "cores": "16", "word": "many", "kubernetes.io/os": "linux"}


def a_node(*taints: Manifest, name: str = "n", labels: dict[str, str] | None = None) -> Manifest:
    metadata = {"name": name, "labels": LABELS if labels is None else labels}
    return {"metadata": metadata, "spec": {"taints": list(taints)}}


def a_pod(*terms: Manifest, **spec: Any) -> Manifest:
    """With these terms of required node affinity; none of it where there are none."""
    if terms:
        required = {"nodeSelectorTerms": list(terms)}
        affinity = {"requiredDuringSchedulingIgnoredDuringExecution": required}
        spec["affinity"] = {"nodeAffinity": affinity}
    return {"metadata": {"uid": "u", "name": "p"}, "spec": {"containers": [], **spec}}


def wants(key: str, operator: str, *values: str) -> Manifest:
    made: Manifest = {"key": key, "operator": operator}
    return {**made, "values": list(values)} if values else made


def labelled(*wanted: Manifest) -> Manifest:
    return {"matchExpressions": list(wanted)}


def named(operator: str, *values: str) -> Manifest:
    return {"matchFields": [wants("metadata.name", operator, *values)]}


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        (wants("zone", "In", "a"), True),
        (wants("zone", "In", "b", "a"), True),
        (wants("zone", "In", "b"), False),
        (wants("absent", "In", "a"), False),
        (wants("gpu", "In", ""), True),
        (wants("absent", "In", ""), False),
        (wants("zone", "NotIn", "b"), True),
        (wants("zone", "NotIn", "a", "b"), False),
        (wants("absent", "NotIn", "a"), True),
        (wants("gpu", "Exists"), True),
        (wants("absent", "Exists"), False),
        (wants("absent", "DoesNotExist"), True),
        (wants("zone", "DoesNotExist"), False),
        (wants("cores", "Gt", "8"), True),
        (wants("cores", "Gt", "16"), False),
        (wants("cores", "Gt", "0"), True),
        (wants("cores", "Lt", "17"), True),
        (wants("cores", "Lt", "16"), False),
        (wants("absent", "Gt", "1"), False),
        (wants("word", "Gt", "1"), False),
        # What the API server lets through, or did once, and no node can match.
        (wants("cores", "Gt", "8", "9"), False),
        (wants("cores", "Gt"), False),
        (wants("cores", "Gt", "-1"), False),
        (wants("cores", "Gt", "eight"), False),
        (wants("cores", "Gt", "1_0"), False),
        (wants("cores", "Lt", str(1 << 63)), False),
        (wants("zone", "In"), False),
        (wants("absent", "NotIn"), False),
        (wants("zone", "Exists", "a"), False),
        (wants("absent", "DoesNotExist", "a"), False),
        (wants("zone", "Is", "a"), False),
        (wants("invalid key", "NotIn", "a"), False),
        (wants("zone", "In", "a", "{bad}"), False),
    ],
)
def test_operators(wanted: Manifest, holds: bool) -> None:
    assert mismatch(a_pod(labelled(wanted)), a_node()) == (None if holds else AFFINITY)


@pytest.mark.parametrize(
    ("terms", "matches"),
    [
        # Of the parts of a term all must hold, of the terms one.
        ([labelled(wants("zone", "In", "a"), wants("gpu", "Exists"))], True),
        ([labelled(wants("zone", "In", "a"), wants("gpu", "DoesNotExist"))], False),
        ([labelled(wants("zone", "In", "b")), labelled(wants("gpu", "Exists"))], True),
        ([labelled(wants("zone", "In", "b")), named("In", "n")], True),
        ([labelled(wants("zone", "In", "b")), labelled(wants("zone", "In", "c"))], False),
        ([{**labelled(wants("zone", "In", "a")), **named("In", "n")}], True),
        ([{**labelled(wants("zone", "In", "b")), **named("In", "n")}], False),
        ([{**labelled(wants("zone", "In", "a")), **named("In", "m")}], False),
        # What says nothing matches nothing.
        ([{}], False),
        ([{"matchExpressions": [], "matchFields": None}], False),
        ([{}, named("In", "n")], True),
        # A term that cannot be stands in no other one's way.
        ([labelled(wants("cores", "Gt", "x")), named("In", "n")], True),
        ([named("In", "n")], True),
        ([named("In", "m")], False),
        ([named("NotIn", "m")], True),
        ([named("NotIn", "n")], False),
        ([named("In", "n", "m")], False),
        ([named("NotIn", "m", "o")], False),
        ([named("Exists")], False),
        ([named("Gt", "1")], False),
        ([{"matchFields": [wants("metadata.uid", "In", "n")]}], False),
        ([{"matchFields": [wants("metadata.uid", "NotIn", "n")]}], True),
    ],
)
def test_terms(terms: list[Manifest], matches: bool) -> None:
    assert mismatch(a_pod(*terms), a_node()) == (None if matches else AFFINITY)


def test_no_terms_at_all_match_no_node() -> None:
    none: Manifest = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
    assert mismatch(a_pod(affinity={"nodeAffinity": none}), a_node()) == AFFINITY


@pytest.mark.parametrize(
    ("spec", "labels", "matches"),
    [
        ({}, {}, True),
        ({"nodeSelector": {}}, {}, True),
        ({"nodeSelector": {"zone": "a"}}, LABELS, True),
        ({"nodeSelector": {"zone": "a", "gpu": ""}}, LABELS, True),
        ({"nodeSelector": {"zone": "a", "gpu": "yes"}}, LABELS, False),
        ({"nodeSelector": {"zone": "a"}}, {}, False),
        ({"nodeSelector": {"absent": ""}}, LABELS, False),
        ({"affinity": {}}, {}, True),
        ({"affinity": {"nodeAffinity": {}}}, {}, True),
        # What is only preferred is asked of nobody.
        (
            {
                "affinity": {
                    "nodeAffinity": {
                        "preferredDuringSchedulingIgnoredDuringExecution": [
                            {"weight": 1, "preference": labelled(wants("absent", "Exists"))}
                        ]
                    }
                }
            },
            {},
            True,
        ),
    ],
)
def test_node_selectors(spec: dict[str, Any], labels: dict[str, str], matches: bool) -> None:
    assert mismatch(a_pod(**spec), a_node(labels=labels)) == (None if matches else AFFINITY)


def test_selector_and_affinity_must_both_match() -> None:
    exists = labelled(wants("gpu", "Exists"))
    assert mismatch(a_pod(exists, nodeSelector={"zone": "a"}), a_node()) is None
    assert mismatch(a_pod(exists, nodeSelector={"zone": "b"}), a_node()) == AFFINITY
    absent = labelled(wants("absent", "Exists"))
    assert mismatch(a_pod(absent, nodeSelector={"zone": "a"}), a_node()) == AFFINITY


EVICTS = {"key": "bar", "value": "x", "effect": "NoExecute"}


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        (None, False),
        ({"key": "bar", "operator": "Equal", "value": "x", "effect": "NoExecute"}, True),
        ({"key": "bar", "value": "x"}, True),
        ({"key": "bar", "value": "y"}, False),
        ({"key": "bar"}, False),
        ({"key": "bar", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "effect": "NoExecute"}, True),
        ({"operator": "Exists", "effect": "NoSchedule"}, False),
        ({"key": "foo", "operator": "Exists"}, False),
        ({"key": "bar", "operator": "Exists", "tolerationSeconds": 300}, True),
        ({"key": "bar", "operator": "Lt", "value": "9"}, False),
    ],
)
def test_taints_that_evict(toleration: Manifest | None, tolerated: bool) -> None:
    pod = a_pod(tolerations=[toleration] if toleration else [])
    found = untolerated(pod, a_node(EVICTS))
    if tolerated:
        assert found is None
        return
    reason, message = found or ("", "")
    assert reason == "TaintToleration"
    assert message == (
        "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"
    )


@pytest.mark.parametrize("effect", ["NoSchedule", "PreferNoSchedule"])
def test_taints_that_only_keep_the_scheduler_away(effect: str) -> None:
    assert untolerated(a_pod(), a_node({"key": "foo", "effect": effect})) is None


@pytest.mark.parametrize(
    ("labels", "system", "reason"),
    [
        ({}, None, None),
        ({"kubernetes.io/os": "linux"}, None, None),
        ({"kubernetes.io/os": "windows"}, None, "PodOSSelectorNodeLabelDoesNotMatch"),
        ({}, "linux", None),
        ({}, "windows", "PodOSNotSupported"),
        ({"kubernetes.io/os": "windows"}, "windows", "PodOSSelectorNodeLabelDoesNotMatch"),
    ],
)
def test_operating_systems(labels: dict[str, str], system: str | None, reason: str | None) -> None:
    pod = a_pod(**({"os": {"name": system}} if system else {}))
    pod["metadata"]["labels"] = labels
    found = other_system(pod, "linux")
    assert (found and found[0]) == reason


def test_only_the_first_thing_is_told_and_who_is_refused_takes_no_room() -> None:
    taking = Admission(lambda: {"cpu": "1", "pods": "2"})
    port = {"containerPort": 80, "hostPort": 80}

    def sized(uid: str, cpu: str, **spec: Any) -> Manifest:
        one = {"name": "c", "resources": {"requests": {"cpu": cpu}}, "ports": [port]}
        pod = a_pod(nodeSelector={"zone": "b"}, **spec)
        pod["metadata"]["uid"], pod["spec"]["containers"] = uid, [one]
        return pod

    node = a_node(EVICTS)
    elsewhere = sized("a", "2", os={"name": "windows"})

    def reason(pod: Manifest) -> str | None:
        found = taking.refuses(pod, node)
        return None if found is None else found[0]

    assert reason(elsewhere) == "PodOSNotSupported"
    assert reason(sized("a", "2")) == "OutOfcpu"
    assert reason(sized("a", "1")) == "NodeAffinity"
    node["metadata"]["labels"] = {"zone": "b"}
    assert reason(sized("a", "1")) == "TaintToleration"
    tolerant = sized("a", "1", tolerations=[{"operator": "Exists"}])
    assert reason(tolerant) is None
    assert reason(sized("b", "0")) == "NodePorts"
    # A resize asks of nothing but room.
    node["metadata"]["labels"] = {}
    assert taking.lacks(tolerant) is None
