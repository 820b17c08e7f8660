from __future__ import annotations

import base64
from typing import Any

import pytest

from bridge.pods.defaults import with_defaults
from bridge.pods.validation import validate
from bridge.pods.validation.batch import indexes_total
from bridge.pods.validation.cron import schedule_problem, time_zone_problem


def pod(spec: dict[str, Any] | None = None, **container: Any) -> dict[str, Any]:
    containers = [{"name": "main", "image": "busybox"} | container]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {"containers": containers} | (spec or {}),
    }


def job(pod_spec: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    template = {"spec": pod({"restartPolicy": "Never"} | (pod_spec or {}))["spec"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "j"},
        "spec": {"template": template} | spec,
    }


def cron(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "c"},
        "spec": {"schedule": "@daily", "jobTemplate": {"spec": job()["spec"]}} | spec,
    }


def fields(obj: dict[str, Any]) -> list[str]:
    return [violation.field for violation in validate(obj)]


@pytest.mark.parametrize("obj", [pod(), job(), cron()])
def test_good_objects_pass_with_and_without_defaults(obj: dict[str, Any]) -> None:
    assert validate(obj) == []
    assert validate(with_defaults(obj)) == []


SPECS: list[tuple[dict[str, Any], str]] = [
    ({"containers": []}, "spec.containers"),
    ({"restartPolicy": "Sometimes"}, "spec.restartPolicy"),
    ({"dnsPolicy": "None"}, "spec.dnsConfig.nameservers"),
    ({"dnsConfig": {"nameservers": ["x"]}}, "spec.dnsConfig.nameservers[0]"),
    ({"activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds"),
    ({"terminationGracePeriodSeconds": -1}, "spec.terminationGracePeriodSeconds"),
    ({"hostname": "a.b"}, "spec.hostname"),
    ({"nodeSelector": {"a b": "c"}}, "spec.nodeSelector[a b]"),
    ({"initContainers": [{"name": "main", "image": "x"}]}, "spec.containers[0].name"),
    ({"volumes": [{"name": "A_b"}]}, "spec.volumes[0].name"),
    ({"volumes": [{"name": "a"}, {"name": "a"}]}, "spec.volumes[1].name"),
    (
        {"volumes": [{"name": "a", "emptyDir": {}, "secret": {"secretName": "s"}}]},
        "spec.volumes[0]",
    ),
    ({"volumes": [{"name": "a", "secret": {}}]}, "spec.volumes[0].secret.secretName"),
    (
        {"volumes": [{"name": "a", "configMap": {"name": "c", "defaultMode": 644}}]},
        "spec.volumes[0].configMap.defaultMode",
    ),
    (
        {
            "volumes": [
                {"name": "a", "configMap": {"name": "c", "items": [{"key": "k", "path": "../x"}]}}
            ]
        },
        "spec.volumes[0].configMap.items[0].path",
    ),
    ({"tolerations": [{"key": "a", "operator": "Likes"}]}, "spec.tolerations[0].operator"),
    ({"tolerations": [{"value": "a"}]}, "spec.tolerations[0].operator"),
    ({"shareProcessNamespace": True, "hostPID": True}, "spec.shareProcessNamespace"),
    ({"securityContext": {"runAsUser": -1}}, "spec.securityContext.runAsUser"),
    (
        {"resources": {"limits": {"ephemeral-storage": "1"}}},
        "spec.resources.limits[ephemeral-storage]",
    ),
    (
        {
            "initContainers": [
                {"name": "i", "image": "x", "livenessProbe": {"exec": {"command": ["a"]}}}
            ]
        },
        "spec.initContainers[0].livenessProbe",
    ),
    ({"ephemeralContainers": [{"name": "e", "image": "x"}]}, "spec.ephemeralContainers"),
]


@pytest.mark.parametrize(("spec", "field"), SPECS)
def test_refused_in_a_pod(spec: dict[str, Any], field: str) -> None:
    assert fields(pod(spec)) == [field]


CONTAINERS: list[tuple[dict[str, Any], str]] = [
    ({"name": "Main"}, "name"),
    ({"image": ""}, "image"),
    ({"image": " busybox"}, "image"),
    ({"imagePullPolicy": "always"}, "imagePullPolicy"),
    ({"terminationMessagePolicy": "x"}, "terminationMessagePolicy"),
    ({"ports": [{"containerPort": 0}]}, "ports[0].containerPort"),
    ({"ports": [{"containerPort": 1, "protocol": "tcp"}]}, "ports[0].protocol"),
    (
        {"ports": [{"containerPort": 1, "name": "x"}, {"containerPort": 2, "name": "x"}]},
        "ports[1].name",
    ),
    ({"ports": [{"containerPort": 1, "name": "a--b"}]}, "ports[0].name"),
    ({"env": [{"name": ""}]}, "env[0].name"),
    ({"env": [{"name": "a=b"}]}, "env[0].name"),
    ({"env": [{"name": "a", "valueFrom": {}}]}, "env[0].valueFrom"),
    (
        {"env": [{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "spec.hostname"}}}]},
        "env[0].valueFrom.fieldRef.fieldPath",
    ),
    (
        {"env": [{"name": "a", "valueFrom": {"resourceFieldRef": {"resource": "cpu"}}}]},
        "env[0].valueFrom.resourceFieldRef.resource",
    ),
    (
        {
            "env": [
                {
                    "name": "a",
                    "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}},
                }
            ]
        },
        "env[0].valueFrom.resourceFieldRef.divisor",
    ),
    (
        {"env": [{"name": "a", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a/b"}}}]},
        "env[0].valueFrom.secretKeyRef.key",
    ),
    ({"envFrom": [{}]}, "envFrom[0]"),
    ({"envFrom": [{"prefix": "a=", "secretRef": {"name": "s"}}]}, "envFrom[0].prefix"),
    ({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}, "volumeMounts[0].name"),
    ({"livenessProbe": {}}, "livenessProbe"),
    (
        {"livenessProbe": {"exec": {"command": ["a"]}, "periodSeconds": -1}},
        "livenessProbe.periodSeconds",
    ),
    ({"livenessProbe": {"tcpSocket": {"port": 70000}}}, "livenessProbe.tcpSocket.port"),
    ({"livenessProbe": {"httpGet": {"port": 1, "scheme": "ftp"}}}, "livenessProbe.httpGet.scheme"),
    (
        {"livenessProbe": {"exec": {"command": ["a"]}, "successThreshold": 2}},
        "livenessProbe.successThreshold",
    ),
    ({"lifecycle": {"preStop": {}}}, "lifecycle.preStop"),
    ({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}, "lifecycle.preStop.sleep.seconds"),
    ({"resources": {"limits": {"cpu": "-1"}}}, "resources.limits[cpu]"),
    ({"resources": {"limits": {"gpu": "1"}}}, "resources.limits[gpu]"),
    (
        {"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1001m"}}},
        "resources.requests[cpu]",
    ),
    ({"resources": {"requests": {"nvidia.com/gpu": "1"}}}, "resources.requests[nvidia.com/gpu]"),
    ({"resources": {"limits": {"nvidia.com/gpu": "0.5"}}}, "resources.limits[nvidia.com/gpu]"),
    ({"restartPolicyRules": [{"action": "Restart"}]}, "restartPolicy"),
    ({"securityContext": {"procMount": "x"}}, "securityContext.procMount"),
]


