"""A provider as whoever only looks sees it: it tells, and nothing can be changed through it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from bridge.rpc.v1 import provider_pb2 as pb
from bridge.rpc.v1 import stream_pb2 as streams

if TYPE_CHECKING:
    from bridge.agent.provider import ProviderClient


class Onlooker:
    """Passes on what another client of the contract tells. A pod that is asked for is told as it
    is: where it does not run, nothing starts it. `settled` returns once nothing more is due."""

    def __init__(self, provider: ProviderClient, settled: Callable[[], Awaitable[None]]) -> None:
        self._provider = provider
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
        """`Exec`: what a person runs in a container is theirs to decide."""
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
