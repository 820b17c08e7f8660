from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
from support.paper import Cloud, PaperAdapter
from support.paper_able import Able, AbleAdapter

from bridge.adapter import YES, Adapter, Rate, Support, approximately, no
from bridge.errors import Invalid, Violation
from bridge.pods import Manifest
from bridge.pods.defaults import with_defaults
from bridge.pods.environment import build
from bridge.pods.schema import walk_fields
from bridge.provider import registry
from bridge.provider.capabilities import (
    BASE,
    assess,
    judge,
    lookup,
    merged,
    unclassified,
)
from bridge.provider.translate import translate
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.workload import Identity, Observed, Workload

WORDS = approximately("is a hint here")


class Small:
    """Main and init containers with a command, and nothing else."""

    type: ClassVar[str] = "small"
    simulated: ClassVar[bool] = True
    rates: ClassVar[Mapping[str, Rate]] = {}
    capabilities: ClassVar[Mapping[str, Support]] = {
        "spec.containers[].image": YES,
        "spec.containers[].command": YES,
        "spec.containers[].resources": WORDS,
        "spec.containers[].resources.limits": no("there are no limits"),
        "spec.containers[].restartPolicyRules": YES,
        "spec.containers[].volumeMounts": YES,
        "spec.initContainers": YES,
        "spec.initContainers[].resources": no("an init container has no size"),
        "spec.restartPolicy": YES,
        "spec.securityContext": no("there are no users"),
        "spec.securityContext.runAsNonRoot": YES,
        "spec.volumes[].emptyDir": YES,
        "spec.volumes[].emptyDir.medium": no("there is no memory medium"),
    }

    def __init__(self, name: str = "small", found: Sequence[Violation] = ()) -> None:
        self.name = name
        self._found = found

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def check(self, workload: Workload) -> Sequence[Violation]:
        return self._found

    async def run(self, workload: Workload) -> None: ...

    async def list(self) -> Sequence[Observed]:
        return ()

    async def stop(self, identity: Identity, grace: float) -> None: ...

    async def delete(self, identity: Identity) -> None: ...


class Whole(Small):
    capabilities: ClassVar[Mapping[str, Support]] = {"spec": YES}

    async def start(self, workload: Workload, container: str, restart: int) -> None: ...

    async def kill(self, identity: Identity, container: str, grace: float) -> None: ...


def pod(spec: Manifest | None = None, **container: Any) -> Manifest:
    main = {"name": "main", "image": "busybox:1", "command": ["true"], **container}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"restartPolicy": "Never", "containers": [main], **(spec or {})},
    }


def fields(manifest: Manifest, adapter: Adapter | None = None) -> list[str]:
    return [one.field for one in assess(adapter or Small(), manifest).violations]


def workload() -> Workload:
    return Workload(Identity("c", "n", "d", "p", "u"), ())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("spec.containers[].image", YES),
        ("spec.initContainers[].image", YES),
        ("spec.ephemeralContainers[].image", YES),
        ("spec.containers[].resources.requests", WORDS),
        ("spec.containers[].resources.limits", no("there are no limits")),
        ("spec.initContainers[].resources", no("an init container has no size")),
        ("spec.initContainers", YES),
        ("spec.ephemeralContainers", None),
        ("spec.containers", None),
        ("spec.containers[].imagePullPolicy", None),
        ("spec.securityContext.runAsUser", no("there are no users")),
        ("spec.securityContext.runAsNonRoot", YES),
        ("spec.volumes[].emptyDir.sizeLimit", YES),
        ("spec.nodeSelector", YES),
        ("spec.affinity.nodeAffinity", YES),
        ("metadata.labels", YES),
    ],
)
def test_lookup(path: str, expected: Support | None) -> None:
    assert lookup(merged(Small), path) == expected


def test_the_longest_entry_wins_for_init_containers_too() -> None:
    table = {"spec.initContainers": no("none"), "spec.containers[].image": YES}
    assert lookup(table, "spec.initContainers[].image") == YES
    assert lookup(table, "spec.initContainers[].command") == no("none")


def test_a_plain_pod_is_fine() -> None:
    assert assess(Small(), pod()).possible
    defaulted = with_defaults(pod())
    found = assess(Small(), defaulted)
    assert (found.violations, found.approximations) == ((), ())


