"""The Node object: what the provider offers, in Kubernetes' words. Pure: no clock, no network.

What a backend does not limit is not infinite here: the scheduler would pile a cluster's whole
backlog onto the node, and a container without limits reads the node's allocatable as its own
(`limits.cpu`). Each place for a pod then counts with `PER_POD`.
"""

from __future__ import annotations

import platform
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import bridge
from bridge import quantity
from bridge.kubelet.fit import amounts
from bridge.pods import Manifest
from bridge.pods.validation.names import ip_address
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.times import rfc3339

PROVIDER = "podbridge"
TAINT = {"key": "virtual-kubelet.io/provider", "value": PROVIDER, "effect": "NoSchedule"}
"""The key that every virtual kubelet uses: policies and DaemonSets already know it."""
BACKEND_LABEL = "podbridge.io/backend"
"""On a node with one backend: its name."""
BACKEND_LABELS = "backend.podbridge.io/"
"""Before each backend's name; the value is its type."""
CAPACITY_LABEL = "podbridge.io/capacity-type"

PER_POD = {"cpu": 4000, "memory": 16 << 30, "ephemeral-storage": 20 << 30}
"""Millicores and bytes for each place for a pod, where a backend names no limit of its own: what a
generous pod takes, and the disk that Fargate gives a task unasked."""
PODS = 110
"""Places for pods where a backend names no limit: what Kubernetes gives a node."""

NEWEST = 36
"""The minor version whose kubelet this one was compared with last (docs/parity.md)."""
SKEW = 3
"""How many minor versions a kubelet may be behind its API server."""
FEATURES_SINCE = 36
"""The minor version from which a node's declaredFeatures are kept (KEP-5328)."""
DECLARED = ("ExtendWebSocketsToKubelet",)
"""What is implemented of that registry: WebSockets straight from the API server."""

_SPACE = uuid.UUID("9a4d3a4e-6b44-5d0c-9d3b-54c1b1f6b6a5")
_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,6})(?:\.(\d{1,6}))?")


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What is configured about a node."""

    cluster: str
    """The cluster's UUID."""
    name: str
    address: str
    """The IP address at which the API server reaches the kubelet's API."""
    port: int = 10250
    backends: tuple[str, ...] = ()
    """Those that this node offers, by name; empty: all that the provider has."""
    labels: Mapping[str, str] = field(default_factory=dict)
    taint: bool = True
    region: str = ""
    zone: str = ""
    architecture: str = ""
    """As Go calls it (amd64, arm64); empty: this machine's own."""
    capacity_type: str = ""
    """on-demand or spot; empty: not told."""
    declared: tuple[str, ...] = DECLARED

    @property
    def provider_id(self) -> str:
        """Our own scheme: no cloud's node controller takes the node for one of its instances, does
        not find it, and deletes it."""
        return f"{PROVIDER}://{self.cluster}/{self.name}"


@dataclass(frozen=True, slots=True)
class Health:
    """Whether pods can be run here, and what is said about it."""

    ready: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What a node has, of a provider's whole offer."""

    capacity: Mapping[str, str]
    allocatable: Mapping[str, str]
    backends: tuple[pb.Backend, ...] = ()
    provider_version: str = ""

    @property
    def unready(self) -> tuple[pb.Backend, ...]:
        """The backends that take no pods at the moment."""
        return tuple(one for one in self.backends if not one.ready)


NOTHING = Offer({"pods": "0"}, {"pods": "0"})
"""What a node has whose provider was never heard."""


def offer_of(response: pb.WatchNodeResponse, backends: Sequence[str] = ()) -> Offer:
    """The part of `response` that the named backends are; all of it where none are named.

    Capacity is the sum of what the backends name, `PER_POD` and `PODS` for what they do not. A
    provider that tells of no backends is taken at its word.
    """
    chosen = [one for one in response.backends if not backends or one.name in backends]
    total: dict[str, int] = {}
    known: dict[str, bool] = {}
    for backend in chosen:
        own = amounts(backend.capacity)
        places = own.get("pods", PODS)
        for name in ("pods", *PER_POD, *sorted(own.keys() - {"pods", *PER_POD})):
            guess = PODS if name == "pods" else PER_POD.get(name, 0) * places
            total[name] = total.get(name, 0) + own.get(name, guess)
            known[name] = known.get(name, True) and name in own
    if not response.backends:
        total = amounts(response.capacity)
        places = total.setdefault("pods", PODS)
        total = {name: amount * places for name, amount in PER_POD.items()} | total
    elif len(chosen) == len(response.backends):
        # What the provider says of the whole goes before our own sum, except where that would
        # leave out the backends that name no limit.
        said = amounts(response.capacity)
        total |= {name: amount for name, amount in said.items() if known.get(name, True)}
    allocatable = dict(total)
    if len(chosen) == len(response.backends):
        for name, amount in amounts(response.allocatable).items():
            if known.get(name, True):
                allocatable[name] = min(amount, total.get(name, amount))
    return Offer(
        _quantities(total), _quantities(allocatable), tuple(chosen), response.provider_version
    )


