"""The part of the bench that moves bytes: a gigabyte through a forwarded port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import bench_rpc
from bench_kit import LIMIT, PODBRIDGE, Figure, Pods, in_loop, run, serving

from bridge.errors import BridgeError
from bridge.rpc import streams
from bridge.rpc.client import RemoteProvider
from bridge.rpc.v1 import stream_pb2

SIZE = 1 << 30
"""Bytes that are moved."""
PIECE = 1 << 20

SOURCE = f"""\
import socket
with socket.create_server(("127.0.0.1", PORT)) as server:
    while True:
        taken, _ = server.accept()
        block = memoryview(bytes({PIECE}))
        with taken:
            for _ in range({SIZE // PIECE}):
                taken.sendall(block)
"""
"""A server that sends a gigabyte to whoever connects."""


def forward(environment: Mapping[str, str], home: Path) -> Iterator[Figure]:
    """A gigabyte out of a pod on `process`: by the contract over gRPC, and by the command."""
    port, local = free_port(), free_port()
    program = SOURCE.replace("PORT", str(port))
    address = f"unix://{home}/forward.sock"
    with serving([*PODBRIDGE, "provider", "--on", "process", "--listen", address], environment):
        rate = in_loop(_contract(address, port, program))
    yield Figure("1 GiB through PortForward over gRPC", rate, "MB/s", 200, at_least=True)
    bare = f"unix://{home}/bare.sock"
    with serving([sys.executable, bench_rpc.__file__, bare], environment):
        rate = in_loop(bench_rpc.bare_stream(bare, SIZE))
    yield Figure("  a bare gRPC stream of the same frames", rate, "MB/s")
    words = ["run", "source", "--name", "source", "--on", "process", "-d", "--"]
    run([*PODBRIDGE, *words, sys.executable, "-c", program], environment)
    try:
        _until_running("source", environment)
        listening = [*PODBRIDGE, "port-forward", "source", f"{local}:{port}"]
        with serving(listening, environment):
            rate = _drain(local)
    finally:
        run([*PODBRIDGE, "delete", "source", "--grace-period", "0"], environment)
    yield Figure("1 GiB through podbridge port-forward", rate, "MB/s", 200, at_least=True)


def _until_running(name: str, environment: Mapping[str, str]) -> None:
    deadline = time.monotonic() + LIMIT
    command = [*PODBRIDGE, "exec", name, "--", "true"]
    while subprocess.run(command, env=environment, capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise RuntimeError(f"run {name} does not begin")


async def _contract(address: str, port: int, program: str) -> float:
    provider = RemoteProvider(address)
    pods = Pods(provider)
    try:
        async with asyncio.timeout(LIMIT):
            await pods.run(1, "none", [sys.executable, "-c", program])
            return await _forward(provider, pods, port)
    except (TimeoutError, BridgeError) as error:
        raise RuntimeError(f"port-forward: {error}") from error
    finally:
        await pods.delete()
        await provider.close()


async def _forward(provider: RemoteProvider, pods: Pods, port: int) -> float:
    start = stream_pb2.PortForwardStart(pod=pods.made[0], port=port)
    while True:
        try:
            remote = await streams.open_forward(provider, start)
            _, piece = await remote.read()
        except BridgeError:
            # It does not listen yet.
            await asyncio.sleep(0.05)
            continue
        break
    began, size = time.perf_counter(), len(piece)
    while piece:
        _, piece = await remote.read()
        size += len(piece)
    seconds = time.perf_counter() - began
    await remote.close()
    if size != SIZE:
        raise RuntimeError(f"port-forward: {size:,} bytes came of {SIZE:,}")
    return size / seconds / 1e6


def _drain(port: int) -> float:
    deadline = time.monotonic() + LIMIT
    taken = bytearray(PIECE)
    while time.monotonic() < deadline:
        size = 0
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as one:
            began = time.perf_counter()
            while got := one.recv_into(taken):
                size += got
        if size == SIZE:
            return size / (time.perf_counter() - began) / 1e6
        time.sleep(0.05)
    raise RuntimeError("podbridge port-forward did not pass a gigabyte")


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        number: int = one.getsockname()[1]
        return number
