"""What pods use, in the two forms that Kubernetes reads: the summary (statsapi v1alpha1), and the
resource metrics that metrics-server scrapes."""

from __future__ import annotations

import logging
from typing import Any

from aiohttp import web

from bridge.errors import BridgeError
from bridge.kubelet.api.answers import as_json
from bridge.kubelet.api.exposition import Family, answer
from bridge.kubelet.api.usage import Meters, NodeUsage, PodUsage, Usage
from bridge.times import rfc3339

_log = logging.getLogger(__name__)


class Stats:
    """Answers `/stats/summary` and `/metrics/resource`."""

    def __init__(self, meters: Meters, node: str) -> None:
        self._meters = meters
        self._node = node

    async def summary(self, _: web.Request) -> web.StreamResponse:
        """GET or POST /stats/summary. There is nothing but CPU and memory, asked for or not.
        HTTPInternalServerError: the provider does not tell."""
        try:
            usage = await self._meters.read()
        except BridgeError as error:
            _log.warning("what pods use is unknown: %s", error)
            raise web.HTTPInternalServerError(text=f"Internal Error: {error.message}") from None
        return as_json(summary(usage, self._node))

    async def resource(self, _: web.Request) -> web.StreamResponse:
        """GET /metrics/resource. As the kubelet: an error is a metric too."""
        try:
            return answer(resource_metrics(await self._meters.read()))
        except BridgeError as error:
            _log.warning("what pods use is unknown: %s", error)
            return answer(resource_metrics(None))


def summary(usage: NodeUsage, node: str) -> dict[str, Any]:
    """A statsapi Summary. Pods are those whose usage is known."""
    return {
        "node": {
            "nodeName": node,
            "startTime": rfc3339(usage.started),
            **_parts(usage.usage),
        },
        "pods": [_pod_summary(pod) for pod in usage.pods],
    }


def _pod_summary(pod: PodUsage) -> dict[str, Any]:
    return {
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": _time(pod.started),
        "containers": [
            {"name": one.name, "startTime": _time(one.started), **_parts(one.usage)}
            for one in pod.containers
        ],
        **_parts(pod.usage),
    }


def _parts(usage: Usage) -> dict[str, Any]:
    when = rfc3339(usage.time)
    cpu = {
        name: value
        for name, value in (
            ("usageNanoCores", usage.cpu_rate),
            ("usageCoreNanoSeconds", usage.cpu_total),
        )
        if value is not None
    }
    parts: dict[str, Any] = {"cpu": {"time": when, **cpu}} if cpu else {}
    if usage.memory is not None:
        parts["memory"] = {"time": when, "workingSetBytes": usage.memory}
    return parts


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)


_FAMILIES = (
    ("container_cpu_usage_seconds_total", "Cumulative cpu time consumed by the container"),
    ("container_memory_working_set_bytes", "Current working set of the container in bytes"),
    (
        "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds",
    ),
    ("node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node"),
    ("node_memory_working_set_bytes", "Current working set of the node in bytes"),
    ("pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod"),
    ("pod_memory_working_set_bytes", "Current working set of the pod in bytes"),
    (
        "resource_scrape_error",
        "1 if there was an error while getting container metrics, 0 otherwise",
    ),
)
"""The kubelet's resource endpoint (pkg/kubelet/metrics/collectors/resource_metrics.go)."""


def resource_metrics(usage: NodeUsage | None) -> list[Family]:
    """What metrics-server scrapes; None: what is used could not be read."""
    families = {name: _family(name, words) for name, words in _FAMILIES}
    families["resource_scrape_error"].add(1 if usage is None else 0)
    if usage is not None:
        _add(families, "node", usage.usage, {})
        for pod in usage.pods:
            labels = {"namespace": pod.namespace, "pod": pod.name}
            _add(families, "pod", pod.usage, labels)
            for one in pod.containers:
                named = {"container": one.name, **labels}
                _add(families, "container", one.usage, named)
                if one.started is not None and one.started > 0:
                    families["container_start_time_seconds"].add(one.started, named)
    return list(families.values())


def _family(name: str, words: str) -> Family:
    if name.endswith("_cpu_usage_seconds_total"):
        return Family(name, f"[STABLE] {words} in core-seconds", "counter")
    return Family(name, f"[STABLE] {words}")


def _add(families: dict[str, Family], whose: str, usage: Usage, labels: dict[str, str]) -> None:
    if usage.cpu_total is not None:
        cpu = families[f"{whose}_cpu_usage_seconds_total"]
        cpu.add(usage.cpu_total / 1e9, labels, usage.time)
    if usage.memory is not None:
        families[f"{whose}_memory_working_set_bytes"].add(usage.memory, labels, usage.time)
