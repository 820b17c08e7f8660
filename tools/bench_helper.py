"""The part of the bench with the helper: what it adds to a pod, on the engine of this machine."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import bench_engine
from bench_engine import FOREVER, engine
from bench_kit import PODBRIDGE, Figure, NotHere, Pods, in_loop, serving

from bridge.errors import BridgeError
from bridge.rpc import streams
from bridge.rpc.client import RemoteProvider
from bridge.rpc.v1 import stream_pb2

PODS = 10
EXECS = 30
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class _Seen:
    """What one kind of provider's pods took. Seconds, bytes."""

    running: list[float]
    """From the request to Running, one pod after the other."""
    install: list[float]
    """The container of `install`, from its start to its end."""
    run: list[float]
    """From the start of the container's first process to that of the pod's command."""
    memory: dict[str, list[int]]
    """The helpers' resident memory, by what they are."""
    exec: list[float]


def helper(environment: Mapping[str, str], home: Path) -> Iterator[Figure]:
    """Pods in turn with and without it; then commands in one of them."""
    if problem := engine.problem():
        raise NotHere(problem)
    seen = {use: _measure(environment, home, use) for use in ("always", "never")}
    ours, bare = seen["always"], seen["never"]
    install, run = statistics.median(ours.install), statistics.median(ours.run)
    note = f"install {install * 1e3:.0f} ms, then run {run * 1e3:.0f} ms; medians of {PODS}"
    yield Figure(
        "helper: added at a container's start", (install + run) * 1e3, "ms", 150, note=note
    )
    for role, sizes in ours.memory.items():
        yield Figure(f"  memory of `{role}`", max(sizes) / 1e6, "MB", 10, note="tunnel open")
    note = f"here: a median of {statistics.median(bare.exec) * 1e3:.0f} ms without it"
    yield Figure("  exec through the tunnel", statistics.median(ours.exec) * 1e3, "ms", note=note)
    first, second = statistics.median(ours.running), statistics.median(bare.running)
    note = f"{second:.2f} s without it: the engine makes four containers, not two"
    yield Figure("  pod to Running, all of it", first, "s", note=note)


def _measure(environment: Mapping[str, str], home: Path, use: str) -> _Seen:
    address = f"unix://{home}/helper-{use}.sock"
    config = home / f"helper-{use}.yaml"
    one = {"name": "engine", "type": "engine", "helper": use, "host": engine.address()}
    config.write_text(json.dumps({"apiVersion": "podbridge.io/v1", "backends": [one]}))
    command = [*PODBRIDGE, "provider", "--on", "engine", "--listen", address]
    with serving(command, {**environment, "PODBRIDGE_CONFIG": str(config)}):
        return in_loop(_pods(address, helped=use == "always"))


async def _pods(address: str, *, helped: bool) -> _Seen:
    provider = RemoteProvider(address)
    pods = Pods(provider)
    seen = _Seen([], [], [], {"run": [], "watch": []}, [])
    try:
        # The first one has an image unpacked.
        for _ in range(PODS + 1):
            began = time.perf_counter()
            await pods.run(1, engine.BUSYBOX, FOREVER)
            seen.running.append(time.perf_counter() - began)
        del seen.running[0]
        seen.exec = [await _exec(provider, pods) for _ in range(EXECS + 1)][1:]
        if helped:
            for who in pods.made:
                await asyncio.to_thread(_look, who.uid, seen)
    except BridgeError as error:
        raise RuntimeError(f"helper: {error}") from error
    finally:
        await pods.delete()
        await provider.close()
    return seen


async def _exec(provider: RemoteProvider, pods: Pods) -> float:
    start = stream_pb2.ExecStart(
        pod=pods.made[-1], container="main", command=["true"], stdout=True, stderr=True
    )
    began = time.perf_counter()
    remote = await streams.open_exec(provider, start)
    while (await remote.read())[1]:
        pass
    if await remote.wait():
        raise RuntimeError("exec: true is not 0")
    await remote.close()
    return time.perf_counter() - began


def _look(uid: str, seen: _Seen) -> None:
    """What the engine and the kernel say of a pod's containers."""
    filters = bench_engine.label(uid)
    for one in engine.call("GET", f"/containers/json?all=true&filters={filters}"):
        name = one["Labels"].get("podbridge.io/container", "")
        state: dict[str, Any] = engine.call("GET", f"/containers/{one['Id']}/json")["State"]
        if name == "podbridge-install":
            seen.install.append(_time(state["FinishedAt"]) - _time(state["StartedAt"]))
        elif name == "podbridge-watch":
            seen.memory["watch"].append(_resident(state["Pid"]))
        elif name == "main":
            first = int(state["Pid"])
            seen.run.append(_started(_child(first)) - _started(first))
            seen.memory["run"].append(_resident(first))


def _time(text: str) -> float:
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")


def _child(pid: int) -> int:
    """The command's process: any thread of the helper may have begun it."""
    for one in Path(f"/proc/{pid}/task").glob("*/children"):
        if found := one.read_text().split():
            return int(found[0])
    raise RuntimeError(f"process {pid} has begun nothing")


def _started(pid: int) -> float:
    """Seconds after the machine's own start, to a hundredth."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / _TICK


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no memory of process {pid}")
