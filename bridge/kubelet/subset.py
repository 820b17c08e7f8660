"""A provider as a node sees it that stands for some of its backends only.

Where a pod may run is said by the annotation `podbridge.io/backend`, which the provider reads. A
pod of such a node is given to the provider with the node's own backends in it; the pod itself stays
as it is. What its author asked for narrows that further, and can never widen it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

from bridge.agent.provider import ProviderClient
from bridge.errors import Invalid, Unavailable, Violation
from bridge.pods import Manifest
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.rpc.v1 import stream_pb2 as streams

ANNOTATION = "podbridge.io/backend"
"""Names or types of backends, with commas, as the provider takes it."""
NEVER_CHOSEN = ("process", "null")
"""Types of backends on which nothing is isolated, or nothing runs: among others they are taken only
where the pod says so, as the provider has it."""


def narrowed(pod: Manifest, backends: Sequence[pb.Backend]) -> Manifest:
    """The pod, for a provider of more than these backends. Invalid where it asks for others."""
    metadata = pod.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    asked = [one.strip() for one in str(annotations.get(ANNOTATION) or "").split(",")]
    asked = [one for one in asked if one]
    if asked:
        names = [one.name for one in backends if one.name in asked or one.type in asked]
        known = {word for one in backends for word in (one.name, one.type)}
        if strange := [one for one in asked if one not in known]:
            words = (
                f'found "{strange[0]}"; this node has: {", ".join(one.name for one in backends)}'
            )
            raise Invalid(violations=[Violation(f"metadata.annotations[{ANNOTATION}]", words)])
    else:
        chosen = [one.name for one in backends if one.type not in NEVER_CHOSEN]
        names = [backends[0].name] if len(backends) == 1 else chosen
        if not names:
            known_names = ", ".join(one.name for one in backends)
            words = f"missing; none of these is chosen without its name: {known_names}"
            raise Invalid(violations=[Violation(f"metadata.annotations[{ANNOTATION}]", words)])
    own = {**annotations, ANNOTATION: ",".join(names)}
    return {**pod, "metadata": {**metadata, "annotations": own}}


class Subset:
    """`ProviderClient` for the pod loop of a node over some backends.

    `backends` gives those that the node has, as the provider offers them; None: not heard yet.
    """

    def __init__(
        self, provider: ProviderClient, backends: Callable[[], Sequence[pb.Backend] | None]
    ) -> None:
        self._provider, self._backends = provider, backends

    def _narrow(self, manifest: bytes) -> bytes:
        if not (backends := self._backends()):
            raise Unavailable("the provider has not said yet that it has the node's backends")
        return json.dumps(narrowed(json.loads(manifest), backends)).encode()

    async def create_pod(self, request: pb.CreatePodRequest) -> pb.CreatePodResponse:
        """`CreatePod`. Where a pod was placed before it stays, whatever the node has by now."""
        if not request.recorded.backend:
            request.manifest = self._narrow(request.manifest)
        return await self._provider.create_pod(request)

    async def update_pod(self, request: pb.UpdatePodRequest) -> pb.UpdatePodResponse:
        """`UpdatePod`."""
        return await self._provider.update_pod(request)

    async def delete_pod(self, request: pb.DeletePodRequest) -> pb.DeletePodResponse:
        """`DeletePod`."""
        return await self._provider.delete_pod(request)

    async def ack_pods(self, request: pb.AckPodsRequest) -> pb.AckPodsResponse:
        """`AckPods`."""
        return await self._provider.ack_pods(request)

    def watch_node(self, request: pb.WatchNodeRequest) -> AsyncIterator[pb.WatchNodeResponse]:
        """`WatchNode`."""
        return self._provider.watch_node(request)

    def watch_pods(self, request: pb.WatchPodsRequest) -> AsyncIterator[pb.WatchPodsResponse]:
        """`WatchPods`."""
        return self._provider.watch_pods(request)

    def get_container_logs(
        self, request: pb.GetContainerLogsRequest
    ) -> AsyncIterator[pb.GetContainerLogsResponse]:
        """`GetContainerLogs`."""
        return self._provider.get_container_logs(request)

    def exec(
        self, requests: AsyncIterator[streams.ExecRequest]
    ) -> AsyncGenerator[streams.ExecResponse, None]:
        """`Exec`."""
        return self._provider.exec(requests)

    def attach(
        self, requests: AsyncIterator[streams.AttachRequest]
    ) -> AsyncGenerator[streams.AttachResponse, None]:
        """`Attach`."""
        return self._provider.attach(requests)

    def port_forward(
        self, requests: AsyncIterator[streams.PortForwardRequest]
    ) -> AsyncGenerator[streams.PortForwardResponse, None]:
        """`PortForward`."""
        return self._provider.port_forward(requests)

    async def get_stats(self, request: pb.GetStatsRequest) -> pb.GetStatsResponse:
        """`GetStats`."""
        return await self._provider.get_stats(request)