@pytest.mark.parametrize(("container", "field"), CONTAINERS)
def test_refused_in_a_container(container: dict[str, Any], field: str) -> None:
    assert fields(pod(**container))[0] == f"spec.containers[0].{field}"


def test_mounts() -> None:
    mounts = [
        {"name": "v", "mountPath": "data"},
        {"name": "v", "mountPath": "/a", "subPath": "../x"},
        {"name": "v", "mountPath": "/a"},
    ]
    found = fields(pod({"volumes": [{"name": "v"}]}, volumeMounts=mounts))
    prefix = "spec.containers[0].volumeMounts"
    assert set(found) == {
        f"{prefix}[0].mountPath",
        f"{prefix}[1].subPath",
        f"{prefix}[2].mountPath",
    }


def test_a_duplicate_env_name_is_allowed() -> None:
    assert validate(pod(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])) == []


def test_field_paths_with_a_subscript() -> None:
    def ref(path: str) -> dict[str, Any]:
        return pod(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}])

    assert validate(ref("metadata.labels['app.kubernetes.io/name']")) == []
    assert validate(ref("metadata.annotations['A.B/c']")) == []
    assert validate(ref("metadata.labels['a b']"))
    assert validate(ref("metadata.labels"))


MISSHAPEN = "spec.containers[0]"


