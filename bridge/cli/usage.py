"""What containers use, from two looks at their counters, as `kubectl top` prints it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bridge.cli.columns import pod_status
from bridge.cli.output import since
from bridge.times import rfc3339

if TYPE_CHECKING:
    from bridge.cli.select import Found
    from bridge.rpc.v1 import provider_pb2 as pb

UNKNOWN = "<unknown>"
_MEBI = 2**20


@dataclass(frozen=True, slots=True)
class Use:
    """What one container uses now. None: unknown."""

    cpu: float | None = None
    """Cores."""
    memory: int | None = None
    """Bytes."""
    time: float = 0.0
    """Seconds since the epoch."""
    window: float = 0.0
    """Seconds over which `cpu` is the mean."""


@dataclass(frozen=True, slots=True)
class _Look:
    time: float
    cpu: int | None
    memory: int | None


@dataclass(slots=True)
class Meter:
    """Takes looks in and tells what lies between the two newest of each container."""

    _newest: dict[tuple[str, str], _Look] = field(default_factory=dict)
    _uses: dict[tuple[str, str], Use] = field(default_factory=dict)

    def take(self, stats: pb.GetStatsResponse) -> None:
        """One answer of a provider."""
        for pod in stats.pods:
            for one in pod.containers:
                cpu = memory = None
                if one.HasField("cpu_usage_core_nanoseconds"):
                    cpu = one.cpu_usage_core_nanoseconds
                if one.HasField("memory_working_set_bytes"):
                    memory = one.memory_working_set_bytes
                look = _Look(one.time.ToNanoseconds() / 1e9, cpu, memory)
                self._take(pod.pod.uid, one.name, look)

    def _take(self, uid: str, container: str, look: _Look) -> None:
        key = (uid, container)
        before = self._newest.get(key)
        if before is not None and look.time <= before.time:
            # The backend has not measured anew: what is known stands.
            return
        self._newest[key] = look
        cores, window = None, 0.0
        if before is not None and before.cpu is not None and look.cpu is not None:
            window = look.time - before.time
            # A counter that went back is that of another run of the container.
            cores = (look.cpu - before.cpu) / 1e9 / window if look.cpu >= before.cpu else None
        self._uses[key] = Use(cores, look.memory, look.time, window)

    def use(self, uid: str, container: str) -> Use:
        """What a container uses; nothing is known of one that was not looked at."""
        return self._uses.get((uid, container), Use())

    def keep(self, uids: Iterable[str]) -> None:
        """Forgets all pods but these."""
        kept = set(uids)
        for table in (self._newest, self._uses):
            for key in [one for one in table if one[0] not in kept]:
                del table[key]


def total(uses: Iterable[Use]) -> Use:
    """Several containers' together: what is known of them."""
    known = list(uses)
    cpu = [one.cpu for one in known if one.cpu is not None]
    memory = [one.memory for one in known if one.memory is not None]
    return Use(
        sum(cpu) if cpu else None,
        sum(memory) if memory else None,
        max((one.time for one in known), default=0.0),
        max((one.window for one in known), default=0.0),
    )


# Lines.


@dataclass(frozen=True, slots=True)
class Line:
    """A pod's, or a container's, use."""

    pod: Found
    container: str
    """Empty: all of the pod."""
    use: Use


def lines_of(
    pods: Sequence[Found], meter: Meter, *, containers: bool, sort_by: str | None
) -> list[Line]:
    """Lines in the order of the pods, or the largest first by "cpu" or "memory"; unknown last."""
    lines = list(_lines(pods, meter, containers))
    if sort_by is not None:
        lines.sort(key=lambda line: _size(line.use, sort_by), reverse=True)
    return lines


def _lines(pods: Sequence[Found], meter: Meter, containers: bool) -> Iterator[Line]:
    for one in pods:
        uid = one.object["metadata"]["uid"]
        uses = {name: meter.use(uid, name) for name in _names(one)}
        if containers:
            yield from (Line(one, name, use) for name, use in uses.items())
        else:
            yield Line(one, "", total(uses.values()))


def _size(use: Use, by: str) -> float:
    value = use.cpu if by == "cpu" else use.memory
    return -1.0 if value is None else value


def _names(pod: Found) -> list[str]:
    """The containers that count: those of the spec, init ones while they have a state to run in."""
    spec = pod.object["spec"]
    status = pod.object.get("status") or {}
    going = {
        one["name"]
        for one in status.get("initContainerStatuses") or ()
        if "running" in (one.get("state") or {})
    }
    inits = [one["name"] for one in spec.get("initContainers") or () if one["name"] in going]
    return inits + [one["name"] for one in spec["containers"]]


def rows(
    lines: Sequence[Line], now: float, *, containers: bool, runs: bool
) -> tuple[list[str], list[list[str]]]:
    """Headers and rows. `runs`: with the run of each."""
    headers = ["POD", "NAME"] if containers else ["NAME"]
    headers = [*(["RUN"] if runs else []), *headers]
    out = []
    for line in lines:
        pod = line.pod.object
        who = [line.pod.name, line.container] if containers else [line.pod.name]
        born = since(pod["metadata"].get("creationTimestamp"), now)
        status = pod_status(pod, now)[1]
        row = [*who, cpu_words(line.use.cpu), memory_words(line.use.memory), status, born]
        out.append([line.pod.state.name, *row] if runs else row)
    return [*headers, "CPU(cores)", "MEMORY(bytes)", "STATUS", "AGE"], out


def cpu_words(cores: float | None) -> str:
    """`3m`: thousandths of a core, rounded up as a quantity is."""
    return UNKNOWN if cores is None else f"{math.ceil(round(cores * 1e9) / 1e6)}m"


def memory_words(size: int | None) -> str:
    """`12Mi`: whole mebibytes."""
    return UNKNOWN if size is None else f"{size // _MEBI}Mi"


def metrics_of(pods: Sequence[Found], meter: Meter) -> dict[str, Any]:
    """The PodMetricsList that Kubernetes' metrics API would give; without what is not known."""
    items = []
    for one in pods:
        metadata = one.object["metadata"]
        uses = {name: meter.use(metadata["uid"], name) for name in _names(one)}
        known = {name: usage for name, use in uses.items() if (usage := _usage(use))}
        if not known:
            continue
        newest = total(uses.values())
        kept = ("name", "namespace", "labels", "creationTimestamp")
        items.append(
            {
                "metadata": {key: metadata[key] for key in kept if key in metadata},
                "timestamp": rfc3339(newest.time),
                "window": f"{newest.window:.3f}s",
                "containers": [{"name": name, "usage": one} for name, one in known.items()],
            }
        )
    return {
        "apiVersion": "metrics.k8s.io/v1beta1",
        "kind": "PodMetricsList",
        "metadata": {},
        "items": items,
    }


def _usage(use: Use) -> Mapping[str, str]:
    usage = {}
    if use.cpu is not None:
        usage["cpu"] = f"{round(use.cpu * 1e9)}n"
    if use.memory is not None:
        usage["memory"] = f"{use.memory // 1024}Ki"
    return usage
