from __future__ import annotations

import copy
from typing import Any

import pytest

from bridge.pods.defaults import default_pull_policy, explicit_fields, with_defaults
from bridge.pods.schema import check, walk_fields


def pod(spec: dict[str, Any] | None = None, **container: Any) -> dict[str, Any]:
    containers = [{"name": "main", "image": "busybox:1"} | container]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {"containers": containers} | (spec or {}),
    }


def job(**spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": template} | spec}


def container_of(obj: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = with_defaults(obj)["spec"]["containers"][0]
    return found


def test_a_pod() -> None:
    given = pod()
    before = copy.deepcopy(given)
    out = with_defaults(given)
    assert given == before
    assert out["spec"] == {
        "containers": [
            {
                "name": "main",
                "image": "busybox:1",
                "imagePullPolicy": "IfNotPresent",
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "resources": {},
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }
    assert with_defaults(out) == out
    assert check(out, "Pod") == []


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("busybox:1", "IfNotPresent"),
        ("localhost:5000/busybox", "Always"),
        ("localhost:5000/busybox:2", "IfNotPresent"),
        ("busybox@sha256:" + "0" * 64, "IfNotPresent"),
        ("busybox:latest@sha256:" + "0" * 64, "IfNotPresent"),
    ],
)
def test_pull_policy(image: str, policy: str) -> None:
    assert default_pull_policy(image) == policy


def test_requests_from_limits() -> None:
    resources = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}
    assert container_of(pod(resources=resources))["resources"]["requests"] == {
        "cpu": "500m",
        "memory": "1Gi",
    }
    template = with_defaults(job())["spec"]["template"]["spec"]["containers"][0]
    assert template["resources"] == {}


def test_pod_level_requests() -> None:
    spec = {
        "resources": {"limits": {"cpu": "4", "memory": "1Gi"}},
        "initContainers": [
            {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "250m"}}},
            {"name": "i", "resources": {"requests": {"cpu": "2"}}},
        ],
    }
    out = with_defaults(pod(spec, resources={"requests": {"cpu": "1"}}))
    assert out["spec"]["resources"]["requests"] == {"cpu": "2250m", "memory": "1Gi"}