@pytest.mark.parametrize(
    ("obj", "told"),
    [
        (
            pod({"volumes": {"name": "v"}}, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            ["spec.volumes"],
        ),
        (
            pod({"volume": [{"name": "v"}]}, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            ["spec.volume"],
        ),
        (
            pod(
                {"terminationGracePeriodSeconds": "60", "os": "linux"},
                lifecycle={"stopSignal": "SIGTERM", "preStop": {"sleep": {"seconds": 45}}},
            ),
            ["spec.os", "spec.terminationGracePeriodSeconds"],
        ),
        (
            pod(livenessProbe={"httpget": {"port": 80}}, envFrom=[{"configMapRef": "conf"}]),
            [f"{MISSHAPEN}.envFrom[0].configMapRef", f"{MISSHAPEN}.livenessProbe.httpget"],
        ),
        (
            pod(resources={"limits": {"a/gpu": "one"}, "requests": {"a/gpu": 1, "b/gpu": 1}}),
            [f"{MISSHAPEN}.resources.limits[a/gpu]", f"{MISSHAPEN}.resources.requests[b/gpu]"],
        ),
        (
            pod({"dnsConfig": {"nameservers": [5, "bad one"]}}),
            ["spec.dnsConfig.nameservers[0]", "spec.dnsConfig.nameservers[1]"],
        ),
        (
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "s"},
                "type": "kubernetes.io/dockerconfigjson",
                "stringData": {".dockerconfigjson": {"auths": {}}},
            },
            ["stringData[.dockerconfigjson]"],
        ),
        (job(completionMode=["Indexed"], backoffLimitPerIndex=1), ["spec.completionMode"]),
    ],
)
def test_what_is_misshapen_is_not_told_to_be_missing(obj: dict[str, Any], told: list[str]) -> None:
    assert sorted(fields(obj)) == told


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({}, "metadata.name"),
        ({"name": "a_b"}, "metadata.name"),
        ({"name": "a" * 254}, "metadata.name"),
        ({"generateName": "A-"}, "metadata.generateName"),
        ({"name": "a", "namespace": "a.b"}, "metadata.namespace"),
        ({"name": "a", "labels": {"k": "a b"}}, "metadata.labels[k]"),
        ({"name": "a", "labels": {"-k": ""}}, "metadata.labels[-k]"),
        ({"name": "a", "annotations": {"a/b/c": ""}}, "metadata.annotations[a/b/c]"),
    ],
)
def test_metadata(metadata: dict[str, Any], field: str) -> None:
    assert fields(pod() | {"metadata": metadata}) == [field]


RULE = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3]}}
JOBS: list[tuple[dict[str, Any], str]] = [
    ({"completions": -1}, "spec.completions"),
    ({"completionMode": "indexed"}, "spec.completionMode"),
    ({"completionMode": "Indexed"}, "spec.completions"),
    ({"backoffLimitPerIndex": 1}, "spec.backoffLimitPerIndex"),
    ({"successPolicy": {"rules": [{"succeededCount": 1}]}}, "spec.successPolicy"),
    ({"selector": {"matchLabels": {"a": "b"}}}, "spec.selector"),
    ({"managedBy": "me"}, "spec.managedBy"),
    ({"podReplacementPolicy": "Never"}, "spec.podReplacementPolicy"),
    (
        {"completionMode": "Indexed", "completions": 2, "maxFailedIndexes": 1},
        "spec.backoffLimitPerIndex",
    ),
    (
        {
            "completionMode": "Indexed",
            "completions": 2,
            "backoffLimitPerIndex": 1,
            "maxFailedIndexes": 3,
        },
        "spec.maxFailedIndexes",
    ),
    (
        {
            "completionMode": "Indexed",
            "completions": 3,
            "successPolicy": {"rules": [{"succeededIndexes": "0,2", "succeededCount": 3}]},
        },
        "spec.successPolicy.rules[0].succeededCount",
    ),
]


@pytest.mark.parametrize(("spec", "field"), JOBS)
def test_refused_in_a_job(spec: dict[str, Any], field: str) -> None:
    assert fields(job(**spec)) == [field]


