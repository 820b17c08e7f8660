"""Whether a pod still has room on the node, asked once more when it arrives.

The scheduler has asked already; but pods name their node themselves, and two schedulers do not know
of each other. Counting, order and words are those of the scheduler's NodeResourcesFit and of the
kubelet's admission (pkg/kubelet/lifecycle/predicate.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bridge import quantity
from bridge.pods import Manifest

Amounts = Mapping[str, int]
"""By resource name: cpu in millicores, memory and storage in bytes, everything else in pieces."""

_FIRST = ("cpu", "memory", "ephemeral-storage")
"""Looked at in this order, then the rest: only the first thing that is short is told."""
_POD_LEVEL = ("cpu", "memory")
"""What a pod may ask for as a whole (KEP-2837), beside hugepages-*."""


def amounts(quantities: Mapping[str, str] | None) -> dict[str, int]:
    """Quantities as whole numbers, rounded up as Kubernetes rounds."""
    return {
        name: quantity.millicores(value) if name == "cpu" else quantity.as_int(value)
        for name, value in (quantities or {}).items()
    }


def pod_requests(pod: Manifest, *, granted: bool = False) -> dict[str, int]:
    """What a pod asks for, as the scheduler counts; or, as the kubelet counts those that it has
    admitted, what was `granted` to its containers.

    For each resource the larger of all main containers and sidecars together, and each init
    container together with the sidecars before it; what the pod asks for as a whole stands in place
    of that; the overhead comes on top. A container whose resize is under way counts with the larger
    of what it wants and what it still has. Ephemeral containers count nothing.
    """
    spec = pod["spec"]
    status = pod.get("status") or {}
    had = {
        one.get("name"): one
        for kind in ("containerStatuses", "initContainerStatuses")
        for one in status.get(kind) or ()
    }
    total: dict[str, int] = {}
    for container in spec.get("containers") or ():
        _add(total, _asked(container, had, granted))
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        own = _asked(container, had, granted)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, own)
            _raise(peak, sidecars)
        else:
            # Together with every sidecar so far, whether this one asks for that resource or not.
            together = dict(sidecars)
            _add(together, own)
            _raise(peak, together)
    _add(total, sidecars)
    _raise(total, peak)
    for name, amount in amounts((spec.get("resources") or {}).get("requests")).items():
        if name in _POD_LEVEL or name.startswith("hugepages-"):
            total[name] = amount
    _add(total, amounts(spec.get("overhead")))
    return total


def _asked(container: Manifest, had: Mapping[object, Manifest], granted: bool) -> dict[str, int]:
    own = amounts((container.get("resources") or {}).get("requests"))
    status = had.get(container.get("name")) or {}
    if granted and "resources" in status:
        return amounts(status.get("allocatedResources"))
    _raise(own, amounts(status.get("allocatedResources")))
    return own


def _add(total: dict[str, int], more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _raise(total: dict[str, int], least: Amounts) -> None:
    for name, amount in least.items():
        total[name] = max(total.get(name, 0), amount)


def is_extended(name: str) -> bool:
    """Whether a resource is one of the cluster's own (`example.com/gpu`). What a node does not have
    of those is not the node's to judge; what Kubernetes itself names, and it has not, is 0."""
    return "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")


class Room:
    """What the pods on a node ask for together. Adding and asking cost the same with 5,000 pods as
    with one."""

    def __init__(self, allocatable: Mapping[str, str]) -> None:
        self._allocatable = amounts(allocatable)
        self._pods: dict[str, dict[str, int]] = {}
        self._used: dict[str, int] = {}

    def resize(self, allocatable: Mapping[str, str]) -> None:
        """The node has this much now. Pods that no longer fit stay, as at a kubelet."""
        self._allocatable = amounts(allocatable)

    def __len__(self) -> int:
        return len(self._pods)

    def __contains__(self, uid: str) -> bool:
        return uid in self._pods

    def add(self, pod: Manifest, *, granted: bool = False) -> None:
        """The pod is admitted; or, where it was before, asks for something else now. `granted`: it
        takes what was granted to it, and a resize that is put off takes nothing from others."""
        uid = str(pod["metadata"]["uid"])
        self.remove(uid)
        own = self._pods[uid] = pod_requests(pod, granted=granted)
        _add(self._used, own)

    def remove(self, uid: str) -> None:
        """The pod has ended or is gone. Nothing happens where it is not known."""
        for name, amount in self._pods.pop(uid, {}).items():
            self._used[name] -= amount

    def never_fits(self, pod: Manifest) -> str:
        """Why what the pod asks for is more than the node could have for one; empty: it is not."""
        asked = pod_requests(pod)
        for name in ("memory", "cpu"):
            amount, capacity = asked.get(name, 0), self._allocatable.get(name, 0)
            if amount > capacity:
                words = "Node didn't have enough capacity"
                return f"{words}: {name}, requested: {amount}, capacity: {capacity}"
        return ""

    def lacks(self, pod: Manifest) -> tuple[str, str] | None:
        """Why the pod does not fit beside the others: reason and message of its failure; None: it
        fits. A pod that is counted already does not stand in its own way."""
        counted = self._pods.get(str(pod["metadata"]["uid"]))
        others = len(self._pods) - (counted is not None)
        if others + 1 > (capacity := self._allocatable.get("pods", 0)):
            return _short("pods", 1, others, capacity)
        asked = pod_requests(pod)
        for name in (*_FIRST, *sorted(asked.keys() - set(_FIRST))):
            amount = asked.get(name, 0)
            if not amount or (is_extended(name) and name not in self._allocatable):
                continue
            used = self._used.get(name, 0) - (counted or {}).get(name, 0)
            capacity = self._allocatable.get(name, 0)
            if amount > capacity - used:
                return _short(name, amount, used, capacity)
        return None


def _short(name: str, requested: int, used: int, capacity: int) -> tuple[str, str]:
    return (
        f"OutOf{name}",
        f"Node didn't have enough resource: {name}, requested: {requested}, used: {used},"
        f" capacity: {capacity}",
    )


def fits(
    pod: Manifest, allocatable: Mapping[str, str], running: Iterable[Manifest]
) -> tuple[str, str] | None:
    """Reason and message with which a kubelet would refuse the pod beside those that run; None
    where there is room. `allocatable` is the node's, as quantities; pods that have ended do not
    count and should not be among `running`."""
    room = Room(allocatable)
    for one in running:
        room.add(one)
    return room.lacks(pod)
