"""Load one node of a cluster with pods and say what that cost. Any kubelet, the same work for each.

Usage: python tools/bench_node.py --kubeconfig FILE --node NAME [--pods N] [--pid NAME=PID ...]
           [--audit LOG --agent SUBSTRING] [--json]

Creates N pods bound to the node over a few connections, as fast as they can, and watches until all
show the phase; then deletes them and watches until all are gone. Counted are pods a second each
way, the calls that the node's own agent made (by its user agent, from the API server's audit log),
CPU seconds and memory of the given processes and their children. Nothing here knows what it
measures; the pods are as an author writes them, with their default service account's token.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import socket
import ssl
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
from bench_kit import Figure

from tools.control_plane import audit
from tools.control_plane.api import Api, ApiError

MOST = 10_000
"""Pods at once: more would measure etcd."""
SETTLE = 2.0
"""Seconds in which a node does what it still has to do once its pods are as they should be."""
QUIET = (" leases ", " nodes ", " nodes/status ")
"""Calls that a node makes with or without pods."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to do, and to whom."""

    kubeconfig: Path
    """Of somebody who may create namespaces and pods."""
    node: str
    pods: int = 200
    phase: str = "Running"
    """That every pod must reach."""
    image: str = "registry.example.com/busybox"
    command: Sequence[str] = ()
    connections: int = 8
    """That create and delete at once."""
    limit: float = 400.0
    """Seconds for each way."""
    processes: Mapping[str, int] = field(default_factory=dict)
    """Of the agent: what each is called, and its PID."""
    audit_log: Path | None = None
    agent: str = ""
    """A part of the agent's user agent."""

    def __post_init__(self) -> None:
        if not 0 < self.pods <= MOST:
            raise ValueError(f"pods: {self.pods}; allowed: 1 to {MOST}")


