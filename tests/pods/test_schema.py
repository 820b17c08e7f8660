from __future__ import annotations

from typing import Any

import pytest

from bridge.pods.schema import check, nearest, visit, walk_fields, without_nulls


def pod(**container: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "main", "image": "busybox"} | container]},
    }


def said(obj: dict[str, Any], kind: str = "Pod") -> list[str]:
    return [str(violation) for violation in check(obj, kind)]


def test_a_good_pod_is_clean() -> None:
    assert said(pod(env=[{"name": "A", "value": None}], ports=[{"containerPort": 80}])) == []


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"imagePullPolcy": "x"}, 'imagePullPolcy: unknown field; did you mean "imagePullPolicy"?'),
        ({"working_dir": "x"}, 'working_dir: unknown field; did you mean "workingDir"?'),
        ({"Command": ["x"]}, 'Command: unknown field; did you mean "command"?'),
        ({"zzz": 1}, "zzz: unknown field"),
        ({"command": "true"}, 'command: found string "true"; allowed: list'),
        ({"command": [1]}, "command[0]: found integer 1; allowed: string (put it in quotes)"),
        ({"args": [None]}, "args[0]: found null; allowed: string"),
        ({"tty": "true"}, 'tty: found string "true"; allowed: true or false'),
        ({"resources": []}, "resources: found list; allowed: object"),
        (
            {"env": [{"name": "A", "value": 8080}]},
            "env[0].value: found integer 8080; allowed: string (put it in quotes)",
        ),
        (
            {"ports": [{"containerPort": "80"}]},
            'ports[0].containerPort: found string "80"; allowed: integer (without quotes)',
        ),
        (
            {"ports": [{"containerPort": 1 << 40}]},
            "ports[0].containerPort: found integer 1099511627776; allowed: integer of 32 bits",
        ),
        ({"env": [{}]}, "env[0].name: missing; this field is required"),
        (
            {"livenessProbe": {"tcpSocket": {"port": True}}},
            "livenessProbe.tcpSocket.port: found boolean true; allowed: integer or string",
        ),
    ],
)
def test_messages(container: dict[str, Any], message: str) -> None:
    assert said(pod(**container)) == [f"spec.containers[0].{message}"]


def test_a_bad_quantity_says_where() -> None:
    (message,) = said(pod(resources={"limits": {"memory": "1GB"}}))
    assert message.startswith(
        'spec.containers[0].resources.limits[memory]: bad quantity: found "1GB"'
    )


@pytest.mark.parametrize("time", ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.123456789+01:00"])
def test_times(time: str) -> None:
    assert said(pod() | {"metadata": {"creationTimestamp": time}}) == []


@pytest.mark.parametrize("time", ["2026-01-31", "2026-13-31T12:00:00Z", "now", 5])
def test_bad_times(time: object) -> None:
    (message,) = said(pod() | {"metadata": {"creationTimestamp": time}})
    assert "allowed: RFC 3339 time" in message


def test_a_secret_is_never_shown() -> None:
    secret = {
        "kind": "Secret",
        "data": {"a": "hunter2!", "b": 42},
        "stringData": {"c": 4242},
        "metadata": {"annotations": {"kept": 424242}},
    }
    messages = said(secret, "Secret")
    assert len(messages) == 4
    assert not any("hunter2" in message or "42" in message for message in messages)


@pytest.mark.parametrize("value", [None, 1, "x", [], {"spec": []}, {"spec": {"containers": {}}}])
def test_anything_can_be_checked(value: object) -> None:
    assert check(value, "Pod")


def test_walk_knows_every_level_once() -> None:
    fields = list(walk_fields())
    assert len(fields) == len(set(fields))
    assert "spec.containers[].securityContext.privileged" in fields
    assert "spec.containers[].securityContext" in fields
    assert "spec.containers[].command" in fields
    assert "spec.nodeSelector" in fields
    assert not any(field.startswith("spec.nodeSelector.") for field in fields)
    assert next(iter(walk_fields("ConfigMap", ""))) == "apiVersion"


def test_visit_gives_both_paths() -> None:
    found = {path: (general, value) for general, path, value in visit(pod(), "Pod")}
    assert found["spec.containers[0].name"] == ("spec.containers[].name", "main")
    assert found["spec.containers[0]"][0] == "spec.containers[]"


def test_nulls_go_and_nothing_is_shared() -> None:
    given = pod(env=None, command=["true"]) | {"metadata": {"labels": {"a": None}}}
    copied = without_nulls(given, "Pod")
    assert "env" not in copied["spec"]["containers"][0]
    assert copied["metadata"] == {"labels": {"a": ""}}
    copied["spec"]["containers"][0]["command"].append("x")
    assert given["spec"]["containers"][0]["command"] == ["true"]


def test_nearest_has_a_limit() -> None:
    assert nearest("restart_policy", ("restartPolicy",)) == "restartPolicy"
    assert nearest("x" * 10_000, ("restartPolicy",)) is None
