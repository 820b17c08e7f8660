"""What tests against a real control plane share: a namespace each, kubectl, a node that is played.

The control plane itself is `tools/control_plane/handle.py`'s. Each worker of pytest has one of its
own (480 MB and 4 seconds), started for the first test that asks for it: some tests take the API
server away for a while, and with one for all workers every other test would have to bear that.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.control_plane.api import Api, ApiError, Object
from tools.control_plane.handle import ControlPlane

PATIENCE = 60.0
"""Seconds that anything may take on a machine with much else to do; it takes one or two."""
__all__ = ["PATIENCE", "ApiError", "ControlPlane", "FakeNode", "Namespace", "Object", "Ran"]


@dataclass(frozen=True)
class Ran:
    """A kubectl that has ended."""

    code: int
    out: str
    err: str


def kubectl(
    plane: ControlPlane,
    *words: str,
    kubeconfig: Path | None = None,
    stdin: str | None = None,
    fails: bool = False,
) -> Ran:
    """Runs it, as the administrator unless another kubeconfig is given. `fails`: it must."""
    environment = {
        # Its caches belong to this cluster, and no proxy stands before loopback.
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "HOME": str(plane.folder),
        "KUBECONFIG": str(kubeconfig or plane.kubeconfig),
    }
    done = subprocess.run(
        [str(plane.programs["kubectl"]), *words],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    said = f"kubectl {' '.join(words)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert (done.returncode != 0) is fails, said
    return Ran(done.returncode, done.stdout, done.stderr)


@dataclass
class Namespace:
    """A namespace for one test."""

    plane: ControlPlane
    name: str
    api: Api
    """The administrator's."""

    def path(self, kind: str, name: str = "") -> str:
        """Where objects of this kind are: `pods`, `jobs`."""
        group = {"jobs": "/apis/batch/v1", "cronjobs": "/apis/batch/v1"}.get(kind, "/api/v1")
        return f"{group}/namespaces/{self.name}/{kind}" + (f"/{name}" if name else "")

    def pod(self, name: str, **spec: Any) -> Object:
        """Makes a pod of one container."""
        container = {"name": "main", "image": "registry.example.com/busybox"}
        tolerations = [{"operator": "Exists"}]
        full = {"restartPolicy": "Never", "containers": [container], "tolerations": tolerations}
        made: Object = self.api.post(
            self.path("pods"), {"metadata": {"name": name}, "spec": {**full, **spec}}
        )
        return made

    def until(self, kind: str, name: str, true_of: Callable[[Object], object]) -> Object:
        """The object, once this is true of it."""
        return self.api.until(self.path(kind, name), true_of, limit=PATIENCE)

    def kubectl(self, *words: str, **options: Any) -> Ran:
        """kubectl in this namespace."""
        return kubectl(self.plane, "--namespace", self.name, *words, **options)


