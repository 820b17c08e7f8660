"""grpc.health.v1.Health/Check of a pod, as the kubelet's gRPC probes ask (pkg/probe/grpc)."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bridge.adapter import Channel
from bridge.errors import BridgeError
from bridge.provider.probing.forward import join
from bridge.provider.probing.http_get import VERSION, Dialled


async def check(target: Dialled, port: int, service: str, timeout: float) -> tuple[bool, str]:
    """Whether the service says that it serves, and the words for it."""
    address = f"{target.address}:{port}"
    try:
        async with asyncio.timeout(timeout):
            connection = await target.dial(port)
            async with _listening(connection) as path:
                return await _ask(path, address, service)
    except TimeoutError:
        return False, f"timeout: health rpc did not complete within {timeout:g}s"
    except BridgeError as error:
        return False, f'error: failed to connect service at "{address}": {error.message}'


async def _ask(path: str, address: str, service: str) -> tuple[bool, str]:
    options = [
        ("grpc.primary_user_agent", f"kube-probe/{VERSION}"),
        ("grpc.default_authority", address),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
    ]
    async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                words = "this server does not implement the grpc health protocol"
                return False, f"error: {words} (grpc.health.v1.Health): {error.details()}"
            words = f"code = {error.code().name} desc = {error.details()}"
            return False, f"error: health rpc probe failed: rpc error: {words}"
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return False, f'service unhealthy (responded with "{name}")'
    return True, "service healthy"


@asynccontextmanager
async def _listening(connection: Channel) -> AsyncIterator[str]:
    """A socket in a folder of ours only, whose first caller is joined to the connection."""
    with tempfile.TemporaryDirectory(prefix="probe-") as folder:
        path = str(Path(folder) / "s")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            listener.setblocking(False)
            serving = asyncio.create_task(_serve(listener, connection), name="join a gRPC probe")
            try:
                yield path
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
                await connection.close()


async def _serve(listener: socket.socket, connection: Channel) -> None:
    ours, _ = await asyncio.get_running_loop().sock_accept(listener)
    # Another call finds nobody: one connection is one probe.
    listener.close()
    await join(connection, ours)
