"""The part of the bench with containers, on the engine of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench_kit import LIMIT, PODBRIDGE, Figure, NotHere, Pods, cpu, in_loop, serving

from bridge.errors import BridgeError
from bridge.rpc import streams
from bridge.rpc.client import RemoteProvider
from bridge.rpc.v1 import stream_pb2

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support import engine

PODS = 100
TIMES = 30
QUIET_PODS = 500
QUIET_START = 900.0
"""Seconds in which they must all run: an engine starts about five a second."""
QUIET_FOR = 30.0
"""Seconds: three lists of each backend."""
FOREVER = ("sleep", "86400")


def pods_on_engine(environment: Mapping[str, str], home: Path) -> Iterator[Figure]:
    """Pods to Running, beside the engine's own command in a loop."""
    _need()
    bare = _bare_loop()
    file = home / "containers.json"
    file.write_text(json.dumps(_job(PODS)))
    ours = _to_running([*_command("run"), "-f", str(file), "-o", "json"], environment)
    tool = _tool()
    yield Figure(f"{PODS} pods to Running on engine", ours, "pods/s")
    yield Figure(f"  bare `{tool} run -d` in a loop", bare, "/s")
    yield Figure("  ours to the bare loop", ours / bare, "", 0.8, at_least=True)


def exec_round_trip(environment: Mapping[str, str], home: Path) -> Iterator[Figure]:
    """A command in a running container, by the contract over gRPC and by the engine's own API."""
    _need()
    address = f"unix://{home}/engine.sock"
    with serving([*_command("provider"), "--listen", address], _with_engine(environment)):
        ours, bare = in_loop(_execs(address))
    note = f"medians of {TIMES}: {ours * 1e3:.0f} and {bare * 1e3:.0f} ms"
    yield Figure("exec over the engine's own", (ours - bare) * 1e3, "ms", 30, note=note)


def quiet(environment: Mapping[str, str], home: Path) -> Iterator[Figure]:
    """What a provider needs while nothing happens to its pods."""
    for backend, pods in (("process", QUIET_PODS), ("engine", QUIET_PODS)):
        if backend == "engine" and engine.problem():
            raise NotHere(engine.problem())
        address = f"unix://{home}/quiet-{backend}.sock"
        config = home / f"quiet-{backend}.yaml"
        # By default a backend takes 110 pods.
        one = {"name": backend, "type": backend, "max_pods": pods}
        config.write_text(json.dumps({"apiVersion": "podbridge.io/v1", "backends": [one]}))
        command = [*PODBRIDGE, "provider", "--on", backend, "--listen", address]
        configured = {**_with_engine(environment), "PODBRIDGE_CONFIG": str(config)}
        with serving(command, configured) as process:
            share = in_loop(_quiet(address, process.pid, pods))
        yield Figure(f"provider with {pods} quiet pods on {backend}", share, "% of a core", 3)


def _need() -> None:
    if problem := engine.problem():
        raise NotHere(problem)


def _command(word: str) -> list[str]:
    return [*PODBRIDGE, word, "--on", "engine"]


def _with_engine(environment: Mapping[str, str]) -> dict[str, str]:
    found = {} if engine.problem() else {"DOCKER_HOST": engine.address()}
    return {**environment, **found}


def _tool() -> str:
    for tool in ("podman", "docker"):
        if shutil.which(tool):
            return tool
    raise NotHere("neither podman nor docker is here to compare with")


def _bare_loop() -> float:
    """Containers a second."""
    tool = _tool()
    # Podman needs no service; Docker's command finds it by the variable.
    environment = {**os.environ, **({} if tool == "podman" else {"DOCKER_HOST": engine.address()})}
    made: list[str] = []
    began = time.perf_counter()
    try:
        for _ in range(PODS):
            done = subprocess.run(
                [tool, "run", "-d", engine.BUSYBOX, *FOREVER],
                env=environment,
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"{tool} run: {done.stderr[-500:]}")
            made.append(done.stdout.strip())
        return PODS / (time.perf_counter() - began)
    finally:
        removal = [tool, "rm", "-f", *(["-t", "0"] if tool == "podman" else []), *made]
        subprocess.run(removal, env=environment, capture_output=True, timeout=300, check=False)


