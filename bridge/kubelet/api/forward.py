"""Connections into pods: each that the client opens is one stream to the provider."""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import web

from bridge.agent.provider import ProviderClient
from bridge.errors import BridgeError
from bridge.kubelet.api.pods import Pods, asked_for, quoted
from bridge.kubelet.api.tasks import end
from bridge.kubelet.streams import Forwarded
from bridge.kubelet.streams.upgrade import forward
from bridge.rpc.streams import Remote, open_forward
from bridge.rpc.v1 import pod_pb2, stream_pb2


class Forwards:
    """Answers `/portForward`."""

    def __init__(self, pods: Pods, provider: ProviderClient) -> None:
        self._pods = pods
        self._provider = provider

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """GET or POST /portForward/{namespace}/{pod}[/{uid}]. HTTPNotFound: there is no such
        pod, or it is over."""
        pod = asked_for(self._pods, request)
        identity = self._pods.identity(pod)
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            name = quoted(f"{identity.name}_{identity.namespace}")
            raise web.HTTPNotFound(text=f"pod not found ({name})")
        streams = await forward(request)
        if isinstance(streams, web.StreamResponse):
            return streams
        carrying: set[asyncio.Task[None]] = set()
        try:
            async for connection in streams.connections():
                task = asyncio.create_task(
                    carry(self._provider, identity, connection), name=f"port {connection.port}"
                )
                carrying.add(task)
                task.add_done_callback(carrying.discard)
        finally:
            await end(*carrying)
        # Where this is called off instead, the connection ends with its request, at once.
        await streams.close()
        return streams.response


async def carry(
    provider: ProviderClient, identity: pod_pb2.PodIdentity, connection: Forwarded
) -> None:
    """Bytes both ways until the pod's end is over; the end of the client's leaves the other one
    open. Why it could not go on is told to the client."""
    start = stream_pb2.PortForwardStart(pod=identity, port=connection.port)
    remote = await open_forward(provider, start)
    inward = asyncio.create_task(_inward(connection, remote), name="inward")
    outward = asyncio.create_task(_outward(connection, remote), name="outward")
    try:
        await asyncio.wait({inward, outward}, return_when=asyncio.FIRST_COMPLETED)
        with contextlib.suppress(ConnectionError):
            if outward.done():
                # The client has reset it, or says no more.
                outward.result()
            if error := await inward:
                error = (
                    f"error forwarding port {connection.port} to pod {identity.name},"
                    f" uid {identity.uid}: {error}"
                )
            await connection.finish(error)
    finally:
        try:
            await end(inward, outward)
        finally:
            await remote.close()


async def _inward(connection: Forwarded, remote: Remote) -> str:
    """Why it broke; empty: it has ended in order."""
    try:
        while (piece := await remote.read())[0]:
            await connection.write(piece[1])
        await remote.wait()
    except BridgeError as error:
        return error.message
    return ""


async def _outward(connection: Forwarded, remote: Remote) -> None:
    # Why it broke at the pod's end is told where that is read.
    with contextlib.suppress(BridgeError):
        while content := await connection.read():
            await remote.write(content)
        await remote.close_input()