def _quantities(values: Mapping[str, int]) -> dict[str, str]:
    out = {}
    for name, amount in values.items():
        if name == "cpu":
            out[name] = quantity.format_cpu(amount)
        elif name in ("memory", "ephemeral-storage") or name.startswith("hugepages-"):
            out[name] = quantity.format_bytes(amount)
        else:
            out[name] = str(amount)
    return out


def minor_of(git_version: str) -> int | None:
    """36 of "v1.36.3-eks-1234"; None where that is no version."""
    found = _VERSION.match(git_version)
    return int(found[2]) if found else None


def kubelet_version(git_version: str) -> str:
    """The version that the node reports to an API server of this version: its own, as far as this
    kubelet knows it, and never more than `SKEW` behind. Semantic, as version skew checks parse it.
    """
    found = _VERSION.match(git_version)
    ours = re.sub(r"[^0-9A-Za-z.-]", "-", bridge.__version__)
    if found is None:
        return f"v1.{NEWEST}.0-{PROVIDER}-{ours}"
    major, minor, patch = int(found[1]), int(found[2]), int(found[3] or 0)
    if minor > NEWEST:
        minor, patch = max(NEWEST, minor - SKEW), 0
    return f"v{major}.{minor}.{patch}-{PROVIDER}-{ours}"


def architecture() -> str:
    """This machine's, as Go calls it."""
    machine = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def labels(spec: NodeSpec, offer: Offer) -> dict[str, str]:
    """All labels that are ours to set. A node's own identity may set each of them (NodeRestriction
    lets a node have no other ones of kubernetes.io)."""
    made = {
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": spec.architecture or architecture(),
        "node.kubernetes.io/instance-type": PROVIDER,
        "node.kubernetes.io/exclude-from-external-load-balancers": "true",
        # Azure's node manager leaves a node alone that says so.
        "kubernetes.azure.com/managed": "false",
        "type": "virtual-kubelet",
    }
    for key, value in (
        ("topology.kubernetes.io/region", spec.region),
        ("topology.kubernetes.io/zone", spec.zone),
        (CAPACITY_LABEL, spec.capacity_type),
    ):
        if value:
            made[key] = value
    made |= {f"{BACKEND_LABELS}{one.name}": one.type for one in offer.backends}
    if len(offer.backends) == 1:
        made[BACKEND_LABEL] = offer.backends[0].name
    return made | dict(spec.labels)


def host_ips(node: Manifest) -> list[str]:
    """A Node's IP addresses as its pods have them: the first of its internal ones, or of its
    external ones, and one of the other family (GetNodeHostIPs in pkg/util/node/node.go)."""
    addresses = (node.get("status") or {}).get("addresses") or ()
    found: list[str] = []
    for kind in ("InternalIP", "ExternalIP"):
        for address in (str(one["address"]) for one in addresses if one.get("type") == kind):
            is_other = not found or (len(found) == 1 and (":" in address) != (":" in found[0]))
            if is_other and ip_address(address) is None:
                found.append(address)
    return found


def is_ours(label: str) -> bool:
    """Whether a label that is no longer wanted is ours to take away."""
    return label in (BACKEND_LABEL, CAPACITY_LABEL) or label.startswith(BACKEND_LABELS)


def new_node(
    spec: NodeSpec, offer: Offer, health: Health, now: float, git_version: str
) -> Manifest:
    """The whole Node, as it is created. `now` in seconds since the epoch."""
    node_spec: Manifest = {"providerID": spec.provider_id}
    if spec.taint:
        # A node's own identity may set taints now and never again.
        node_spec["taints"] = [dict(TAINT)]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": spec.name, "labels": labels(spec, offer)},
        "spec": node_spec,
        "status": status(spec, offer, health, now, git_version),
    }


def status(
    spec: NodeSpec,
    offer: Offer,
    health: Health,
    now: float,
    git_version: str,
    *,
    previous: Manifest | None = None,
) -> Manifest:
    """What is true of the node. Of `previous`, the status that Kubernetes has, only the conditions'
    lastTransitionTime is taken, where they have not changed."""
    minor = minor_of(git_version)
    made: Manifest = {
        "capacity": dict(offer.capacity),
        "allocatable": dict(offer.allocatable),
        "conditions": conditions(health, now, (previous or {}).get("conditions") or ()),
        "addresses": [
            {"type": "InternalIP", "address": spec.address},
            {"type": "Hostname", "address": spec.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": spec.port}},
        "nodeInfo": _info(spec, offer, git_version),
    }
    if spec.declared and minor is not None and minor >= FEATURES_SINCE:
        made["declaredFeatures"] = sorted(spec.declared)
    return made


def conditions(health: Health, now: float, previous: Iterable[Manifest] = ()) -> list[Manifest]:
    """The five conditions of a node. Pressure is something that machines have."""
    pressure = "has sufficient {} available"
    wanted = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", pressure.format("memory")),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", pressure.format("PID")),
        ("NetworkUnavailable", "False", "NoRouteNeeded", "needs no route of its own"),
    ]
    made = [(kind, state, reason, f"kubelet {text}") for kind, state, reason, text in wanted]
    made.append(("Ready", "True" if health.ready else "False", health.reason, health.message))
    before = {one.get("type"): one for one in previous}
    return [
        {
            "type": kind,
            "status": state,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": rfc3339(now),
            "lastTransitionTime": _since(before.get(kind), state, now),
        }
        for kind, state, reason, message in made
    ]


