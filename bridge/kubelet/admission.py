"""What a node has admitted, and whether one more pod may come: what the kubelet asks when a pod
arrives, in its order, with its words. Only the first thing that is wrong is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bridge.agent.cluster import Lack
from bridge.kubelet.affinity import mismatch, other_system, untolerated
from bridge.kubelet.fit import Room
from bridge.kubelet.ports import HostPorts
from bridge.pods import Manifest

SYSTEM = "linux"
"""The node's operating system, as its label and nodeInfo say it."""

Refusal = tuple[str, str]
"""Reason and message of a pod's failure."""


class Admission:
    """The pods of one node. `allocatable` gives what it has for them, as quantities; empty as long
    as nobody knows, when every pod takes its room without being asked about it."""

    def __init__(self, allocatable: Callable[[], Mapping[str, str]]) -> None:
        self._allocatable = allocatable
        self._room = Room({})
        """What the admitted pods ask for together."""
        self._ports = HostPorts()
        """The host's ports that they have."""
        self._short: set[str] = set()
        """UIDs of those that have begun and ask for more than there was."""

    def refuses(self, pod: Manifest, node: Manifest | None) -> Refusal | None:
        """Why a pod that is new cannot be on the node; None: it can, and has its place now. Without
        a Node nothing is asked of labels and taints."""
        refusal = other_system(pod, SYSTEM) or self._short_of(pod)
        if refusal is None and node is not None:
            refusal = mismatch(pod, node)
        if refusal is None and self._allocatable():
            refusal = self._ports.lacks(pod)
        if refusal is None and node is not None:
            refusal = untolerated(pod, node)
        if refusal is None:
            self.add(pod)
        return refusal

    def lacks(self, pod: Manifest) -> Lack | None:
        """Why there is no room for what a pod that has begun asks for now; None: there is, and it
        has it. One for which there is none waits until another ends, if that can help it."""
        uid = pod["metadata"]["uid"]
        if (refusal := self._short_of(pod)) is None:
            self.add(pod)
            self._short.discard(uid)
            return None
        if never := self._room.never_fits(pod):
            self._short.discard(uid)
            return "Infeasible", never
        if uid in self._room:
            self._short.add(uid)
        return "Deferred", refusal[1]

    def _short_of(self, pod: Manifest) -> Refusal | None:
        if not (offered := self._allocatable()):
            return None
        self._room.resize(offered)
        return self._room.lacks(pod)

    def add(self, pod: Manifest, *, granted: bool = False) -> None:
        """The pod is admitted; `granted` as in `Room.add`."""
        self._room.add(pod, granted=granted)
        self._ports.add(pod)

    def remove(self, uid: str) -> frozenset[str]:
        """The pod has ended or is gone. UIDs of those whose wish for more has its turn by that."""
        self._short.discard(uid)
        self._ports.remove(uid)
        if uid not in self._room:
            return frozenset()
        self._room.remove(uid)
        return frozenset(self._short)
