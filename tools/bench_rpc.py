"""The part of the bench that speaks gRPC: pods created at a provider, and a bare server.

`python tools/bench_rpc.py ADDRESS` is that bare server: it answers each call with its own bytes,
and streams bytes to whoever asks for them.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from bench_kit import NODE, START, in_loop, serving, until_serving, watch

from bridge.agent.provider import ProviderClient
from bridge.agent.request import Builder, identity
from bridge.errors import BridgeError
from bridge.local.store import Store
from bridge.pods.defaults import with_defaults
from bridge.rpc.channel import CLIENT_OPTIONS, SERVER_OPTIONS
from bridge.rpc.client import RemoteProvider
from bridge.rpc.credit import FRAME
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.rpc.v1 import stream_pb2

CALLS = 10_000
IN_FLIGHT = 48
"""Calls under way at once: a queue of the agent's has up to 64."""
LIMIT = 40.0
"""Seconds that a measurement may take."""
ECHO = "/bench.Bare/Echo"
BYTES = "/bench.Bare/Bytes"
CONFIG = f"""\
apiVersion: podbridge.io/v1
backends:
  - {{name: "null", type: "null", max_pods: {CALLS}}}
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What many calls took, in seconds; `delivered` is when a watcher had the last pod running."""

    calls: int
    seconds: float
    latencies: Sequence[float]
    delivered: float = 0.0

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds

    def percentile(self, share: float) -> float:
        """The latency that this share of the calls did not exceed."""
        return sorted(self.latencies)[min(self.calls - 1, int(share * self.calls))]


def measure(
    command: Sequence[str], environment: Mapping[str, str], home: Path
) -> tuple[Load, Load]:
    """`CALLS` pods created at a provider of its own process; then the same messages sent to a
    server that does nothing. RuntimeError."""
    file = home / "provider.yaml"
    file.write_text(CONFIG)
    provider, bare = f"unix://{home}/provider.sock", f"unix://{home}/echo.sock"
    served = [*command, "--config", str(file), "provider", "--listen", provider]
    with (
        serving(served, environment),
        serving([sys.executable, __file__, bare], environment),
    ):
        # One event loop for both: gRPC's completion queue belongs to the first that it sees.
        return in_loop(_measure(provider, bare))


async def _measure(provider: str, bare: str) -> tuple[Load, Load]:
    try:
        async with asyncio.timeout(LIMIT):
            requests = await _requests()
            return await _create_pods(provider, requests), await _echo(bare, requests)
    except TimeoutError:
        raise RuntimeError(f"not done after {LIMIT:.0f} s") from None
    except (BridgeError, grpc.RpcError) as error:
        raise RuntimeError(str(error)) from error


async def _flood(calls: Sequence[Callable[[], Awaitable[Any]]]) -> Load:
    """Makes all calls, `IN_FLIGHT` at a time."""
    latencies: list[float] = []
    left = iter(calls)

    async def worker() -> None:
        for call in left:  # Each takes the next one: the iterator is shared.
            began = time.perf_counter()
            await call()
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as workers:
        for _ in range(IN_FLIGHT):
            workers.create_task(worker())
    return Load(len(latencies), time.perf_counter() - began, latencies)


async def _create_pods(address: str, requests: Sequence[pb.CreatePodRequest]) -> Load:
    client, onlooker = RemoteProvider(address), RemoteProvider(address)
    try:
        await until_serving(onlooker, requests[0].pod.cluster)
        wanted = {one.pod.uid for one in requests}
        delivery = asyncio.create_task(_delivery(onlooker, requests[0].pod.cluster, wanted))
        began = time.perf_counter()
        load = await _flood([partial(_create, client, one) for one in requests])
        last = await delivery - began
        return Load(load.calls, load.seconds, load.latencies, max(last, load.seconds))
    finally:
        await client.close()
        await onlooker.close()


