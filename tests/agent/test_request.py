"""Requests from pods as the cluster has them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from bridge.agent.request import Builder, recorded
from bridge.pods import Manifest
from bridge.provider.translate import translate
from bridge.rpc.v1 import pod_pb2


class Secrets:
    """A cluster that has one pull secret, for every name."""

    def __init__(self, config: Any) -> None:
        self._text = base64.b64encode(json.dumps(config).encode()).decode()

    async def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        return {"data": {".dockerconfigjson": self._text}}

    async def service_variables(self, pod: Manifest) -> list[tuple[str, str]]:
        return []

    def allocatable(self) -> dict[str, str]:
        return {}

    async def token(self, pod: Manifest, audience: str, seconds: int) -> str | None:
        return None


async def pulls(config: Any) -> list[tuple[str, str, str]]:
    pod: Manifest = {
        "metadata": {"name": "p", "uid": "u"},
        "spec": {"containers": [{"name": "c"}], "imagePullSecrets": [{"name": "s"}]},
    }
    cluster: Any = Secrets(config)
    request = await Builder(cluster).create(pod, pod_pb2.PodIdentity(uid="u"), 0.0)
    return [(one.registry, one.username, one.password) for one in request.pull_credentials]


@pytest.mark.parametrize(
    ("login", "found"),
    [
        ("x", []),
        (None, []),
        ({"username": "u", "password": 777}, [("reg", "u", "")]),
        ({"username": ["u"], "password": "p"}, [("reg", "", "p")]),
        ({"auth": 777}, [("reg", "", "")]),
        ({"auth": "\u00e9"}, [("reg", "", "")]),
        ({"auth": base64.b64encode(b"u:p:q").decode()}, [("reg", "u", "p:q")]),
    ],
)
async def test_pull_secrets_of_any_content(login: Any, found: list[tuple[str, str, str]]) -> None:
    assert await pulls({"auths": {"reg": login}}) == found
    assert await pulls({"auths": [login]}) == []


def test_running_containers_are_recorded_as_they_stand() -> None:
    running = {"running": {"startedAt": "2027-01-15T08:00:00Z"}}
    statuses = [
        {"name": "a", "containerID": "x://a", "state": running, "started": True, "ready": True},
        {"name": "b", "containerID": "x://b", "state": running, "started": False, "ready": False},
        {"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}, "ready": False},
    ]
    pod = {"metadata": {}, "status": {"containerStatuses": statuses}}
    assert list(recorded(pod, 0.0).running) == [
        pod_pb2.RunningContainer(container="a", container_id="x://a", started=True, ready=True),
        pod_pb2.RunningContainer(container="b", container_id="x://b"),
    ]


async def test_an_added_container_has_an_environment() -> None:
    debug = {"name": "debug", "env": [{"name": "A", "value": "1"}]}
    pod: Manifest = {
        "metadata": {"name": "p", "uid": "u"},
        "spec": {"containers": [{"name": "c"}], "ephemeralContainers": [debug]},
    }
    cluster: Any = Secrets({})
    request = await Builder(cluster).update(pod, pod_pb2.PodIdentity(uid="u"), filled=True)
    names = {one.container: [each.name for each in one.variables] for one in request.environment}
    assert names == {"c": [], "debug": ["A"]}


async def test_limits_that_are_not_set_read_as_the_nodes_in_volumes_too() -> None:
    reference = {"containerName": "c", "resource": "limits.memory"}
    items = [{"path": "memory", "resourceFieldRef": reference}]
    pod: Manifest = {
        "metadata": {"name": "p", "uid": "u"},
        "spec": {
            "containers": [{"name": "c"}],
            "volumes": [{"name": "v", "downwardAPI": {"items": items}}],
        },
    }

    class Sized(Secrets):
        def allocatable(self) -> dict[str, str]:
            return {"memory": "1Ki"}

    cluster: Any = Sized({})
    request = await Builder(cluster).create(pod, pod_pb2.PodIdentity(uid="u"), 0.0)
    assert [file.content for file in request.volumes[0].files] == [b"1024"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", 'missing value for "A"'),
        ("/tmp", "error SubPath `/tmp` must not be an absolute path"),
        ("..", "unable to provision SubPath `..`: must not contain '..'"),
        ("a/b", ""),
    ],
)
async def test_a_container_waits_for_a_sub_path_that_is_none(value: str, message: str) -> None:
    mount = {"name": "v", "mountPath": "/v", "subPathExpr": "$(A)"}
    field = {"fieldRef": {"fieldPath": "metadata.annotations['a']"}}
    container = {"name": "c", "env": [{"name": "A", "valueFrom": field}], "volumeMounts": [mount]}
    pod: Manifest = {
        "metadata": {"name": "p", "uid": "u", "annotations": {"a": value}},
        "spec": {"containers": [container], "volumes": [{"name": "v", "emptyDir": {}}]},
    }
    cluster: Any = Secrets({})
    request = await Builder(cluster).create(pod, pod_pb2.PodIdentity(uid="u"), 0.0)
    found = request.environment[0].not_ready
    assert (found.reason, found.message) == (
        "CreateContainerConfigError" if message else "",
        message,
    )
    # It is not refused meanwhile.
    mounts = translate(request, pod, start_time=None).containers[0].mounts
    assert [one.sub_path for one in mounts] == ["" if message else "a/b"]
