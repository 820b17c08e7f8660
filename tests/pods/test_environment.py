from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from bridge.pods.downward import format_map, quoted
from bridge.pods.environment import Built, build, expand, expand_text, references
from bridge.rpc.v1 import pod_pb2
from bridge.workload import EnvVar, Waiting

Objects = dict[tuple[str, str, str], dict[str, Any]]


def config(name: str, **data: str) -> Objects:
    return {("ConfigMap", "ns", name): {"metadata": {"name": name}, "data": data}}


def secret(name: str, **data: bytes) -> Objects:
    encoded = {key: b64encode(value).decode() for key, value in data.items()}
    return {("Secret", "ns", name): {"metadata": {"name": name}, "data": encoded}}


def pod(container: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "p",
            "namespace": "ns",
            "uid": "u-1",
            "labels": {"app": "x"},
            "annotations": {"a/b": 'say "hi"'},
        },
        "spec": {"nodeName": "n1", "serviceAccountName": "sa", "containers": [container], **spec},
    }


def made(
    env: list[dict[str, Any]] | None = None,
    env_from: list[dict[str, Any]] | None = None,
    objects: Objects | None = None,
    **more: Any,
) -> Built:
    container = {"name": "c", "env": env or [], "envFrom": env_from or [], **more}
    objects = objects or {}
    return build(
        pod(container),
        container,
        lambda *key: objects.get(key),
        allocatable={"cpu": "4", "memory": "8Gi"},
        services=[("KUBERNETES_SERVICE_HOST", "10.0.0.1")],
    )


def values(built: Built) -> dict[str, str]:
    assert built.failure is None
    expanded = expand(built.environment, (), ())
    return {one.name: one.value for one in expanded.env}


def field(path: str) -> dict[str, Any]:
    return {"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}


def test_env_overrides_env_from_and_services_fill_in() -> None:
    built = made(
        [
            {"name": "A", "value": "own"},
            {"name": "B", "value": "$(A)-$(Z)-$(KUBERNETES_SERVICE_HOST)"},
        ],
        [{"configMapRef": {"name": "one"}}, {"configMapRef": {"name": "two"}, "prefix": "P_"}],
        {**config("one", A="1", Z="z"), **config("two", A="2")},
    )
    assert values(built) == {
        "A": "own",
        "Z": "z",
        "P_A": "2",
        "B": "own-z-10.0.0.1",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    }


def test_config_values_are_never_expanded() -> None:
    built = made(
        [
            {"name": "X", "value": "x"},
            {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "one", "key": "K"}}},
        ],
        [{"configMapRef": {"name": "one"}}],
        config("one", K="$(X)$$"),
    )
    assert values(built)["K"] == "$(X)$$"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "x"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['a/b']", 'say "hi"'),
        ("spec.nodeName", "n1"),
        ("spec.serviceAccountName", "sa"),
    ],
)
def test_field_references(path: str, expected: str) -> None:
    assert values(made([field(path)]))["V"] == expected


def test_addresses_are_late() -> None:
    built = made([field("status.podIPs"), {"name": "U", "value": "http://$(V)/"}])
    assert built.environment.variables[0].late == pod_pb2.LATE_REFERENCE_POD_IPS
    unknown = expand(built.environment, ("run", "$(V)"), ())
    assert unknown.missing == ("V", "U")
    assert unknown.command == ("run", "$(V)")
    known = expand(built.environment, ("run", "$(U)"), (), {pod_pb2.LATE_REFERENCE_POD_IPS: "::1"})
    assert known.missing == ()
    assert known.command == ("run", "http://::1/")


@pytest.mark.parametrize(
    ("resource", "divisor", "expected"),
    [
        ("requests.cpu", None, "1"),
        ("requests.cpu", "1m", "250"),
        ("limits.cpu", "0", "4"),
        ("limits.memory", "1Mi", "100"),
        ("requests.memory", None, "0"),
        ("limits.ephemeral-storage", None, "0"),
    ],
)
def test_resource_references(resource: str, divisor: str | None, expected: str) -> None:
    reference = {"resource": resource} | ({"divisor": divisor} if divisor else {})
    built = made(
        [{"name": "V", "valueFrom": {"resourceFieldRef": reference}}],
        resources={"requests": {"cpu": "250m"}, "limits": {"memory": "104857600"}},
    )
    assert values(built)["V"] == expected


@pytest.mark.parametrize(
    ("env", "env_from", "message"),
    [
        ([], [{"configMapRef": {"name": "no"}}], 'configmap "no" not found'),
        ([], [{"secretRef": {"name": "no"}}], 'secret "no" not found'),
        (
            [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "one", "key": "k"}}}],
            [],
            "couldn't find key k in ConfigMap ns/one",
        ),
        (
            [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "bin", "key": "k"}}}],
            [],
            "the value of key k in Secret ns/bin is not valid UTF-8",
        ),
        ([field("status.phase")], [], "unsupported fieldPath: status.phase"),
    ],
)
def test_what_is_missing_is_a_result(
    env: list[dict[str, Any]], env_from: list[dict[str, Any]], message: str
) -> None:
    built = made(env, env_from, {**config("one", A="1"), **secret("bin", k=b"\xff")})
    assert built.failure == Waiting("CreateContainerConfigError", message)


