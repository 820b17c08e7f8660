"""A provider at an address: the contract's calls, raising the errors of `bridge.errors`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any

import grpc

from bridge.errors import Invalid
from bridge.rpc import channel
from bridge.rpc.status import from_rpc_error
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.rpc.v1 import provider_pb2_grpc
from bridge.rpc.v1 import stream_pb2 as streams


class RemoteProvider:
    """The calls of the contract over gRPC. Unary calls and WatchPods share one connection; streams
    that carry bytes get another, so that a busy log never delays a status."""

    def __init__(self, address: str, tls: channel.Tls | None = None) -> None:
        channel.require_tls(address, tls)
        self.address = address
        self._tls = tls
        self._channel = self._open()
        self._bytes = self._open()
        stub: Any = provider_pb2_grpc.ProviderStub
        self._stub = stub(self._channel)
        self._bytes_stub = stub(self._bytes)

    async def create_pod(self, request: pb.CreatePodRequest) -> pb.CreatePodResponse:
        """`CreatePod`."""
        response: pb.CreatePodResponse = await self._unary(self._stub.CreatePod, request)
        return response

    async def update_pod(self, request: pb.UpdatePodRequest) -> pb.UpdatePodResponse:
        """`UpdatePod`."""
        response: pb.UpdatePodResponse = await self._unary(self._stub.UpdatePod, request)
        return response

    async def delete_pod(self, request: pb.DeletePodRequest) -> pb.DeletePodResponse:
        """`DeletePod`."""
        response: pb.DeletePodResponse = await self._unary(self._stub.DeletePod, request)
        return response

    async def ack_pods(self, request: pb.AckPodsRequest) -> pb.AckPodsResponse:
        """`AckPods`."""
        response: pb.AckPodsResponse = await self._unary(self._stub.AckPods, request)
        return response

    def watch_node(self, request: pb.WatchNodeRequest) -> AsyncIterator[pb.WatchNodeResponse]:
        """`WatchNode`."""
        return self._stream(self._stub.WatchNode, request)

    def watch_pods(self, request: pb.WatchPodsRequest) -> AsyncIterator[pb.WatchPodsResponse]:
        """`WatchPods`."""
        return self._stream(self._stub.WatchPods, request)

    def get_container_logs(
        self, request: pb.GetContainerLogsRequest
    ) -> AsyncIterator[pb.GetContainerLogsResponse]:
        """`GetContainerLogs`."""
        return self._stream(self._bytes_stub.GetContainerLogs, request)

    async def get_stats(self, request: pb.GetStatsRequest) -> pb.GetStatsResponse:
        """`GetStats`."""
        response: pb.GetStatsResponse = await self._unary(self._stub.GetStats, request)
        return response

    def exec(
        self, requests: AsyncIterator[streams.ExecRequest]
    ) -> AsyncGenerator[streams.ExecResponse, None]:
        """`Exec`."""
        return self._both_ways(self._bytes_stub.Exec, requests)

    def attach(
        self, requests: AsyncIterator[streams.AttachRequest]
    ) -> AsyncGenerator[streams.AttachResponse, None]:
        """`Attach`."""
        return self._both_ways(self._bytes_stub.Attach, requests)

    def port_forward(
        self, requests: AsyncIterator[streams.PortForwardRequest]
    ) -> AsyncGenerator[streams.PortForwardResponse, None]:
        """`PortForward`."""
        return self._both_ways(self._bytes_stub.PortForward, requests)

    async def close(self) -> None:
        """Ends both connections."""
        await self._channel.close()
        await self._bytes.close()

    def _open(self) -> Any:
        if self._tls is None:
            # A channel of its own each: gRPC would otherwise share one connection between them.
            options = [*channel.CLIENT_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
            return grpc.aio.insecure_channel(self.address, options=options)
        credentials = channel.client_credentials(self._tls)
        options = [*channel.CLIENT_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(self.address, credentials, options=options)

    async def _unary(self, call: Any, request: Any) -> Any:
        try:
            under_way = call(
                request, timeout=channel.UNARY_DEADLINE, metadata=channel.CONTRACT_METADATA
            )
            response = await under_way
            _agree(await under_way.trailing_metadata())
            return response
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    async def _stream(self, call: Any, request: Any) -> AsyncIterator[Any]:
        try:
            under_way = call(request, metadata=channel.CONTRACT_METADATA)
            try:
                _agree(await under_way.initial_metadata())
            except Invalid:
                under_way.cancel()
                raise
            async for message in under_way:
                yield message
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    async def _both_ways(
        self, call: Any, requests: AsyncIterator[Any]
    ) -> AsyncGenerator[Any, None]:
        under_way = call(metadata=channel.CONTRACT_METADATA)
        sending = asyncio.create_task(_send(under_way, requests), name="requests")
        try:
            _agree(await under_way.initial_metadata())
            async for message in under_way:
                yield message
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        except asyncio.CancelledError:
            if sending.done() and not sending.cancelled():
                # Not ours: the call was given up since its requests failed.
                sending.result()
            raise
        finally:
            under_way.cancel()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _send(under_way: Any, requests: AsyncIterator[Any]) -> None:
    # A call that has ended meanwhile takes no more; its end is told where its answers are read.
    with suppress(grpc.RpcError, asyncio.InvalidStateError):
        try:
            async for request in requests:
                await under_way.write(request)
        except (grpc.RpcError, asyncio.InvalidStateError, asyncio.CancelledError):
            raise
        except BaseException:
            under_way.cancel()
            raise
        await under_way.done_writing()


def _agree(metadata: Any) -> None:
    theirs = metadata.get(channel.CONTRACT_KEY) if metadata is not None else None
    if problem := channel.contract_problem(theirs):
        raise Invalid(problem)