@dataclass(frozen=True, slots=True)
class Used:
    """What a process and its children had used at one time."""

    cpu: float
    """Seconds."""
    memory: int
    """Bytes resident."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it. Times in seconds, from the first creation or deletion on."""

    pods: int
    reached: int
    """Pods that showed the phase in time."""
    gone: int
    created_in: float
    reached_in: float
    gone_in: float
    latencies: Sequence[float]
    """From each pod's creation to its phase, sorted."""
    calls: Mapping[str, int]
    cpu: Mapping[str, float]
    """Seconds by process, from before the first creation to after the last deletion."""
    memory: Mapping[str, int]
    """Bytes by process, the largest of those seen at rest, with all pods there, and afterwards."""

    @property
    def start_rate(self) -> float:
        """Pods a second to the phase."""
        return self.reached / self.reached_in if self.reached else 0.0

    @property
    def delete_rate(self) -> float:
        """Pods a second gone."""
        return self.gone / self.gone_in if self.gone else 0.0

    @property
    def calls_a_pod(self) -> float:
        """Over its whole life, without the node's own heartbeats."""
        about = (many for name, many in self.calls.items() if not any(q in name for q in QUIET))
        return sum(about) / self.pods

    @property
    def cpu_a_pod(self) -> float:
        """Seconds of all processes together."""
        return sum(self.cpu.values()) / self.pods

    def percentile(self, share: float) -> float:
        """The latency that this share of the pods did not exceed."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


class Onlooker:
    """Watches the pods of a namespace on a thread of its own."""

    def __init__(self, api: Api, namespace: str, phase: str) -> None:
        self.reached: dict[str, float] = {}
        self.gone: dict[str, float] = {}
        self.failure: Exception | None = None
        """Why nothing more will be seen."""
        self._phase = phase
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods?watch=true&resourceVersion="
        self._version = "0"
        self._connection, self._answer = self._open()
        self._thread = threading.Thread(target=self._look)
        self._closed = False
        self._thread.start()

    def _open(self) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self._api.connect(timeout=3600)
        headers = {**self._api.access.headers, "User-Agent": "bench"}
        connection.request("GET", self._path + self._version, headers=headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise ApiError(answer.status, {}, f"WATCH {self._path}")
        return connection, answer

    def _look(self) -> None:
        try:
            while not self._closed:
                # The API server ends a watch whose client is too slow for a moment, and may do so
                # without a word.
                with contextlib.suppress(ssl.SSLEOFError):
                    while line := self._answer.readline():
                        self._see(orjson.loads(line), time.perf_counter())
                self._connection.close()
                if not self._closed:
                    self._connection, self._answer = self._open()
        except (OSError, ValueError, http.client.HTTPException, ApiError) as error:
            self.failure = error

    def _see(self, event: Mapping[str, Any], now: float) -> None:
        if event["type"] == "ERROR":
            raise ApiError(410, event["object"], f"WATCH {self._path}")
        meta = event["object"]["metadata"]
        self._version = meta["resourceVersion"]
        if event["object"].get("status", {}).get("phase") == self._phase:
            self.reached.setdefault(meta["name"], now)
        if event["type"] == "DELETED":
            self.gone[meta["name"]] = now

    def close(self) -> None:
        """Looks no more."""
        self._closed = True
        if self._connection.sock is not None:
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def until(self, seen: Mapping[str, float], load: Load) -> None:
        """Returns once all are seen, or after the limit."""
        deadline = time.perf_counter() + load.limit
        while len(seen) < load.pods and time.perf_counter() < deadline:
            time.sleep(0.02)
            _check_alive(load.processes)
            if self.failure is not None:
                raise self.failure


def measure(load: Load) -> Result:
    """Does it. ApiError or OSError where the API server refuses or is not there."""
    api = Api(load.kubeconfig, agent="bench")
    namespace = f"bench-{uuid.uuid4().hex[:8]}"
    api.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
    try:
        api.until(f"/api/v1/namespaces/{namespace}/serviceaccounts/default", bool)
        return _measure(load, api, namespace)
    finally:
        api.delete(f"/api/v1/namespaces/{namespace}")
        api.close()


def _measure(load: Load, api: Api, namespace: str) -> Result:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    _check_alive(load.processes)
    with contextlib.closing(Onlooker(api, namespace, load.phase)) as seen:
        return _watched(load, api, pods, seen)


def _watched(load: Load, api: Api, pods: str, seen: Onlooker) -> Result:
    since = audit.position(load.audit_log) if load.audit_log else 0
    looks = [_used(load.processes)]
    created: dict[str, float] = {}

    def create(number: int) -> None:
        created[f"p-{number}"] = time.perf_counter()
        api.post(pods, _pod(load, number))

    began = time.perf_counter()
    _at_once(load, api, create)
    created_in = time.perf_counter() - began
    seen.until(seen.reached, load)
    reached = dict(seen.reached)
    time.sleep(SETTLE)
    looks.append(_used(load.processes))
    deletion = time.perf_counter()
    _at_once(load, api, lambda number: api.delete(f"{pods}/p-{number}"))
    seen.until(seen.gone, load)
    gone = dict(seen.gone)
    time.sleep(SETTLE)
    looks.append(_used(load.processes))
    calls = audit.calls(load.audit_log, load.agent, since) if load.audit_log else Counter()
    return Result(
        pods=load.pods,
        reached=len(reached),
        gone=len(gone),
        created_in=created_in,
        reached_in=max(reached.values(), default=began) - began,
        gone_in=max(gone.values(), default=deletion) - deletion,
        latencies=sorted(when - created[name] for name, when in reached.items()),
        calls=dict(calls.most_common()),
        cpu={name: looks[-1][name].cpu - looks[0][name].cpu for name in load.processes},
        memory={name: max(look[name].memory for look in looks) for name in load.processes},
    )


def _pod(load: Load, number: int) -> dict[str, Any]:
    sizes = {"cpu": "1m", "memory": "1Mi"}
    container = {
        "name": "main",
        "image": load.image,
        "imagePullPolicy": "IfNotPresent",
        "resources": {"requests": sizes},
        **({"command": [*load.command]} if load.command else {}),
    }
    spec = {
        "nodeName": load.node,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "tolerations": [{"operator": "Exists"}],
    }
    return {"metadata": {"name": f"p-{number}"}, "spec": spec}


def _at_once(load: Load, api: Api, do: Callable[[int], object]) -> None:
    """Does it for every number, over some connections. Raises what the first failure raised."""
    failed: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(first, load.pods, load.connections):
                if failed:
                    return
                do(number)
        except (ApiError, OSError) as error:
            failed.append(error)
        finally:
            api.close()

    threads = [threading.Thread(target=work, args=(one,)) for one in range(load.connections)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    if failed:
        raise failed[0]


def _check_alive(processes: Mapping[str, int]) -> None:
    """ProcessLookupError where one is gone: nobody should wait for what it was to do."""
    for name, pid in processes.items():
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            state = "gone"
        if state in ("Z", "X", "gone"):
            raise ProcessLookupError(f"{name} has ended (process {pid})")


def _used(processes: Mapping[str, int]) -> dict[str, Used]:
    """What each and its descendants have used so far."""
    found: dict[int, tuple[int, float, int]] = {}
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                # proc(5), from `state` on: ppid; utime to cstime; rss in pages.
                cpu = sum(map(int, fields[11:15])) / tick
                found[int(entry.name)] = (int(fields[1]), cpu, int(fields[21]) * page)
    return {name: _tree(pid, found) for name, pid in processes.items()}


def _tree(root: int, found: Mapping[int, tuple[int, float, int]]) -> Used:
    if root not in found:
        raise ProcessLookupError(f"there is no process {root}")
    members, grown = {root}, True
    while grown:
        more = {pid for pid, (parent, _, _) in found.items() if parent in members} - members
        members |= more
        grown = bool(more)
    return Used(sum(found[pid][1] for pid in members), sum(found[pid][2] for pid in members))


def figures(result: Result, name: str) -> Iterator[Figure]:
    """The lines of the bench's table."""
    many = f"{result.pods} pods"
    if result.reached < result.pods or result.gone < result.pods:
        many = f"only {result.reached} of {many} started, {result.gone} ended"
    yield Figure(f"{name}: pods started", result.start_rate, "/s", note=many)
    if result.latencies:
        yield Figure("  latency p50", result.percentile(0.50), "s", note="from creation")
        yield Figure("  latency p99", result.percentile(0.99), "s")
    yield Figure(f"{name}: pods deleted", result.delete_rate, "/s")
    if result.calls:
        yield Figure("  API calls a pod", result.calls_a_pod, "", note=_told(result.calls))
    for one, seconds in result.cpu.items():
        yield Figure(f"  CPU a pod, {one}", seconds / result.pods * 1e3, "ms")
    for one, memory in result.memory.items():
        yield Figure(f"  memory, {one}", memory / 1e6, "MB")