def test_optional_ones_are_left_out() -> None:
    built = made(
        [
            {
                "name": "A",
                "valueFrom": {"secretKeyRef": {"name": "no", "key": "k", "optional": True}},
            },
            {
                "name": "B",
                "valueFrom": {"configMapKeyRef": {"name": "one", "key": "no", "optional": True}},
            },
        ],
        [{"configMapRef": {"name": "no", "optional": True}}],
        config("one", A="1"),
    )
    assert list(values(built)) == ["KUBERNETES_SERVICE_HOST"]


def test_impossible_names_are_skipped_and_told() -> None:
    objects = {("ConfigMap", "ns", "one"): {"data": {"a=b": "1", "1.x-y": "2"}}}
    built = made(env_from=[{"configMapRef": {"name": "one"}}], objects=objects)
    assert values(built)["1.x-y"] == "2"
    assert len(built.skipped) == 1
    assert "[a=b] from the EnvFrom configmap ns/one" in built.skipped[0]


def test_secrets_taint_what_they_touch() -> None:
    built = made(
        [
            {"name": "URL", "value": "db://$(pw)@host"},
            {"name": "SAFE", "value": "$$(pw)"},
        ],
        [{"secretRef": {"name": "s"}}],
        secret("s", pw=b"hunter2"),
    )
    expanded = expand(built.environment, ("login", "$(URL)"), ("$(SAFE)", "-p$(pw)"))
    assert {one.name: one.secret for one in expanded.env} == {
        "pw": True,
        "URL": True,
        "SAFE": False,
        "KUBERNETES_SERVICE_HOST": False,
    }
    assert expanded.secret_command == (1,)
    assert expanded.secret_args == (1,)
    assert expanded.args == ("$(pw)", "-phunter2")
    assert "hunter2" not in repr(expanded)
    source = built.environment.variables[0].secret
    assert (source.name, source.key) == ("s", "pw")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Most of these are the cases of third_party/forked/golang/expansion.
        ("$(VAR_A)", "A"),
        ("___$(VAR_B)___", "___B___"),
        ("$(VAR_A)_$(VAR_B)", "A_B"),
        ("$$(VAR_B)_$(VAR_A)", "$(VAR_B)_A"),
        ("$$$(VAR_A)", "$A"),
        ("$$$$(VAR_A)", "$$(VAR_A)"),
        ("$(VAR_REF)", "$(VAR_A)"),
        ("$(VAR_A)$", "A$"),
        ("foo$$$(VAR_A)bar", "foo$Abar"),
        ("$VAR_A)", "$VAR_A)"),
        ("${VAR_A}", "${VAR_A}"),
        ("$(VAR_A", "$(VAR_A"),
        ("$((VAR_A)", "$((VAR_A)"),
        ("$(missing)", "$(missing)"),
        ("$()", "$()"),
        ("$(VAR_A$$", "$(VAR_A$"),
        ("$", "$"),
        ("\n$é$(VAR_A)", "\n$éA"),
    ],
)
def test_expansion_syntax(text: str, expected: str) -> None:
    environment = pod_pb2.ContainerEnvironment()
    for name, value in (("VAR_A", "A"), ("VAR_B", "B"), ("VAR_REF", "$(VAR_A)")):
        environment.variables.add(name=name, literal=value)
    assert expand(environment, (text,), ()).command == (expected,)


def test_a_later_entry_keeps_the_place_and_sees_the_earlier_value() -> None:
    environment = pod_pb2.ContainerEnvironment()
    environment.variables.add(name="P", literal="/bin")
    environment.variables.add(name="Q", template="$(R)")
    environment.variables.add(name="P", template="$(P):/usr/bin")
    assert expand(environment, (), ()).env == (EnvVar("P", "/bin:/usr/bin"), EnvVar("Q", "$(R)"))


def test_sub_path_expression() -> None:
    env = (EnvVar("A", "x"), EnvVar("S", "y", secret=True), EnvVar("E", ""))
    assert expand_text("logs/$(A)", env).text == "logs/x"
    assert expand_text("$(S)", env).secret
    assert expand_text("$(B)/$(E)/$(A)", env).missing == ("B", "E")


def test_references() -> None:
    container = {
        "name": "c",
        "envFrom": [{"configMapRef": {"name": "a", "optional": True}}],
        "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "b", "key": "k"}}}],
    }
    volumes = [
        {"name": "v", "secret": {"secretName": "c"}},
        {
            "name": "w",
            "projected": {"sources": [{"configMap": {"name": "d"}}, {"secret": {"name": "e"}}]},
        },
    ]
    assert references(pod(container, volumes=volumes, imagePullSecrets=[{"name": "f"}])) == {
        ("ConfigMap", "a", True),
        ("Secret", "b", False),
        ("Secret", "c", False),
        ("ConfigMap", "d", False),
        ("Secret", "e", False),
        ("Secret", "f", True),
    }


def test_maps_are_written_as_go_quotes_them() -> None:
    assert format_map({"b": "2", "a": 'x"\n'}) == 'a="x\\"\\n"\nb="2"'
    assert quoted("é\x00\x7f\u200b\t\\") == '"é\\x00\\x7f\\u200b\\t\\\\"'
