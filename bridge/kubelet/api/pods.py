"""What the HTTPS API asks about pods: which there are, and what their manifests say."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Protocol

from aiohttp import web

from bridge.pods import Manifest
from bridge.rpc.v1 import pod_pb2

_SPECS = ("containers", "initContainers", "ephemeralContainers")
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


class Pods(Protocol):
    """The pods of this node. `bridge.kubelet.cluster.ApiCluster` knows them."""

    async def listed(self, patience: float) -> bool:
        """Whether they are known, once they are or that many seconds are over."""

    def find(self, namespace: str, name: str, uid: str = "") -> Manifest | None:
        """The pod of that name, and of that UID where one is given."""

    def all(self) -> list[Manifest]:
        """Every pod bound to the node."""

    def identity(self, pod: Manifest) -> pod_pb2.PodIdentity:
        """Who the pod is on the wire."""


def asked_for(pods: Pods, request: web.Request, words: str = "pod does not exist") -> Manifest:
    """The pod that a request's path names. HTTPNotFound, with these words: there is none."""
    path = request.match_info
    pod = pods.find(path["namespace"], path["pod"], path.get("uid", ""))
    if pod is None:
        raise web.HTTPNotFound(text=words)
    return pod


def spec_of(pod: Manifest, container: str) -> Manifest | None:
    """A container's spec, be it a regular, an init or an ephemeral one."""
    spec = pod.get("spec") or {}
    return _named((one for kind in _SPECS for one in spec.get(kind) or ()), container)


def status_of(pod: Manifest, container: str) -> Manifest | None:
    """What is known of a container; None: nothing is, yet."""
    status = pod.get("status") or {}
    return _named((one for kind in _STATUSES for one in status.get(kind) or ()), container)


def is_running(pod: Manifest, container: str) -> bool:
    """Whether a container runs now."""
    return "running" in ((status_of(pod, container) or {}).get("state") or {})


def quoted(text: str) -> str:
    """As Go's %q writes it."""
    return json.dumps(text, ensure_ascii=False)


def _named(found: Iterable[Manifest], name: str) -> Manifest | None:
    return next((one for one in found if one.get("name") == name), None)
