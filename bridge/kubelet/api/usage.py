"""What pods use, from one look at the provider to the next.

The provider tells each container's CPU time and memory. Kubernetes wants rates, which take two
looks, and sums that never fall while the node lives: a sum over those that run now would fall with
each that ends. So what each container has added since it was seen last is added up here. What it
used between the last look and its end is not seen.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bridge.agent.provider import ProviderClient
from bridge.errors import Unavailable
from bridge.kubelet.api.pods import Pods, status_of
from bridge.pods import Manifest
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.times import parse_rfc3339

FRESH = 5.0
"""Seconds for which one look serves all: some backends count and charge them. A kubelet's own are
up to 15 s old."""
SHORTEST = 1.0
"""Seconds between two measurements of which a rate is made, at least: below, it is noise."""
PATIENCE = 10.0
"""Seconds for the provider's answer."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What something uses. None: unknown."""

    time: float
    """When it was measured, in seconds since the epoch."""
    cpu_total: int | None = None
    """Core nanoseconds since it began."""
    cpu_rate: int | None = None
    """Billionths of a core."""
    memory: int | None = None
    """The working set, in bytes."""


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """What a container uses."""

    name: str
    started: float | None
    """Seconds since the epoch."""
    usage: Usage


@dataclass(frozen=True, slots=True)
class PodUsage:
    """What a pod uses: the sum over its containers."""

    namespace: str
    name: str
    uid: str
    started: float | None
    usage: Usage
    containers: tuple[ContainerUsage, ...]


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """What all pods of the node use, and this process for them."""

    started: float
    """When it began to be added up."""
    usage: Usage
    pods: tuple[PodUsage, ...]


@dataclass(slots=True)
class _Meter:
    """One container's CPU time, as measured last."""

    at: float
    total: int
    rate: int | None = None
    rated_at: float = 0.0
    rated_total: int = 0


@dataclass(slots=True)
class _PodMeter:
    total: int = 0
    containers: dict[str, _Meter] = field(default_factory=dict)


def own_usage() -> tuple[int, int]:
    """What this process uses: core nanoseconds since it started, and bytes of memory. A node that
    uses nothing at all is none to metrics-server."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return time.process_time_ns(), pages * os.sysconf("SC_PAGE_SIZE")


class Meters:
    """Adds up what the node's pods use. `read` raises only `bridge.errors`."""

    def __init__(
        self,
        pods: Pods,
        provider: ProviderClient,
        cluster: str,
        node: str,
        *,
        clock: Callable[[], float] = time.time,
        own: Callable[[], tuple[int, int]] = own_usage,
    ) -> None:
        self._own = own
        self._own_meter: dict[str, _Meter] = {}
        self._pods = pods
        self._provider = provider
        self._request = pb.GetStatsRequest(cluster=cluster, node=node)
        self._clock = clock
        self._started = clock()
        self._total = 0
        self._meters: dict[str, _PodMeter] = {}
        self._last: NodeUsage | None = None
        self._reading = asyncio.Lock()

    async def read(self) -> NodeUsage:
        """What is used now; at most FRESH seconds old. Unavailable where the provider does not tell
        within PATIENCE seconds, and errors of the call."""
        async with self._reading:
            if self._last is None or not 0 <= self._clock() - self._last.usage.time < FRESH:
                self._last = self._add_up(await self._ask())
            return self._last

    async def _ask(self) -> pb.GetStatsResponse:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._provider.get_stats(self._request)
        except TimeoutError:
            words = f"the provider did not tell what pods use within {PATIENCE:g} seconds"
            raise Unavailable(words) from None

    def _add_up(self, stats: pb.GetStatsResponse) -> NodeUsage:
        known = {pod["metadata"]["uid"]: pod for pod in self._pods.all()}
        found = [
            self._pod(known[one.pod.uid], one.containers)
            for one in stats.pods
            if one.pod.uid in known and one.containers
        ]
        for uid in self._meters.keys() - {pod.uid for pod in found}:
            del self._meters[uid]
        now = self._clock()
        cpu, memory = self._own()
        own, _ = _rate(self._own_meter, "", now, cpu, memory)
        usage = _sum([own, *(pod.usage for pod in found)], now, cpu + self._total)
        return NodeUsage(self._started, usage, tuple(found))

    def _pod(self, pod: Manifest, stats: Iterable[pb.ContainerStats]) -> PodUsage:
        metadata = pod["metadata"]
        meter = self._meters.setdefault(metadata["uid"], _PodMeter())
        containers = []
        for one in stats:
            used, added = _measure(meter.containers, one)
            meter.total += added
            self._total += added
            containers.append(ContainerUsage(one.name, _started(pod, one.name), used))
        for gone in meter.containers.keys() - {one.name for one in containers}:
            del meter.containers[gone]
        newest = max(one.usage.time for one in containers)
        return PodUsage(
            metadata.get("namespace", "default"),
            metadata["name"],
            metadata["uid"],
            _time((pod.get("status") or {}).get("startTime")),
            _sum([one.usage for one in containers], newest, meter.total),
            tuple(containers),
        )


def _measure(meters: dict[str, _Meter], stats: pb.ContainerStats) -> tuple[Usage, int]:
    """(what the container uses, core nanoseconds since the look before)."""
    at = stats.time.seconds + stats.time.nanos / 1e9
    memory = stats.memory_working_set_bytes if stats.HasField("memory_working_set_bytes") else None
    if not stats.HasField("cpu_usage_core_nanoseconds"):
        return Usage(at, memory=memory), 0
    return _rate(meters, stats.name, at, stats.cpu_usage_core_nanoseconds, memory)


def _rate(
    meters: dict[str, _Meter], name: str, at: float, total: int, memory: int | None
) -> tuple[Usage, int]:
    meter = meters.get(name)
    if meter is None or total < meter.total:
        # New, or begun anew: all that it has used is since the look before.
        meters[name] = _Meter(at, total, rated_at=at, rated_total=total)
        return Usage(at, total, None, memory), total
    added = total - meter.total
    meter.at, meter.total = at, total
    if (passed := at - meter.rated_at) >= SHORTEST:
        meter.rate = round((total - meter.rated_total) / passed)
        meter.rated_at, meter.rated_total = at, total
    return Usage(at, total, meter.rate, memory), added


def _sum(parts: list[Usage], at: float, cpu_total: int) -> Usage:
    """What is unknown of all is unknown; what is known of some is told."""
    totals = [one.cpu_total for one in parts if one.cpu_total is not None]
    rates = [one.cpu_rate for one in parts if one.cpu_rate is not None]
    memory = [one.memory for one in parts if one.memory is not None]
    return Usage(
        at,
        cpu_total if totals or not parts else None,
        sum(rates) if rates or not parts else None,
        sum(memory) if memory or not parts else None,
    )


def _started(pod: Manifest, container: str) -> float | None:
    state = (status_of(pod, container) or {}).get("state") or {}
    return _time((state.get("running") or {}).get("startedAt"))


def _time(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return parse_rfc3339(text)
    except ValueError:
        return None