@contextlib.contextmanager
def namespace(plane: ControlPlane) -> Iterator[Namespace]:
    """A new one, ready for pods; afterwards its pods are gone at once and the rest soon."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    with contextlib.closing(plane.api()) as api:
        api.post("/api/v1/namespaces", {"metadata": {"name": name}})
        # Admission gives every pod this account, and refuses it until there is one.
        api.until(f"/api/v1/namespaces/{name}/serviceaccounts/default", bool)
        made = Namespace(plane, name, api)
        try:
            yield made
        finally:
            with contextlib.suppress(OSError, http.client.HTTPException, ApiError):
                # First: pods of a namespace that ends would wait for nodes that are gone.
                api.delete(made.path("jobs"))
                api.delete(made.path("pods"), grace=0)
                api.delete(f"/api/v1/namespaces/{name}")


@dataclass
class FakeNode:
    """A node that is Ready and whose pods do what the test says. It speaks as that node."""

    plane: ControlPlane
    name: str = field(default_factory=lambda: f"fake-{uuid.uuid4().hex[:8]}")
    port: int = 0
    """Of its kubelet, where there is one, at 127.0.0.1."""
    pods: int = 110

    def __post_init__(self) -> None:
        self.api = self.plane.api(self.plane.node_kubeconfig(self.name))

    @property
    def path(self) -> str:
        """Of the Node."""
        return f"/api/v1/nodes/{self.name}"

    def register(self) -> None:
        """Makes the Node and its Lease; it is Ready, and the scheduler uses it."""
        labels = {"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux"}
        meta = {"name": self.name, "labels": labels}
        self.api.post(
            "/api/v1/nodes", {"metadata": meta, "spec": {}, "status": self._status("True")}
        )
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": now}
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        self.api.post(leases, {"metadata": {"name": self.name}, "spec": spec})
        # Admission taints every new node; the controller looks at its conditions and takes it off.
        self.api.until(self.path, lambda node: not node["spec"].get("taints"))

    def _status(self, ready: str) -> Object:
        sizes = {"cpu": "8", "memory": "16Gi", "pods": str(self.pods)}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        version = self.plane.version
        return {
            "capacity": sizes,
            "allocatable": sizes,
            "conditions": [
                {
                    "type": "Ready",
                    "status": ready,
                    "reason": "KubeletReady",
                    "message": "played by a test",
                    "lastHeartbeatTime": now,
                    "lastTransitionTime": now,
                }
            ],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}},
            "nodeInfo": dict.fromkeys(
                (
                    *("machineID", "systemUUID", "bootID", "kernelVersion", "osImage"),
                    *("operatingSystem", "architecture", "kubeProxyVersion"),
                ),
                "",
            )
            | {"kubeletVersion": version, "containerRuntimeVersion": "fake://1.0"},
        }

    def report(self, pod: Object, phase: str, *, exit_code: int | None = None) -> Object:
        """Patches the status of one of its pods."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        state: Object = {"running": {"startedAt": now}}
        if exit_code is not None:
            state = {"terminated": {"exitCode": exit_code, "startedAt": now, "finishedAt": now}}
        meta = pod["metadata"]
        container = {"name": "main", "image": "x", "imageID": "", "ready": exit_code is None}
        status = {
            "phase": phase,
            "startTime": now,
            "containerStatuses": [{**container, "restartCount": 0, "state": state}],
        }
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
        made: Object = self.api.patch(path, {"metadata": {"uid": meta["uid"]}, "status": status})
        return made

    def close(self) -> None:
        """Removes the Node."""
        self.api.close()
        with contextlib.closing(self.plane.api()) as api, contextlib.suppress(ApiError):
            api.delete(self.path)


@contextlib.contextmanager
def fake_node(plane: ControlPlane, *, port: int = 0) -> Iterator[FakeNode]:
    """One that is Ready, and its end."""
    node = FakeNode(plane, port=port)
    try:
        node.register()
        yield node
    finally:
        node.close()


def processes_of(folder: Path) -> list[str]:
    """The command lines of all processes that have to do with this folder: each component names it
    in its flags."""
    found = []
    for one in Path("/proc").iterdir():
        if one.name.isdigit() and int(one.name) != os.getpid():
            with contextlib.suppress(OSError):
                words = (one / "cmdline").read_bytes()
                # One that has ended but was not waited for has no command line.
                if str(folder).encode() in words:
                    found.append(f"{one.name}: {words.replace(bytes(1), b' ').decode()}")
    return found


def none_left(folder: Path, limit: float = PATIENCE) -> None:
    """Returns once no process of this folder is left. AssertionError with those that are."""
    deadline = time.monotonic() + limit
    while left := processes_of(folder):
        assert time.monotonic() < deadline, "\n".join(left)
        time.sleep(0.05)


@contextlib.contextmanager
def in_thread(serve: Callable[[], None], stop: Callable[[], None]) -> Iterator[None]:
    """While this goes on something is served by a thread."""
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()
