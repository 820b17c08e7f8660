"""What the pod loop needs of a cluster: the Kubernetes API, or a store of manifests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from bridge.pods import Manifest

Lack = tuple[Literal["Deferred", "Infeasible"], str]
"""Why a node has no room for what a pod asks for by a resize: later perhaps, or never, and the
kubelet's message (canResizePod of pkg/kubelet/allocation)."""


@dataclass(frozen=True, slots=True)
class PodEvent:
    """One change of a pod bound to our node; SYNCED (without a pod) ends the first listing."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "SYNCED"]
    pod: Manifest


class Cluster(Protocol):
    """The Kubernetes side, as narrow as the loop allows. Raises only `bridge.errors`."""

    id: str
    """The cluster's UUID."""
    node: str
    """Our node's name."""

    def watch(self) -> AsyncIterator[PodEvent]:
        """Every pod bound to our node, SYNCED, then changes, for ever. After an error it is called
        again, and lists anew: what is not listed then is gone."""

    async def exists(self, namespace: str, name: str, uid: str) -> bool:
        """Asks anew, past every cache, whether the pod of that UID exists."""

    async def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """One ConfigMap, Secret or Service; None where there is none."""

    async def service_variables(self, pod: Manifest) -> list[tuple[str, str]]:
        """The variables by which the pod's containers find Services, in order."""

    def allocatable(self) -> Mapping[str, str]:
        """What the node has for pods, as quantities: what unset limits read as. Empty: unknown."""

    def host_ips(self) -> Sequence[str]:
        """The node's own addresses, the first one before all. Empty: unknown."""

    async def refuses(self, pod: Manifest) -> tuple[str, str] | None:
        """(reason, message) where a pod that is new cannot be on the node, as a kubelet sees it at
        admission: room, labels, ports, taints; None where it can."""

    def lacks(self, pod: Manifest) -> Lack | None:
        """Why the node has no room for what a pod that has begun asks for now; None: it has."""

    async def patch_status(
        self, pod: Manifest, status: Manifest, annotations: dict[str, str]
    ) -> Manifest | None:
        """Replaces the pod's status where it differs, and adds the annotations in the same call;
        the pod as it is then, or None where no pod of that UID exists."""

    async def annotate(self, pod: Manifest, annotations: dict[str, str]) -> Manifest | None:
        """Records on the pod what must outlive us (its placement); as `patch_status`."""

    async def event(
        self, pod: Manifest, kind: str, reason: str, message: str, field: str = ""
    ) -> None:
        """Tells people something about the pod: kind Normal or Warning; `field` as in
        involvedObject.fieldPath. Best effort."""

    async def token(self, pod: Manifest, audience: str, seconds: int) -> str:
        """A service account token bound to the pod. Unsupported without an API server."""

    async def delete(self, pod: Manifest) -> None:
        """Removes the pod's object at once, if it is still this UID."""