def test_probes_ports_and_references() -> None:
    probe = {"httpGet": {"port": 80}, "timeoutSeconds": 0}
    given = pod(
        livenessProbe=probe,
        readinessProbe={"grpc": {"port": 1}},
        ports=[{"containerPort": 80}],
        env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    )
    out = container_of(given)
    assert out["livenessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert out["readinessProbe"]["grpc"]["service"] == ""
    assert out["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert out["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"


def test_volumes() -> None:
    spec = {
        "volumes": [
            {"name": "a"},
            {"name": "b", "secret": {"secretName": "s"}},
            {"name": "c", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            {"name": "d", "image": {"reference": "data"}},
        ]
    }
    a, b, c, d = with_defaults(pod(spec))["spec"]["volumes"]
    assert a == {"name": "a", "emptyDir": {}}
    assert b["secret"]["defaultMode"] == 0o644
    assert c["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] == 3600
    assert d["image"]["pullPolicy"] == "Always"


def test_host_network_ports() -> None:
    out = container_of(pod({"hostNetwork": True}, ports=[{"containerPort": 80}]))
    assert out["ports"][0]["hostPort"] == 80


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, {"completions": 1, "parallelism": 1, "backoffLimit": 6}),
        ({"parallelism": 3}, {"parallelism": 3, "completions": None}),
        ({"completions": 3}, {"parallelism": 1, "completions": 3}),
        ({"backoffLimitPerIndex": 1}, {"backoffLimit": 2**31 - 1}),
        ({"podFailurePolicy": {"rules": []}}, {"podReplacementPolicy": "Failed"}),
        ({}, {"podReplacementPolicy": "TerminatingOrFailed", "completionMode": "NonIndexed"}),
        ({}, {"suspend": False, "manualSelector": False}),
    ],
)
def test_a_job(spec: dict[str, Any], expected: dict[str, Any]) -> None:
    out = with_defaults(job(**spec))
    assert {name: out["spec"].get(name) for name in expected} == expected
    assert out["metadata"]["labels"] == {"a": "b"}


def test_a_cron_job() -> None:
    cron = {
        "kind": "CronJob",
        "spec": {"schedule": "@daily", "jobTemplate": {"spec": job()["spec"]}},
    }
    spec = with_defaults(cron)["spec"]
    assert spec["concurrencyPolicy"] == "Allow"
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (3, 1)
    assert spec["jobTemplate"]["spec"]["template"]["spec"]["dnsPolicy"] == "ClusterFirst"
    assert "backoffLimit" not in spec["jobTemplate"]["spec"]


def test_other_kinds() -> None:
    assert with_defaults({"kind": "Secret"}) == {"kind": "Secret", "data": {}, "type": "Opaque"}
    with pytest.raises(KeyError):
        with_defaults({"kind": "Service"})


# --- what is the author's own ------------------------------------------------------------------

INJECTED: dict[str, Any] = {
    "nodeName": "n",
    "preemptionPolicy": "PreemptLowerPriority",
    "priority": 0,
    "serviceAccount": "default",
    "serviceAccountName": "default",
    "tolerations": [
        {"effect": "NoExecute", "key": f"node.kubernetes.io/{why}", "operator": "Exists"}
        | {"tolerationSeconds": 300}
        for why in ("not-ready", "unreachable")
    ],
    "volumes": [
        {
            "name": "kube-api-access-x2x4z",
            "projected": {
                "defaultMode": 420,
                "sources": [
                    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt"}},
                ],
            },
        }
    ],
}
MOUNT = {
    "name": "kube-api-access-x2x4z",
    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    "readOnly": True,
}


def explicit(obj: dict[str, Any]) -> dict[str, Any]:
    known = set(walk_fields())
    out = {}
    for general, path, value in explicit_fields(obj):
        assert general in known
        out[path] = value
    return out


def test_what_the_server_adds_is_no_choice() -> None:
    stored = with_defaults(pod(INJECTED, volumeMounts=[MOUNT]))
    assert list(explicit(stored)) == [
        "spec.containers",
        "spec.containers[0].name",
        "spec.containers[0].image",
    ]


@pytest.mark.parametrize(
    "spec",
    [
        {"hostNetwork": True},
        {"dnsPolicy": "None"},
        {"terminationGracePeriodSeconds": 5},
        {"restartPolicy": "Never"},
        {"priority": 5},
        {"tolerations": [{"operator": "Exists"}]},
        {"nodeSelector": {"a": "b"}},
        {"volumes": [{"name": "v", "emptyDir": {}}]},
        {"securityContext": {"runAsUser": 0}},
        {"automountServiceAccountToken": False},
        {"serviceAccountName": "builder"},
    ],
)
def test_a_choice_is_found(spec: dict[str, Any]) -> None:
    ((name, _),) = spec.items()
    assert f"spec.{name}" in explicit(with_defaults(pod(spec)))


def test_only_the_chosen_items_of_a_list() -> None:
    own = {"name": "v", "emptyDir": {}}
    obj = pod(
        INJECTED | {"volumes": [*INJECTED["volumes"], own]},
        volumeMounts=[MOUNT, {"name": "v", "mountPath": "/v"}],
    )
    found = explicit(obj)
    assert found["spec.volumes"] == [own]
    assert "spec.volumes[1].emptyDir" in found
    assert found["spec.containers[0].volumeMounts[1].mountPath"] == "/v"
    assert "spec.containers[0].volumeMounts[0].mountPath" not in found


def test_requests_that_repeat_the_limits_are_no_choice() -> None:
    limits = {"cpu": "1"}
    path = "spec.containers[0].resources.requests"
    assert path not in explicit(with_defaults(pod(resources={"limits": limits})))
    requests = {"cpu": "500m"}
    assert path in explicit(pod(resources={"limits": limits, "requests": requests}))


def test_empty_objects_say_nothing() -> None:
    empty = pod({"affinity": {}}, securityContext={"capabilities": {}}, lifecycle={}, env=[])
    assert list(explicit(empty)) == list(explicit(pod()))


def test_unknown_fields_and_no_spec_are_left_alone() -> None:
    assert explicit({"kind": "Pod"}) == {}
    assert "spec.zzz" not in explicit(pod({"zzz": 1}))
