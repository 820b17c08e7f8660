"""The contract's calls as the pod loop sees them: in process, or at an address."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

from bridge.rpc.v1 import provider_pb2 as pb
from bridge.rpc.v1 import stream_pb2 as streams


class ProviderClient(Protocol):
    """A provider. Every call raises only `bridge.errors`."""

    async def create_pod(self, request: pb.CreatePodRequest) -> pb.CreatePodResponse:
        """`CreatePod`."""

    async def update_pod(self, request: pb.UpdatePodRequest) -> pb.UpdatePodResponse:
        """`UpdatePod`."""

    async def delete_pod(self, request: pb.DeletePodRequest) -> pb.DeletePodResponse:
        """`DeletePod`."""

    async def ack_pods(self, request: pb.AckPodsRequest) -> pb.AckPodsResponse:
        """`AckPods`."""

    def watch_node(self, request: pb.WatchNodeRequest) -> AsyncIterator[pb.WatchNodeResponse]:
        """`WatchNode`."""

    def watch_pods(self, request: pb.WatchPodsRequest) -> AsyncIterator[pb.WatchPodsResponse]:
        """`WatchPods`."""

    def get_container_logs(
        self, request: pb.GetContainerLogsRequest
    ) -> AsyncIterator[pb.GetContainerLogsResponse]:
        """`GetContainerLogs`."""

    def exec(
        self, requests: AsyncIterator[streams.ExecRequest]
    ) -> AsyncGenerator[streams.ExecResponse, None]:
        """`Exec`. `bridge.rpc.streams` speaks it."""

    def attach(
        self, requests: AsyncIterator[streams.AttachRequest]
    ) -> AsyncGenerator[streams.AttachResponse, None]:
        """`Attach`."""

    def port_forward(
        self, requests: AsyncIterator[streams.PortForwardRequest]
    ) -> AsyncGenerator[streams.PortForwardResponse, None]:
        """`PortForward`."""

    async def get_stats(self, request: pb.GetStatsRequest) -> pb.GetStatsResponse:
        """`GetStats`."""


class Passing:
    """A `ProviderClient` that passes every call on to another one: a base for those that change
    some of them."""

    def __init__(self, provider: ProviderClient) -> None:
        self._provider = provider

    async def create_pod(self, request: pb.CreatePodRequest) -> pb.CreatePodResponse:
        """`CreatePod`."""
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