def test_every_refused_field_is_named_at_once() -> None:
    manifest = pod(
        {
            "hostNetwork": True,
            "securityContext": {"runAsUser": 3, "runAsNonRoot": True},
            "volumes": [{"name": "a", "emptyDir": {"medium": "Memory"}}],
        },
        resources={"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
        tty=True,
    )
    found = assess(Small(), manifest)
    assert {one.field: one.message for one in found.violations} == {
        "spec.hostNetwork": "this backend does not say what it makes of this field",
        "spec.securityContext": "there are no users",
        "spec.volumes[0].emptyDir.medium": "there is no memory medium",
        "spec.containers[0].resources.limits": "there are no limits",
        "spec.containers[0].tty": "this backend does not say what it makes of this field",
    }
    assert found.approximations == (("spec.containers[0].resources", "is a hint here"),)


def test_what_lies_in_a_refused_object_is_said_once() -> None:
    manifest = pod({"initContainers": [{"name": "i", "image": "x:1"}]})
    manifest["spec"]["initContainers"][0]["resources"] = {"requests": {"cpu": "1"}}
    assert fields(manifest) == ["spec.initContainers[0].resources"]


def test_keys_of_a_map_have_words_of_their_own() -> None:
    class Keyed(Small):
        capabilities: ClassVar[Mapping[str, Support]] = {
            **Small.capabilities,
            "spec.containers[].resources": YES,
            "spec.containers[].resources.limits": YES,
            "spec.containers[].resources.limits[ephemeral-storage]": WORDS,
            "spec.containers[].resources.limits[example.com/gpu]": no("there is none"),
            "spec.initContainers[].resources": YES,
        }

    limits = {"cpu": "1", "ephemeral-storage": "1Gi"}
    manifest = pod(
        {"initContainers": [{"name": "i", "image": "x:1"}]}, resources={"limits": limits}
    )
    manifest["spec"]["initContainers"][0]["resources"] = {"limits": {"example.com/gpu": "1"}}
    found = assess(Keyed(), manifest)
    where = "spec.containers[0].resources.limits[ephemeral-storage]"
    assert found.approximations == ((where, "is a hint here"),)
    init = "spec.initContainers[0].resources.limits[example.com/gpu]"
    assert found.violations == (Violation(init, "there is none"),)


def test_an_entry_of_one_key_says_nothing_of_others() -> None:
    class Keyed(Small):
        capabilities: ClassVar[Mapping[str, Support]] = {
            "spec.containers[].image": YES,
            "spec.containers[].command": YES,
            "spec.containers[].resources.limits[cpu]": YES,
        }

    manifest = pod(resources={"limits": {"memory": "1Gi"}})
    where = {one.field for one in assess(Keyed(), manifest).violations}
    assert "spec.containers[0].resources.limits" in where


@pytest.mark.parametrize("backend", ["engine", "process"])
def test_no_limit_of_a_disk_is_promised(backend: str) -> None:
    kind = registry.module(backend).Adapter
    adapter = kind(backend)
    manifest = pod(resources={"limits": {"ephemeral-storage": "1Gi"}})
    told = dict(assess(adapter, manifest).approximations)
    assert any(where.startswith("spec.containers[0].resources.limits") for where in told)


def test_labels_of_selinux_are_the_engines_own() -> None:
    """Where the host has no SELinux a kubelet leaves them aside as well."""
    adapter = registry.module("engine").Adapter("engine")
    manifest = pod({"securityContext": {"seLinuxOptions": {"level": "s0:c0,c1"}}})
    found = assess(adapter, manifest)
    assert found.possible
    assert [where for where, _ in found.approximations] == ["spec.securityContext.seLinuxOptions"]


def test_values_that_no_backend_can_do() -> None:
    manifest = pod(
        {"os": {"name": "windows"}},
        restartPolicy="Never",
        restartPolicyRules=[{"action": "RestartAllContainers", "exitCodes": {"operator": "In"}}],
    )
    assert set(fields(manifest, Whole())) == {
        "spec.os.name",
        "spec.containers[0].restartPolicyRules[0].action",
    }
    assert fields(pod({"os": {"name": "linux"}}), Whole()) == []


def test_device_claims_are_refused_everywhere() -> None:
    manifest = pod({"resourceClaims": [{"name": "gpu", "resourceClaimName": "x"}]})
    assert fields(manifest, Whole()) == ["spec.resourceClaims"]


def test_late_references_need_a_backend_that_starts_each_container() -> None:
    reference = {"fieldRef": {"fieldPath": "status.podIP"}}
    manifest = pod(env=[{"name": "IP", "valueFrom": reference}])
    assert [one.field for one in judge(Small(), manifest, workload()).violations] == [
        "spec.containers[0].env[0].valueFrom.fieldRef"
    ]
    assert judge(Whole(), manifest, workload()).possible


def test_the_adapters_own_check_is_asked() -> None:
    mine = Violation("spec.containers[0].command", "not on PATH")
    doubled = Violation("spec.securityContext", "again")
    manifest = pod({"securityContext": {"runAsUser": 3}})
    found = judge(Small(found=[mine, doubled]), manifest, workload())
    assert [one.field for one in found.violations] == ["spec.securityContext", mine.field]


def test_a_wrong_shape_is_an_error_of_the_input() -> None:
    with pytest.raises(Invalid) as caught:
        assess(Small(), pod({"containers": 3}))
    assert caught.value.violations[0].field == "spec.containers"


def test_no_field_is_forgotten() -> None:
    assert unclassified({"spec": YES}) == []
    assert "spec.hostNetwork" in unclassified(merged(Small))
    assert "spec.affinity" not in unclassified(merged(Small))
    # The base alone leaves to the backends what is theirs.
    left = set(unclassified(BASE))
    assert {"spec.restartPolicy", "spec.activeDeadlineSeconds", "spec.hostNetwork"} <= left


def test_every_entry_of_the_base_names_a_field() -> None:
    known = {*walk_fields("Pod", ""), "metadata"}
    assert [path for path in BASE if path not in known] == []


@pytest.mark.parametrize("type_", registry.types())
def test_every_adapter_classifies_every_field(type_: str) -> None:
    adapter = registry.module(type_).Adapter
    assert unclassified(merged(adapter)) == []
    known = {*walk_fields("Pod", ""), "spec", "metadata"}
    # A key of a map is no field of its own.
    unknown = [
        path for path in adapter.capabilities if re.sub(r"\[[^]]*\]$", "", path) not in known
    ]
    assert unknown == [], "entries of no field"
    for path, support in adapter.capabilities.items():
        assert support == YES or support.words, f"{path} says not why"


def test_probes_and_hooks_need_what_they_run_over() -> None:
    handlers = {
        "livenessProbe": {"exec": {"command": ["x"]}},
        "readinessProbe": {"httpGet": {"port": 80}},
        "lifecycle": {
            "preStop": {"sleep": {"seconds": 1}},
            "postStart": {"tcpSocket": {"port": 1}},
        },
    }
    manifest = {"spec": {"containers": [{"name": "c", "image": "i", **handlers}]}}
    workload = Workload(Identity("c", "n", "d", "p", "u"), ())
    cloud = Cloud(lambda: 0.0)
    found = judge(PaperAdapter(cloud), manifest, workload).violations
    assert [one.field for one in found] == [
        "spec.containers[0].livenessProbe.exec",
        "spec.containers[0].readinessProbe.httpGet",
        "spec.containers[0].lifecycle.postStart.tcpSocket",
    ]
    assert judge(AbleAdapter(cloud, Able(cloud.clock)), manifest, workload).possible


class Nameless(PaperAdapter):
    """Resolves names, but none of a cluster."""

    capabilities: ClassVar[Mapping[str, Support]] = {"spec": YES, "spec.dnsPolicy": WORDS}


def named(adapter: Adapter, **values: str) -> list[tuple[str, str]]:
    env = [{"name": name, "value": value} for name, value in values.items()]
    manifest = pod(env=env)
    environment = build(manifest, manifest["spec"]["containers"][0], lambda *_: None).environment
    who = pod_pb2.PodIdentity(cluster="c", node="n", namespace="d", name="p", uid="u")
    request = pb.CreatePodRequest(pod=who, environment=[environment])
    made = translate(request, manifest, start_time=None)
    return [one for one in judge(adapter, manifest, made).approximations if ".env" in one[0]]


@pytest.mark.parametrize(
    ("value", "warned"),
    [
        ("db.prod.svc", True),
        ("http://db.prod.svc:80/path", True),
        ("db.prod.svc.cluster.local", True),
        ("p.sub.ns.pod.cluster.local", True),
        ("db.svcs.example.com", False),
        (".svc", False),
        ("db.cluster.locality", False),
        ("db.example.com", False),
    ],
)
def test_names_of_services_are_warned_of_where_nothing_resolves_them(
    value: str, warned: bool
) -> None:
    found = named(Nameless(Cloud(lambda: 0.0)), FINE="x", URL=value)
    assert [one[0] for one in found] == (["spec.containers[0].env[1].value"] if warned else [])
    # A backend that does what dnsPolicy says has the cluster's DNS.
    assert named(PaperAdapter(Cloud(lambda: 0.0)), URL=value) == []


def test_one_warning_names_every_variable() -> None:
    ((_, words),) = named(Nameless(Cloud(lambda: 0.0)), B="b.c.svc", A="a.c.svc")
    assert words.startswith("A, B: ")
