"""A provider as whoever only looks sees it: it tells, and nothing can be changed through it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bridge.agent.provider import Passing, ProviderClient
from bridge.rpc.v1 import provider_pb2 as pb


class Onlooker(Passing):
    """Passes on what another client of the contract tells. A pod that is asked for is told as it
    is: where it does not run, nothing starts it; commands in what runs are its user's own affair.
    `settled` returns once nothing more is due."""

    def __init__(self, provider: ProviderClient, settled: Callable[[], Awaitable[None]]) -> None:
        super().__init__(provider)
        self.settled = settled

    async def create_pod(self, request: pb.CreatePodRequest) -> pb.CreatePodResponse:
        """Starts nothing. A read-only provider may adopt the pod to tell its state in full."""
        if getattr(self._provider, "read_only", False):
            return await self._provider.create_pod(request)
        return pb.CreatePodResponse(accepted=pb.Accepted(generation=request.generation))

    async def update_pod(self, request: pb.UpdatePodRequest) -> pb.UpdatePodResponse:
        """Changes nothing."""
        return pb.UpdatePodResponse(generation=request.generation)

    async def delete_pod(self, request: pb.DeletePodRequest) -> pb.DeletePodResponse:
        """Ends nothing."""
        return pb.DeletePodResponse()

    async def ack_pods(self, request: pb.AckPodsRequest) -> pb.AckPodsResponse:
        """Confirms nothing."""
        return pb.AckPodsResponse()
