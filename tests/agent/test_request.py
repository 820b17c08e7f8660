"""Requests from pods as the cluster has them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from bridge.agent.request import Builder
from bridge.pods import Manifest
from bridge.rpc.v1 import pod_pb2


class Secrets:
    """A cluster that has one pull secret, for every name."""

    def __init__(self, config: Any) -> None:
        self._text = base64.b64encode(json.dumps(config).encode()).decode()

    async def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        return {"data": {".dockerconfigjson": self._text}}

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