RULES: list[tuple[dict[str, Any], str]] = [
    (RULE | {"action": "Explode"}, "[0].action"),
    (RULE | {"action": "FailIndex"}, "[0].action"),
    ({"action": "Ignore"}, "[0]"),
    (RULE | {"onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}, "[0]"),
    (RULE | {"onExitCodes": {"operator": "In", "values": [0]}}, "[0].onExitCodes.values[0]"),
    (RULE | {"onExitCodes": {"operator": "In", "values": []}}, "[0].onExitCodes.values"),
    (RULE | {"onExitCodes": {"operator": "In", "values": [2, 1]}}, "[0].onExitCodes.values"),
    (RULE | {"onExitCodes": {"operator": "Eq", "values": [1]}}, "[0].onExitCodes.operator"),
    (
        RULE | {"onExitCodes": {"operator": "In", "values": [1], "containerName": "x"}},
        "[0].onExitCodes.containerName",
    ),
]


@pytest.mark.parametrize(("rule", "field"), RULES)
def test_pod_failure_policy(rule: dict[str, Any], field: str) -> None:
    assert fields(job(podFailurePolicy={"rules": [rule]})) == [
        f"spec.podFailurePolicy.rules{field}"
    ]


def test_restart_policy_of_a_job() -> None:
    always = job({"restartPolicy": "Always"})
    (violation,) = validate(always)
    assert violation.field == "spec.template.spec.restartPolicy"
    assert "OnFailure, Never" in violation.message
    policy = {"rules": [RULE]}
    assert fields(job({"restartPolicy": "OnFailure"}, podFailurePolicy=policy)) == [
        "spec.template.spec.restartPolicy"
    ]
    bad = job({"containers": [{"name": "m", "image": "x", "imagePullPolicy": "x"}]})
    assert fields(bad) == ["spec.template.spec.containers[0].imagePullPolicy"]


def test_an_indexed_job_makes_host_names() -> None:
    given = job(completionMode="Indexed", completions=10) | {"metadata": {"name": "a" * 62}}
    assert fields(given) == ["metadata.name"]


@pytest.mark.parametrize(
    ("text", "total"), [("", 0), ("0", 1), ("0,2-4", 4), ("4-2", None), ("1,1", None), ("9", None)]
)
def test_indexes(text: str, total: int | None) -> None:
    found, problem = indexes_total(text, 5)
    assert (found if problem is None else None) == total


@pytest.mark.parametrize(
    "schedule",
    [
        "* * * * *",
        "*/5 0-6 1,15 jan-mar MON",
        "0 0 ? * 0",
        "@hourly",
        "@every 1h30m",
        "5/15 * * * *",
    ],
)
def test_schedules(schedule: str) -> None:
    assert schedule_problem(schedule) is None
    assert validate(cron(schedule=schedule)) == []


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        "* * * *",
        "60 * * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 7",
        "*/0 * * * *",
        "5-1 * * * *",
        "@never",
        "@every",
        "@every soon",
        "TZ=UTC * * * * *",
        "a * * * *",
        "1-2-3 * * * *",
        "1//2 * * * *",
    ],
)
def test_bad_schedules(schedule: str) -> None:
    assert fields(cron(schedule=schedule)) == ["spec.schedule"]


def test_a_stop_signal_needs_the_os() -> None:
    one = {"lifecycle": {"stopSignal": "SIGUSR1"}}
    assert fields(pod(**one)) == ["spec.containers[0].lifecycle.stopSignal"]
    assert fields(pod({"os": {"name": "linux"}}, **one)) == []


def test_cron_job_fields() -> None:
    assert fields(cron(concurrencyPolicy="x")) == ["spec.concurrencyPolicy"]
    assert fields(cron(timeZone="Local")) == ["spec.timeZone"]
    assert fields(cron(failedJobsHistoryLimit=-1)) == ["spec.failedJobsHistoryLimit"]
    assert fields(cron() | {"metadata": {"name": "a" * 53}}) == ["metadata.name"]
    assert time_zone_problem("Europe/Paris") is None
    assert fields(cron(timeZone="Europe/Atlantis")) == ["spec.timeZone"]
    assert fields(cron(timeZone="Europe")) == ["spec.timeZone"]


def data(kind: str, **content: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}} | content


def test_config_maps() -> None:
    assert fields(data("ConfigMap", data={"a/b": ""})) == ["data[a/b]"]
    assert fields(data("ConfigMap", data={"..": ""})) == ["data[..]"]
    assert fields(data("ConfigMap", data={"a": ""}, binaryData={"a": ""})) == ["data[a]"]
    assert fields(data("ConfigMap", data={"a": "x" * (1 << 20 | 1)})) == ["data"]


def test_secrets() -> None:
    tls = data("Secret", type="kubernetes.io/tls", data={})
    assert fields(tls) == ["data[tls.crt]", "data[tls.key]"]
    content = base64.b64encode(b"hunter2").decode()
    docker = data("Secret", type="kubernetes.io/dockercfg", data={".dockercfg": content})
    (violation,) = validate(docker)
    assert violation.field == "data[.dockercfg]"
    assert "hunter2" not in str(violation)


@pytest.mark.parametrize("obj", [None, 1, [], {}, {"kind": []}, {"kind": "Pod"}, {"kind": "Job"}])
def test_anything_can_be_validated(obj: Any) -> None:
    assert validate(obj)