def _since(before: Manifest | None, state: str, now: float) -> str:
    if before is not None and before.get("status") == state and before.get("lastTransitionTime"):
        return str(before["lastTransitionTime"])
    return rfc3339(now)


def _info(spec: NodeSpec, offer: Offer, git_version: str) -> Manifest:
    # The same after every restart: a new bootID would read as a machine that was switched off.
    machine = str(uuid.uuid5(_SPACE, spec.provider_id))
    version = offer.provider_version or bridge.__version__
    types = ", ".join(sorted({one.type for one in offer.backends}))
    return {
        "machineID": machine,
        "systemUUID": machine,
        "bootID": machine,
        "kernelVersion": "",
        "osImage": f"{PROVIDER} ({types})" if types else PROVIDER,
        "containerRuntimeVersion": f"{PROVIDER}://{version}",
        "kubeletVersion": kubelet_version(git_version),
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": spec.architecture or architecture(),
    }


def why_foreign(node: Manifest, spec: NodeSpec) -> str:
    """Why a Node of our name that exists is not ours to keep; empty where it is.

    Ours is what carries our providerID or our kubeletVersion; one that no kubelet has reported for
    yet (made beforehand by somebody) may become ours.
    """
    found = str((node.get("spec") or {}).get("providerID") or "")
    version = str((((node.get("status") or {}).get("nodeInfo")) or {}).get("kubeletVersion") or "")
    if found == spec.provider_id:
        return ""
    if found.startswith(f"{PROVIDER}://"):
        other = found.removeprefix(f"{PROVIDER}://").partition("/")[0]
        return (
            f"was made for the cluster id {other}; with {spec.cluster} its pods would not be found"
            " again: configure that id, or delete the node"
        )
    if found:
        return f"has the providerID {found}"
    if version and f"-{PROVIDER}-" not in version:
        return f"is kept by a kubelet {version}"
    return ""


def labels_patch(node: Manifest, wanted: Mapping[str, str]) -> dict[str, Any]:
    """What makes our labels right and leaves those of others alone; empty: they are right."""
    there: Mapping[str, str] = node["metadata"].get("labels") or {}
    patch: dict[str, Any] = {
        name: value for name, value in wanted.items() if there.get(name) != value
    }
    return patch | {name: None for name in there if is_ours(name) and name not in wanted}


def status_patch(
    there: Manifest, wanted: Manifest, gone: Iterable[str] = (), *, heartbeat: bool = False
) -> Manifest:
    """A strategic merge patch from one status to another; empty: nothing is to say.

    Conditions of others stay. `gone` are resources that were ours and are no longer. A condition's
    lastHeartbeatTime alone is no difference; with `heartbeat` all of ours are sent.
    """
    patch: Manifest = {}
    for key in ("capacity", "allocatable"):
        had = there.get(key) or {}
        change: Manifest = {n: v for n, v in wanted[key].items() if not _same(n, had.get(n), v)}
        change |= {name: None for name in gone if name in had and name not in wanted[key]}
        if change:
            patch[key] = change
    if (there.get("addresses") or []) != wanted["addresses"]:
        # Merged by type they would keep an address that the node no longer has.
        patch["addresses"] = [*wanted["addresses"], {"$patch": "replace"}]
    for key in ("daemonEndpoints", "nodeInfo", "declaredFeatures"):
        if key in wanted and not _holds(there.get(key), wanted[key]):
            patch[key] = wanted[key]
    before = {one.get("type"): one for one in there.get("conditions") or ()}
    changed = [
        one
        for one in wanted["conditions"]
        if heartbeat or _plain(before.get(one["type"])) != _plain(one)
    ]
    if changed:
        patch["conditions"] = changed
    return patch


def _same(name: str, there: str | None, wanted: str) -> bool:
    """Whether two quantities are the same amount: the API server writes them its own way."""
    return there is not None and amounts({name: there}) == amounts({name: wanted})


def _holds(there: Any, wanted: Any) -> bool:
    """Whether `there` has all that is wanted; fields that newer API servers add are not ours."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(
            _holds(there.get(key, ""), value) for key, value in wanted.items()
        )
    return bool(there == wanted)


def _plain(condition: Manifest | None) -> Manifest:
    return {k: v for k, v in (condition or {}).items() if k != "lastHeartbeatTime"}
