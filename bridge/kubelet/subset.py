"""A provider as a node sees it that stands for some of its backends only.

Where a pod may run is said by the annotation `podbridge.io/backend`, which the provider reads. A
pod of such a node is given to the provider with the node's own backends in it; the pod itself stays
as it is. What its author asked for narrows that further, and can never widen it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from bridge.agent.provider import Passing, ProviderClient
from bridge.agent.request import PLACED_ON
from bridge.errors import Invalid, Unavailable, Violation
from bridge.pods import Manifest
from bridge.rpc.v1 import provider_pb2 as pb

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


class Subset(Passing):
    """The provider for the pod loop of a node over some backends.

    `backends` gives those that the node has, as the provider offers them; None: not heard yet.
    """

    def __init__(
        self, provider: ProviderClient, backends: Callable[[], Sequence[pb.Backend] | None]
    ) -> None:
        super().__init__(provider)
        self._backends = backends

    def _known(self) -> Sequence[pb.Backend]:
        if not (backends := self._backends()):
            raise Unavailable("the provider has not said yet that it has the node's backends")
        return backends

    async def create_pod(self, request: pb.CreatePodRequest) -> pb.CreatePodResponse:
        """`CreatePod`. Where a pod runs it stays, whatever the node has by now. Where one that has
        not begun is to go may have been written by its author: it must be a backend of the node.
        Invalid where it is none; Unavailable before the provider has said which there are."""
        placed = request.recorded.backend
        if not placed:
            pod = narrowed(json.loads(request.manifest), self._known())
            request.manifest = json.dumps(pod).encode()
        elif not request.recorded.started:
            names = [one.name for one in self._known()]
            if placed not in names:
                words = f'found "{placed}"; this node has: {", ".join(names)}'
                raise Invalid(violations=[Violation(f"metadata.annotations[{PLACED_ON}]", words)])
        return await self._provider.create_pod(request)
