"""The contract served over gRPC: health, reflection, errors as statuses, the contract's number."""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from bridge.errors import BridgeError, Invalid, Unavailable, Violation
from bridge.provider.service import Provider
from bridge.rpc import channel
from bridge.rpc.status import to_status
from bridge.rpc.v1 import provider_pb2, provider_pb2_grpc

SERVICE = provider_pb2.DESCRIPTOR.services_by_name["Provider"].full_name

_log = logging.getLogger(__name__)


class _Servicer(provider_pb2_grpc.ProviderServicer):
    """Each rpc hands over to the provider; what it raises becomes a status."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def CreatePod(self, request: Any, context: Any) -> Any:
        return await self._unary(self._provider.create_pod, request, context)

    async def UpdatePod(self, request: Any, context: Any) -> Any:
        return await self._unary(self._provider.update_pod, request, context)

    async def DeletePod(self, request: Any, context: Any) -> Any:
        return await self._unary(self._provider.delete_pod, request, context)

    async def AckPods(self, request: Any, context: Any) -> Any:
        return await self._unary(self._provider.ack_pods, request, context)

    async def WatchNode(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for message in self._stream(self._provider.watch_node, request, context):
            yield message

    async def WatchPods(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for message in self._stream(self._provider.watch_pods, request, context):
            yield message

    async def GetContainerLogs(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for message in self._stream(self._provider.get_container_logs, request, context):
            yield message

    async def GetStats(self, request: Any, context: Any) -> Any:
        return await self._unary(self._provider.get_stats, request, context)

    async def Exec(self, requests: Any, context: Any) -> None:
        await self._both_ways(self._provider.exec, requests, context)

    async def Attach(self, requests: Any, context: Any) -> None:
        await self._both_ways(self._provider.attach, requests, context)

    async def PortForward(self, requests: Any, context: Any) -> None:
        await self._both_ways(self._provider.port_forward, requests, context)

    async def _unary(
        self, call: Callable[[Any], Awaitable[Any]], request: Any, context: Any
    ) -> Any:
        # With the answer itself: initial metadata would cost each call another round to the core.
        context.set_trailing_metadata(channel.CONTRACT_METADATA)
        if problem := _problem(context):
            await _abort(context, Invalid(problem))
        try:
            return await call(request)
        except BridgeError as error:
            await _abort(context, error)
        except Exception:  # noqa: BLE001 - a defect of ours: the caller retries, learns nothing
            _log.exception("call failed")
            await _abort(context, Unavailable("the provider failed; see its log"))

    async def _stream(
        self, call: Callable[[Any], AsyncIterator[Any]], request: Any, context: Any
    ) -> AsyncIterator[Any]:
        await context.send_initial_metadata(channel.CONTRACT_METADATA)
        if problem := _problem(context):
            await _abort(context, Invalid(problem))
        try:
            async for message in call(request):
                yield message
        except BridgeError as error:
            await _abort(context, error)
        except Exception:  # noqa: BLE001 - a defect of ours: the caller retries, learns nothing
            _log.exception("stream failed")
            await _abort(context, Unavailable("the provider failed; see its log"))

    async def _both_ways(
        self, call: Callable[[Any], AsyncGenerator[Any, None]], requests: Any, context: Any
    ) -> None:
        await context.send_initial_metadata(channel.CONTRACT_METADATA)
        if problem := _problem(context):
            await _abort(context, Invalid(problem))
        try:
            # Written here rather than yielded: a client that leaves while a message is on its way
            # is noticed here, and the provider's side is closed before this returns.
            async with aclosing(call(requests)) as messages:
                async for message in messages:
                    await context.write(message)
        except BridgeError as error:
            await _abort(context, error)
        except Exception:  # noqa: BLE001 - a defect of ours: the caller retries, learns nothing
            _log.exception("stream failed")
            await _abort(context, Unavailable("the provider failed; see its log"))


def _problem(context: Any) -> str:
    for key, theirs in context.invocation_metadata() or ():
        if key == channel.CONTRACT_KEY:
            return channel.contract_problem(theirs)
    return ""


async def _abort(context: Any, error: BridgeError) -> None:
    await context.abort_with_status(rpc_status.to_status(to_status(error)))


class Server:
    """A provider listening on one address: `unix:///path`, or `host:port` (port 0: a free one)."""

    def __init__(self, provider: Provider, address: str, tls: channel.Tls | None = None) -> None:
        channel.require_tls(address, tls)
        self._provider = provider
        self._asked = address
        self._tls = tls
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=channel.SERVER_OPTIONS)
        self.address = address

    async def start(self) -> str:
        """Listens; returns the address with its real port. Invalid where it is taken."""
        add_servicer: Any = provider_pb2_grpc.add_ProviderServicer_to_server
        add_servicer(_Servicer(self._provider), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        self._clear_socket()
        try:
            if self._tls is None:
                port = self._server.add_insecure_port(self._asked)
            else:
                port = self._server.add_secure_port(
                    self._asked, channel.server_credentials(self._tls)
                )
        except RuntimeError as error:
            raise self._in_use() from error
        if not self._asked.startswith("unix:"):
            self.address = f"{self._asked.rpartition(':')[0]}:{port}"
        await self._server.start()
        self._protect_socket()
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return self.address

    async def stop(self, grace: float = 1.0) -> None:
        """Says that it leaves, and lets calls under way finish for `grace` seconds."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)

    async def wait(self) -> None:
        """Returns once it has stopped."""
        await self._server.wait_for_termination()

    def _in_use(self) -> Invalid:
        words = f"cannot listen on {self._asked}: the address is in use"
        return Invalid(violations=[Violation("--listen", words)])

    def _socket(self) -> Path | None:
        if not self._asked.startswith("unix:"):
            return None
        return Path("/" + self._asked.removeprefix("unix:").lstrip("/"))

    def _clear_socket(self) -> None:
        path = self._socket()
        if path is None:
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            # gRPC would take the path over from a provider that listens there.
            if _answers(path):
                raise self._in_use()
            path.unlink()

    def _protect_socket(self) -> None:
        if (path := self._socket()) is not None:
            os.chmod(path, 0o600)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