def _told(calls: Mapping[str, int]) -> str:
    return ", ".join(f"{many} {name}" for name, many in [*calls.items()][:8])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--pods", type=int, default=200, help=f"at most {MOST}")
    parser.add_argument("--phase", default="Running", choices=("Running", "Succeeded", "Failed"))
    parser.add_argument("--image", default=Load.__dataclass_fields__["image"].default)
    parser.add_argument("--command", default="", help="for /bin/sh; else what the image runs")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--limit", type=float, default=400.0, help="seconds for each way")
    parser.add_argument("--pid", action="append", default=[], metavar="NAME=PID")
    parser.add_argument("--audit", type=Path, help="the API server's audit log")
    parser.add_argument("--agent", default="", help="a part of the node's user agent")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser


def main() -> int:
    """The command."""
    parser = _parser()
    given = parser.parse_args()
    named = (one.rpartition("=") for one in given.pid)
    try:
        load = Load(
            kubeconfig=given.kubeconfig,
            node=given.node,
            pods=given.pods,
            phase=given.phase,
            image=given.image,
            command=("/bin/sh", "-c", given.command) if given.command else (),
            connections=given.connections,
            limit=given.limit,
            processes={name or "agent": int(pid) for name, _, pid in named},
            audit_log=given.audit,
            agent=given.agent,
        )
        result = measure(load)
    except ValueError as error:
        parser.error(str(error))
    except (ApiError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    if given.json:
        made = asdict(result) | {
            "pods_per_second": result.start_rate,
            "deletions_per_second": result.delete_rate,
            "api_calls_a_pod": result.calls_a_pod,
            "cpu_ms_a_pod": result.cpu_a_pod * 1e3,
        }
        del made["latencies"]
        print(json.dumps(made, indent=1))
    else:
        for one in figures(result, given.node):
            print(f"{one.name:<40} {one.measured:10.2f} {one.unit:<4} {one.note}".rstrip())
    return 0 if result.reached == result.gone == result.pods else 1


if __name__ == "__main__":
    sys.exit(main())