def _to_running(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Pods a second from the command's start until the last one runs."""
    began = time.perf_counter()
    with subprocess.Popen(
        command, env=_with_engine(environment), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        running: set[str] = set()
        seconds = 0.0
        try:
            for line in process.stdout:
                told = json.loads(line)
                if told["type"] == "pod" and told.get("phase") == "Running":
                    running.add(told["pod"])
                if len(running) == PODS:
                    seconds = time.perf_counter() - began
                    break
        finally:
            process.send_signal(signal.SIGINT)
            # The second one leaves out the grace.
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(ValueError):
                for _ in process.stdout:
                    pass
            process.wait(300)
    if not seconds:
        raise RuntimeError(f"only {len(running)} of {PODS} pods ran")
    return PODS / seconds


def _job(pods: int) -> dict[str, Any]:
    container = {"name": "main", "image": engine.BUSYBOX, "command": [*FOREVER]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "containers"},
        "spec": {
            "completions": pods,
            "parallelism": pods,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 1,
                    "containers": [container],
                }
            },
        },
    }


async def _execs(address: str) -> tuple[float, float]:
    provider = RemoteProvider(address)
    pods = Pods(provider)
    try:
        await pods.run(1, engine.BUSYBOX, FOREVER)
        container = await _container(pods)
        start = stream_pb2.ExecStart(
            pod=pods.made[0], container="main", command=["true"], stdout=True, stderr=True
        )
        ours: list[float] = []
        bare: list[float] = []
        for _ in range(TIMES):
            began = time.perf_counter()
            remote = await streams.open_exec(provider, start)
            while (await remote.read())[1]:
                pass
            code = await remote.wait()
            await remote.close()
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            code += await asyncio.to_thread(_bare_exec, container)
            bare.append(time.perf_counter() - began)
            if code:
                raise RuntimeError("exec: true is not 0")
        return statistics.median(ours), statistics.median(bare)
    except BridgeError as error:
        raise RuntimeError(f"exec: {error}") from error
    finally:
        await pods.delete()
        await provider.close()


async def _container(pods: Pods) -> str:
    """The engine's ID of the pod's container."""
    who = pods.made[0]
    found = engine.call("GET", "/containers/json?filters=" + label(who.uid))
    named = [one for one in found if one["Labels"].get("podbridge.io/container") == "main"]
    ident: str = named[0]["Id"]
    return ident


def label(uid: str) -> str:
    """What finds a pod's containers, as it stands in a query."""
    return quote(json.dumps({"label": [f"podbridge.io/uid={uid}"]}))


def _bare_exec(container: str) -> int:
    body = {"Cmd": ["true"], "AttachStdout": True, "AttachStderr": True}
    made = engine.call("POST", f"/containers/{container}/exec", body)
    engine.call("POST", f"/exec/{made['Id']}/start", {"Detach": False, "Tty": False})
    code: int = engine.call("GET", f"/exec/{made['Id']}/json")["ExitCode"]
    return code


async def _quiet(address: str, pid: int, pods: int) -> float:
    provider = RemoteProvider(address)
    made = Pods(provider)
    try:
        async with asyncio.timeout(QUIET_START):
            await made.run(pods, "none" if "process" in address else engine.BUSYBOX, FOREVER)
        await asyncio.sleep(2)
        before = cpu(pid)
        await asyncio.sleep(QUIET_FOR)
        return (cpu(pid) - before) / QUIET_FOR * 100
    except (TimeoutError, BridgeError) as error:
        raise RuntimeError(f"quiet pods: {error or 'they do not all run'}") from error
    finally:
        await made.delete()
        await provider.close()
