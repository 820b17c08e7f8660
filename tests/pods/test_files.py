from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from bridge.pods.files import content, is_filled, token_projections
from bridge.rpc.v1 import pod_pb2
from bridge.workload import Waiting

OBJECTS: dict[tuple[str, str, str], dict[str, Any]] = {
    ("ConfigMap", "ns", "cfg"): {
        "data": {"a": "1", "b": "2"},
        "binaryData": {"bin": b64encode(b"\xff\x00").decode()},
    },
    ("Secret", "ns", "sec"): {"data": {"pw": b64encode(b"x").decode()}},
}


def pod(**volume: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"b": "2", "a": "1"}},
        "spec": {
            "containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}}}],
            "volumes": [{"name": "v", **volume}],
        },
    }


def made(token: str | None = None, **volume: Any) -> pod_pb2.VolumeContent | Waiting:
    manifest = pod(**volume)
    return content(
        manifest,
        manifest["spec"]["volumes"][0],
        lambda *key: OBJECTS.get(key),
        tokens=lambda projection: token,
        allocatable={"memory": "1Gi"},
    )


def files(result: pod_pb2.VolumeContent | Waiting) -> dict[str, tuple[bytes, int, bool]]:
    assert isinstance(result, pod_pb2.VolumeContent)
    assert result.revision
    return {one.path: (one.content, one.mode, one.secret) for one in result.files}


def test_whole_config_map() -> None:
    assert files(made(configMap={"name": "cfg", "defaultMode": 0o400})) == {
        "a": (b"1", 0o400, False),
        "b": (b"2", 0o400, False),
        "bin": (b"\xff\x00", 0o400, False),
    }


def test_items_choose_paths_and_modes() -> None:
    items = [{"key": "pw", "path": "deep/pass", "mode": 0o600}]
    assert files(made(secret={"secretName": "sec", "items": items})) == {
        "deep/pass": (b"x", 0o600, True)
    }


def test_downward_api() -> None:
    items = [
        {"path": "./labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}},
        {
            "path": "mem",
            "resourceFieldRef": {
                "containerName": "c",
                "resource": "limits.memory",
                "divisor": "1Mi",
            },
        },
    ]
    assert files(made(downwardAPI={"items": items})) == {
        "labels": (b'a="1"\nb="2"', 0o644, False),
        "cpu": (b"2", 0o644, False),
        "mem": (b"1024", 0o644, False),
    }


def test_projected_sources_in_order() -> None:
    sources = [
        {"configMap": {"name": "cfg", "items": [{"key": "a", "path": "x"}]}},
        {"secret": {"name": "sec", "items": [{"key": "pw", "path": "x"}]}},
        {"configMap": {"name": "absent", "optional": True}},
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
    ]
    volume = {"sources": sources, "defaultMode": 0o640}
    assert files(made("jwt", projected=volume)) == {
        "x": (b"x", 0o640, True),
        "token": (b"jwt", 0o640, True),
    }
    assert token_projections(pod(projected=volume)) == [sources[3]["serviceAccountToken"]]


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "no"}}, 'configmap "no" not found'),
        ({"secret": {"secretName": "no"}}, 'secret "no" not found'),
        (
            {"configMap": {"name": "cfg", "items": [{"key": "z", "path": "z"}]}},
            "configmap references non-existent config key: z",
        ),
        (
            {"secret": {"secretName": "sec", "items": [{"key": "z", "path": "z"}]}},
            "references non-existent secret key: z",
        ),
        (
            {"projected": {"sources": [{"configMap": {"name": "n"}}, {"secret": {"name": "m"}}]}},
            '[configmap "n" not found, secret "m" not found]',
        ),
        (
            {"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            "spec.volumes[v].projected.sources[0].serviceAccountToken: there is no token for it",
        ),
        (
            {"configMap": {"name": "cfg", "items": [{"key": "a", "path": "x/../../y"}]}},
            "invalid path: must not contain '..': x/../../y",
        ),
    ],
)
def test_failures_in_the_kubelets_words(volume: dict[str, Any], message: str) -> None:
    assert made(**volume) == Waiting(
        "ContainerCreating", f'MountVolume.SetUp failed for volume "v" : {message}'
    )


def test_optional_is_empty() -> None:
    assert files(made(configMap={"name": "no", "optional": True})) == {}


def test_revision_follows_content_and_modes() -> None:
    one = made(configMap={"name": "cfg"})
    again = made(configMap={"name": "cfg"})
    other = made(configMap={"name": "cfg", "defaultMode": 0o600})
    assert isinstance(one, pod_pb2.VolumeContent)
    assert isinstance(again, pod_pb2.VolumeContent)
    assert isinstance(other, pod_pb2.VolumeContent)
    assert one.revision == again.revision != other.revision


def test_which_volumes_are_filled() -> None:
    assert is_filled({"name": "v", "secret": {"secretName": "s"}})
    assert not is_filled({"name": "v", "emptyDir": {}})
