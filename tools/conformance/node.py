"""The node under test: `podbridge up` beside a control plane; or one that is idle."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from tools.conformance.containers import MORTAL, engine
from tools.conformance.variants import CORES, MEMORY, PODS
from tools.control_plane.api import Api, ApiError
from tools.control_plane.handle import ControlPlane

NAME = "podbridge"
START = 120.0
"""Seconds in which the node must be Ready; it takes two."""
STOP = 30.0
"""Seconds in which it must end when told to."""
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_BEAT = 10.0
_WAITS = 30.0
"""Seconds after which the idle node refuses a pod: a test that waits for it then ends at once, and
not after minutes."""


class NotReady(Exception):
    """The node does not become Ready; the text has its own words."""


@contextlib.contextmanager
def up(
    plane: ControlPlane, folder: Path, owner: str, backend: Mapping[str, object]
) -> Iterator[Path]:
    """While this goes on the node is there, with the log of `podbridge up` at the path given.
    Afterwards no container of it is left."""
    config = folder / "podbridge.yaml"
    config.write_text(json.dumps(_config(plane, folder, backend)))
    command = [*MORTAL, sys.executable, "-m", "podbridge", "--config", str(config), "up"]
    log = folder / "node.log"
    environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        _ready(plane, process, log)
        yield log
    finally:
        _empty(plane, owner)
        _end(process)
        engine.remove(owner)


def _config(plane: ControlPlane, folder: Path, backend: Mapping[str, object]) -> dict[str, object]:
    node = {"name": NAME, "no_taint": True, "address": address(), "port": _free_port()}
    return {
        "apiVersion": "podbridge.io/v1",
        "backends": [backend],
        "nodes": [node],
        "cluster": {"kubeconfig": str(plane.kubeconfig), "state": str(folder / "state")},
    }


def address() -> str:
    """One of this machine that is not loopback, where the API server proxies to no node: the one
    from which it would speak to others. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


def _ready(plane: ControlPlane, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START
    with contextlib.closing(plane.api()) as api:
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(ApiError):
                node = api.get(f"/api/v1/nodes/{NAME}")
                conditions = (node.get("status") or {}).get("conditions") or ()
                ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
                if ready and not node["spec"].get("taints"):
                    return
            time.sleep(0.2)
    raise NotReady(log.read_text(errors="replace").strip()[-2000:] or "the node says nothing")


def _empty(plane: ControlPlane, owner: str) -> None:
    """Has the node remove its pods, of which there are some where the tests were cut short; what
    is not gone in time is taken from the engine."""
    with contextlib.suppress(ApiError, OSError, http.client.HTTPException):
        with contextlib.closing(plane.api()) as api:
            pods = api.get("/api/v1/pods").get("items") or ()
            for namespace in {pod["metadata"]["namespace"] for pod in pods}:
                api.delete(f"/api/v1/namespaces/{namespace}/pods", grace=0)
        deadline = time.monotonic() + STOP
        while engine.owned(owner) and time.monotonic() < deadline:
            time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def idle(plane: ControlPlane) -> Iterator[None]:
    """A node that is Ready and runs nothing: what passes there tells nothing about any node."""
    stop = threading.Event()
    with contextlib.closing(plane.api()) as api:
        api.post("/api/v1/nodes", _idle_node(plane.version))
        spec = {"holderIdentity": NAME, "leaseDurationSeconds": 40, "renewTime": _now()}
        api.post(_LEASES, {"metadata": {"name": NAME}, "spec": spec})
        api.until(f"/api/v1/nodes/{NAME}", lambda node: not node["spec"].get("taints"))

        def beat() -> None:
            seen: dict[str, float] = {}
            while not stop.wait(_BEAT):
                api.patch(f"{_LEASES}/{NAME}", {"spec": {"renewTime": _now()}})
                _refuse(api, seen)

        thread = threading.Thread(target=beat, name="lease")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _refuse(api: Api, seen: dict[str, float]) -> None:
    """Fails the pods that have waited. `seen`: by UID, since when they are there."""
    refused = {"phase": "Failed", "reason": "Idle", "message": "nothing runs on this node"}
    now = time.monotonic()
    for pod in api.get("/api/v1/pods").get("items") or ():
        meta = pod["metadata"]
        late = now - seen.setdefault(meta["uid"], now) > _WAITS
        if late and pod["status"].get("phase") == "Pending":
            with contextlib.suppress(ApiError):
                path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
                api.patch(f"{path}/status", {"status": refused})


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _idle_node(version: str) -> dict[str, object]:
    sizes = {"cpu": CORES, "memory": MEMORY, "pods": str(PODS)}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    times = {"lastHeartbeatTime": now, "lastTransitionTime": now}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", **times}
    names = ("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "kubeProxyVersion")
    info = dict.fromkeys(names, "") | {"kubeletVersion": version, "operatingSystem": "linux"}
    info |= {"architecture": "amd64", "containerRuntimeVersion": "none://0"}
    labels = {"kubernetes.io/hostname": NAME, "kubernetes.io/os": "linux"}
    status = {
        "capacity": sizes,
        "allocatable": sizes,
        "conditions": [ready],
        "addresses": [{"type": "InternalIP", "address": address()}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": info,
    }
    return {"metadata": {"name": NAME, "labels": labels}, "spec": {}, "status": status}
