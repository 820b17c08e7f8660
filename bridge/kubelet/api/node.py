"""What the HTTPS API tells of the node itself: its pods, its settings, its numbers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
from aiohttp import web

from bridge.kubelet.api.answers import as_json
from bridge.kubelet.api.auth import ALLOWED_SECONDS, DENIED_SECONDS, TOKEN_SECONDS
from bridge.kubelet.api.exposition import Family, answer
from bridge.kubelet.api.pods import Pods, is_running
from bridge.kubelet.client import Call
from bridge.kubelet.streams.upgrade import IDLE
from bridge.pods import Manifest

PIECE = 256 * 1024
"""Bytes of a list of pods that are sent at once: all of them together may be a hundred MB."""


class NodeInfo:
    """Answers /pods, /runningpods/, /configz and /metrics.

    `calls` counts calls to the API server by
    (verb, resource, code), as `ApiClient.calls` does.
    """

    def __init__(
        self,
        pods: Pods,
        node: str,
        *,
        calls: Mapping[Call, int],
        configuration: Mapping[str, Any],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pods = pods
        self._node = node
        self._calls = calls
        self._configuration = configuration
        self._started = clock()
        self.requests: Counter[tuple[str, str]] = Counter()
        """Requests that were let in, by (method, the first word of the path)."""

    async def pods(self, request: web.Request) -> web.StreamResponse:
        """GET /pods: what is bound to the node."""
        return await _pod_list(request, self._pods.all())

    async def running_pods(self, request: web.Request) -> web.StreamResponse:
        """GET /runningpods/: of pods with a running container, what a runtime would know."""
        return await _pod_list(
            request, (short for pod in self._pods.all() if (short := running(pod)) is not None)
        )

    async def configz(self, _: web.Request) -> web.StreamResponse:
        """GET /configz."""
        return as_json({"kubeletconfig": configuration(self._configuration)})

    async def metrics(self, _: web.Request) -> web.StreamResponse:
        """GET /metrics."""
        return answer(self._families())

    def _families(self) -> list[Family]:
        pods = self._pods.all()
        phases = Counter((pod.get("status") or {}).get("phase") or "Pending" for pod in pods)
        name = Family("kubelet_node_name", "The node's name. The count is always 1.")
        name.add(1, {"node": self._node})
        started = Family(
            "process_start_time_seconds",
            "Start time of the node's API since unix epoch in seconds.",
        )
        started.add(self._started)
        by_phase = Family("podbridge_pods", "Pods bound to the node, by phase.")
        for phase, count in sorted(phases.items()):
            by_phase.add(count, {"phase": phase})
        going = Family("kubelet_running_pods", "Number of pods that have a running container")
        going.add(sum(1 for pod in pods if running(pod) is not None))
        served = Family(
            "kubelet_http_requests_total",
            "Number of the http requests that were let in since the server started",
            "counter",
        )
        for (method, path), count in sorted(self.requests.items()):
            served.add(count, {"method": method, "path": path})
        called = Family(
            "podbridge_api_server_requests_total",
            "Calls to the API server, by verb, resource and status code (0: no answer).",
            "counter",
        )
        for (verb, resource, code), count in sorted(self._calls.items()):
            called.add(count, {"verb": verb, "resource": resource, "code": str(code)})
        return [served, name, going, called, by_phase, started]


def running(pod: Manifest) -> Manifest | None:
    """A pod with only its running containers; None: none runs."""
    metadata, spec = pod["metadata"], pod.get("spec") or {}
    containers = [
        {"name": one["name"], "image": one.get("image", ""), "resources": {}}
        for kind in ("initContainers", "containers", "ephemeralContainers")
        for one in spec.get(kind) or ()
        if is_running(pod, one["name"])
    ]
    if not containers:
        return None
    named = {key: metadata[key] for key in ("name", "namespace", "uid") if key in metadata}
    return {"metadata": named, "spec": {"containers": containers}, "status": {}}


def configuration(more: Mapping[str, Any]) -> dict[str, Any]:
    """What holds, in the words of a v1beta1 KubeletConfiguration; `more` is what the API does not
    know by itself."""
    return {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True, "cacheTTL": _duration(TOKEN_SECONDS)},
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": {
                "cacheAuthorizedTTL": _duration(ALLOWED_SECONDS),
                "cacheUnauthorizedTTL": _duration(DENIED_SECONDS),
            },
        },
        "streamingConnectionIdleTimeout": _duration(IDLE),
        "tlsMinVersion": "VersionTLS12",
        "enableServer": True,
        "readOnlyPort": 0,
        "enableSystemLogHandler": False,
        "enableProfilingHandler": False,
        **more,
    }


def _duration(seconds: float) -> str:
    """As Go writes it: 4h0m0s, 2m0s, 30s."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


async def _pod_list(request: web.Request, pods: Iterable[Manifest]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    waiting = bytearray(b'{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[')
    separator = b""
    for pod in pods:
        waiting += separator + orjson.dumps(pod)
        separator = b","
        if len(waiting) >= PIECE:
            await response.write(bytes(waiting))
            waiting.clear()
    await response.write(bytes(waiting) + b"]}")
    return response
