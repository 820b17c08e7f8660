"""The host's ports that pods take, asked for once more when a pod arrives: two pods that name their
node themselves may want the same. Rules and words are those of the scheduler's NodePorts and of the
kubelet's admission (pkg/scheduler/framework/types.go, pkg/kubelet/lifecycle/predicate.go).
"""

from __future__ import annotations

from collections.abc import Iterator

from bridge.pods import Manifest
from bridge.pods.phase import is_sidecar

_ALL = "0.0.0.0"  # noqa: S104 - a port there is taken at every address
_SHORT = (
    "NodePorts",
    "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
)

Place = tuple[str, int]
"""Protocol and port."""


class HostPorts:
    """Which pod has which port of the host, and at which of its addresses."""

    def __init__(self) -> None:
        self._taken: dict[Place, dict[str, set[str]]] = {}
        self._pods: dict[str, list[Place]] = {}

    def add(self, pod: Manifest) -> None:
        """The pod is admitted. One that is known already stays as it is: ports never change."""
        uid = str(pod["metadata"]["uid"])
        if uid in self._pods or not (wanted := list(_wanted(pod))):
            return
        self._pods[uid] = [place for place, _ in wanted]
        for place, address in wanted:
            self._taken.setdefault(place, {}).setdefault(uid, set()).add(address)

    def remove(self, uid: str) -> None:
        """The pod has ended or is gone. Nothing happens where it is not known."""
        for place in self._pods.pop(uid, ()):
            holders = self._taken.get(place, {})
            holders.pop(uid, None)
            if not holders:
                self._taken.pop(place, None)

    def lacks(self, pod: Manifest) -> tuple[str, str] | None:
        """Why the pod cannot be beside the others: reason and message of its failure; None: it
        can. A pod that is known already does not stand in its own way."""
        uid = str(pod["metadata"]["uid"])
        for place, address in _wanted(pod):
            for holder, addresses in self._taken.get(place, {}).items():
                if holder != uid and (address == _ALL or addresses & {address, _ALL}):
                    return _SHORT
        return None


def _wanted(pod: Manifest) -> Iterator[tuple[Place, str]]:
    """Of the containers that run as long as the pod does."""
    spec = pod["spec"]
    sidecars = [one for one in spec.get("initContainers") or () if is_sidecar(one)]
    for container in (*sidecars, *(spec.get("containers") or ())):
        for port in container.get("ports") or ():
            if number := port.get("hostPort"):
                place = (port.get("protocol") or "TCP", int(number))
                yield place, port.get("hostIP") or _ALL