async def _create(client: ProviderClient, request: pb.CreatePodRequest) -> None:
    response = await client.create_pod(request)
    if not response.HasField("accepted"):
        raise RuntimeError(f"pod {request.pod.name} was not accepted")


async def _delivery(provider: RemoteProvider, cluster: str, wanted: set[str]) -> float:
    """When the last of the wanted pods was told to be running."""
    async for message in watch(provider, cluster):
        for event in message.events:
            if any(one.HasField("running") for one in event.pod.containers):
                wanted.discard(event.pod.pod.uid)
        if not wanted:
            break
    return time.perf_counter()


async def _requests() -> list[pb.CreatePodRequest]:
    """What the agent sends for typical pods of a Job, one container each."""
    cluster = Store(str(uuid.uuid4()), NODE, [])
    builder = Builder(cluster)
    now = time.time()
    requests = []
    for number in range(CALLS):
        pod = with_defaults(_pod(number))
        requests.append(await builder.create(pod, identity(cluster.id, cluster.node, pod), now))
    return requests


def _pod(number: int) -> dict[str, Any]:
    sizes = {"cpu": "500m", "memory": "256Mi"}
    container = {
        "name": "main",
        "image": "registry.example.com/team/worker:1.4.2",
        "command": ["python3", "-m", "worker"],
        "args": ["--shard", str(number), "--output", "/out"],
        "env": [{"name": "SHARD", "value": str(number)}, {"name": "LEVEL", "value": "info"}],
        "resources": {"requests": sizes, "limits": sizes},
        "volumeMounts": [{"name": "out", "mountPath": "/out"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"worker-{number}",
            "namespace": "default",
            "uid": str(uuid.uuid4()),
            "labels": {"app": "worker", "job-name": "worker"},
            "annotations": {"batch.kubernetes.io/job-completion-index": str(number)},
            "creationTimestamp": "2026-01-31T12:00:00Z",
        },
        "spec": {
            "nodeName": NODE,
            "restartPolicy": "Never",
            "containers": [container],
            "volumes": [{"name": "out", "emptyDir": {}}],
        },
    }


async def _echo(address: str, requests: Sequence[pb.CreatePodRequest]) -> Load:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(
            ECHO,
            request_serializer=pb.CreatePodRequest.SerializeToString,
            response_deserializer=pb.CreatePodRequest.FromString,
        )
        await call(requests[0], wait_for_ready=True, timeout=START)
        return await _flood([partial(call, one) for one in requests])


async def bare_stream(address: str, size: int) -> float:
    """MB/s of so many bytes that come from the bare server, in frames as large as the contract's,
    with nobody's credit."""
    async with grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS) as channel:
        call = channel.unary_stream(
            BYTES, response_deserializer=stream_pb2.PortForwardResponse.FromString
        )
        began, got = time.perf_counter(), 0
        async for message in call(str(size).encode(), wait_for_ready=True, timeout=LIMIT):
            if not got:
                began = time.perf_counter()
            got += len(message.data)
        return got / (time.perf_counter() - began) / 1e6


async def _serve(address: str) -> None:
    async def answer(request: bytes, _: Any) -> bytes:
        return request

    async def stream(request: bytes, _: Any) -> AsyncIterator[stream_pb2.PortForwardResponse]:
        for _ in range(int(request) // FRAME):
            yield stream_pb2.PortForwardResponse(data=bytes(FRAME))

    name, _, echo = ECHO.lstrip("/").partition("/")
    handlers = {
        echo: grpc.unary_unary_rpc_method_handler(answer),
        BYTES.rpartition("/")[2]: grpc.unary_stream_rpc_method_handler(
            stream, response_serializer=stream_pb2.PortForwardResponse.SerializeToString
        ),
    }
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers)])
    server.add_insecure_port(address)
    await server.start()
    # Its parent ends it; should that be gone, it ends by itself.
    await server.wait_for_termination(2 * LIMIT)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
