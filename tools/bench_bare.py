"""The least that can be a kubelet, for the bench: what the API server and the language allow.

Usage: python tools/bench_bare.py play KUBECONFIG NODE    (until SIGTERM)
       python tools/bench_bare.py measure [--pods N] [--json]

It plays a node with the calls that a kubelet must make for a pod and nothing else: a token,
Running, one event Started; when the pod is deleted one event Killing, its terminal status and the
last DELETE. Raw JSON, one pool of connections, no limit of its own, no semantics. A real node is
measured against this in the same run; `measure` does it alone, on a control plane of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import bench_node
import orjson

from bridge.times import rfc3339
from tools.control_plane import assets, handle
from tools.control_plane.api import MERGE, STRATEGIC, Access

AGENT = "bare-node"
WORKERS = 16
"""Pods that are worked on at once; more only wait for the API server."""
HEARTBEAT = 10.0
"""Seconds between two renewals of the Lease, as a kubelet has it."""
START = 60.0
"""Seconds that it may take to play."""
TOKEN_LIFE = 3607
"""Seconds: what the default volume of a pod asks for."""
Object = dict[str, Any]


class BareNode:
    """One node, until it is cancelled."""

    def __init__(self, session: aiohttp.ClientSession, access: Access, node: str) -> None:
        self._session, self._server, self._node = session, access.server, node
        self._pods: dict[str, Object] = {}
        """By UID, the latest of each that somebody has to look at."""
        self._busy: set[str] = set()
        self._running: set[str] = set()
        self._ended: set[str] = set()
        """For good: no UID comes back, but late news do."""
        self._queue: asyncio.Queue[str] = asyncio.Queue()

    async def play(self) -> None:
        """Registers, says READY on stdout, and keeps its pods."""
        await self._register()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat())
            tasks.create_task(self._watch())
            for _ in range(WORKERS):
                tasks.create_task(self._work())

    async def _call(
        self, method: str, path: str, body: Object, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        async with self._session.request(
            method,
            self._server + path,
            data=orjson.dumps(body),
            headers={"Content-Type": kind},
        ) as answer:
            return answer.status, await answer.read()

    async def _must(self, method: str, path: str, body: Object, *codes: int, kind: str) -> None:
        code, said = await self._call(method, path, body, kind)
        if code >= 300 and code not in codes:
            raise RuntimeError(f"{method} {path}: {code} {said[:300].decode(errors='replace')}")

    async def _register(self) -> None:
        now = rfc3339(time.time())
        ready = {
            **{"type": "Ready", "status": "True", "reason": "KubeletReady"},
            **{"message": "bare", "lastHeartbeatTime": now, "lastTransitionTime": now},
        }
        sizes = {"cpu": "10k", "memory": "100Ti", "pods": str(bench_node.MOST)}
        status = {"capacity": sizes, "allocatable": sizes, "conditions": [ready]}
        node = {"metadata": {"name": self._node}, "spec": {}, "status": status}
        await self._must("POST", "/api/v1/nodes", node, 409, kind="application/json")
        lease = {"metadata": {"name": self._node}, "spec": self._held()}
        await self._must("POST", self._leases, lease, 409, kind="application/json")

    @property
    def _leases(self) -> str:
        return "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

    def _held(self) -> Object:
        now = f"{rfc3339(time.time())[:-1]}.000000Z"
        return {"holderIdentity": self._node, "leaseDurationSeconds": 40, "renewTime": now}

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            await self._must(
                "PATCH", f"{self._leases}/{self._node}", {"spec": self._held()}, kind=MERGE
            )

    async def _watch(self) -> None:
        """Sees every change. The API server ends a watch whose client is too slow for a moment."""
        version, said = "", False
        path = f"/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3D{self._node}"
        while True:
            async with self._session.get(
                f"{self._server}{path}&resourceVersion={version}",
                timeout=aiohttp.ClientTimeout(total=None),
            ) as answer:
                if answer.status != 200:
                    raise RuntimeError(f"the watch is refused: {answer.status}")
                if not said:
                    print("READY", flush=True)
                    said = True
                async for line in answer.content:
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise RuntimeError(f"the watch has ended: {event['object']}")
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "DELETED":
                        self._look_at(event["object"])

    def _look_at(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._ended:
            return
        if uid in self._running and "deletionTimestamp" not in pod["metadata"]:
            return  # Our own doing.
        self._pods[uid] = pod
        if uid not in self._busy:
            self._busy.add(uid)
            self._queue.put_nowait(uid)

    async def _work(self) -> None:
        while True:
            uid = await self._queue.get()
            while (pod := self._pods.pop(uid, None)) is not None:
                if uid in self._ended:
                    continue
                if "deletionTimestamp" in pod["metadata"]:
                    await self._end(pod)
                elif uid not in self._running:
                    self._running.add(uid)
                    await self._start(pod)
            self._busy.discard(uid)

    async def _start(self, pod: Object) -> None:
        meta, now = pod["metadata"], rfc3339(time.time())
        await self._token(pod)
        state = {"running": {"startedAt": now}}
        status = self._status(pod, "Running", state, now) | {
            "startTime": now,
            "hostIP": "10.1.0.1",
            "podIP": "10.1.0.2",
            "podIPs": [{"ip": "10.1.0.2"}],
            "qosClass": pod["status"].get("qosClass", "Burstable"),
        }
        await self._report(meta, status)
        await self._tell(meta, "Started", "Container started", now)

    async def _tell(self, meta: Object, reason: str, message: str, now: str) -> None:
        event = {
            "metadata": {"generateName": f"{meta['name']}."},
            "involvedObject": {
                **{"kind": "Pod", "apiVersion": "v1", "namespace": meta["namespace"]},
                **{"name": meta["name"], "uid": meta["uid"]},
                "fieldPath": "spec.containers{main}",
            },
            **{"type": "Normal", "reason": reason, "message": message, "count": 1},
            **{"firstTimestamp": now, "lastTimestamp": now},
            "source": {"component": "kubelet", "host": self._node},
        }
        path = f"/api/v1/namespaces/{meta['namespace']}/events"
        await self._must("POST", path, event, kind="application/json")

    async def _token(self, pod: Object) -> None:
        meta, account = pod["metadata"], pod["spec"].get("serviceAccountName", "default")
        path = f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/{account}/token"
        bound = {"kind": "Pod", "apiVersion": "v1", "name": meta["name"], "uid": meta["uid"]}
        spec = {"audiences": [], "expirationSeconds": TOKEN_LIFE, "boundObjectRef": bound}
        # The API server's own parts hear of a new pod as everybody does: one may not know it yet.
        for _ in range(50):
            code, said = await self._call("POST", path, {"spec": spec})
            if code == 201:
                return
            if code not in (403, 404):
                break
            await asyncio.sleep(0.05)
        raise RuntimeError(f"no token for {meta['name']}: {code} {said[:300]!r}")

    async def _end(self, pod: Object) -> None:
        meta, now = pod["metadata"], rfc3339(time.time())
        if pod["status"].get("phase") != "Failed":
            ended = {
                "exitCode": 143,
                "reason": "Error",
                "startedAt": pod["status"].get("startTime", now),
                "finishedAt": now,
            }
            await self._tell(meta, "Killing", "Stopping container main", now)
            await self._report(meta, self._status(pod, "Failed", {"terminated": ended}, now))
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        options = {
            **{"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0},
            "preconditions": {"uid": meta["uid"]},
        }
        await self._must("DELETE", path, options, 404, 409, kind="application/json")
        self._ended.add(meta["uid"])
        self._running.discard(meta["uid"])

    def _status(self, pod: Object, phase: str, state: Mapping[str, Any], now: str) -> Object:
        running = phase == "Running"
        container = pod["spec"]["containers"][0]
        told = "True" if running else "False"
        ready = dict.fromkeys(("Ready", "ContainersReady"), told)
        ready |= {"Initialized": "True", "PodReadyToStartContainers": told}
        return {
            "phase": phase,
            "conditions": [
                {"type": kind, "status": value, "lastTransitionTime": now}
                for kind, value in ready.items()
            ],
            "containerStatuses": [
                {
                    **{"name": container["name"], "image": container["image"], "imageID": ""},
                    **{"containerID": f"bare://{pod['metadata']['uid']}", "restartCount": 0},
                    **{"ready": running, "started": running, "state": state},
                }
            ],
        }

    async def _report(self, meta: Object, status: Object) -> None:
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
        body = {"metadata": {"uid": meta["uid"]}, "status": status}
        await self._must("PATCH", path, body, 404, 409, kind=STRATEGIC)


@contextlib.asynccontextmanager
async def _session(access: Access) -> AsyncIterator[aiohttp.ClientSession]:
    tls = access.tls if access.tls is not None else False
    connector = aiohttp.TCPConnector(limit=WORKERS + 2, ssl=tls)
    headers = {"User-Agent": AGENT, "Accept": "application/json", **access.headers}
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, read_bufsize=1 << 20
    ) as session:
        yield session


async def _play(kubeconfig: Path, node: str) -> None:
    access = Access.read(kubeconfig)
    async with _session(access) as session:
        playing = asyncio.ensure_future(BareNode(session, access, node).play())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, playing.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await playing


def _told(kubeconfig: Path, node: str) -> int:
    try:
        asyncio.run(_play(kubeconfig, node))
    except (RuntimeError, OSError, aiohttp.ClientError, ExceptionGroup) as error:
        first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        print(f"error: {first}", file=sys.stderr)
        return 3
    return 0


@contextlib.contextmanager
def playing(plane: handle.ControlPlane, node: str) -> Iterator[subprocess.Popen[bytes]]:
    """The bare node in a process of its own; RuntimeError where it does not start."""
    command = [sys.executable, __file__, "play", str(plane.node_kubeconfig(node)), node]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        if process.stdout.readline() != b"READY\n":
            raise RuntimeError(f"the bare node has ended with {process.wait(START)}")
        yield process
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def measured(plane: handle.ControlPlane, pods: int) -> bench_node.Result:
    """What the bare node reaches on this control plane, which has an audit log."""
    node = "bare"
    with playing(plane, node) as process:
        return bench_node.measure(
            bench_node.Load(
                kubeconfig=plane.kubeconfig,
                node=node,
                pods=pods,
                processes={"loop": process.pid},
                audit_log=plane.audit_log,
                agent=AGENT,
            )
        )


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="verb", required=True)
    play = commands.add_parser("play", help="be a node until SIGTERM")
    play.add_argument("kubeconfig", type=Path)
    play.add_argument("node")
    measure = commands.add_parser("measure", help="on a control plane of its own")
    measure.add_argument("--pods", type=int, default=2000)
    measure.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    given = parser.parse_args()
    if given.verb == "play":
        return _told(given.kubeconfig, given.node)
    try:
        assets.locate()
        with (
            tempfile.TemporaryDirectory(prefix="podbridge-bench-") as folder,
            handle.running(Path(folder), audit=True) as plane,
        ):
            result = measured(plane, given.pods)
    except (assets.Missing, handle.NotRunning, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    if given.json:
        print(
            json.dumps(
                {one.name.strip(): one.measured for one in bench_node.figures(result, "bare")}
            )
        )
    else:
        for one in bench_node.figures(result, "bare"):
            print(f"{one.name:<28} {one.measured:10.2f} {one.unit:<4} {one.note}".rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
