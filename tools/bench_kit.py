"""What the parts of the bench share: figures, commands that are timed, a provider that is asked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

from bridge.agent.request import Builder, identity
from bridge.errors import BridgeError
from bridge.local.store import Store
from bridge.pods.defaults import with_defaults
from bridge.rpc.client import RemoteProvider
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb

_T = TypeVar("_T")

LIMIT = 60.0
"""Seconds that one command may take: far more than a slow machine needs."""
START = 10.0
"""Seconds that a server may take to answer."""
NODE = "bench"
PODBRIDGE = (sys.executable, "-m", "podbridge")


class NotHere(Exception):
    """A part cannot be measured on this machine; the text says why."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured line. Without a target it stands for comparison only."""

    name: str
    measured: float
    unit: str
    target: float | None = None
    at_least: bool = False
    """Whether more is better."""
    note: str = ""

    @property
    def verdict(self) -> str:
        """ok, missed, or nothing where there is no target."""
        if self.target is None:
            return ""
        met = self.measured >= self.target if self.at_least else self.measured <= self.target
        return "ok" if met else "missed"


@dataclass(frozen=True, slots=True)
class Ran:
    """One finished command: wall time in seconds, peak memory in bytes."""

    seconds: float
    memory: int


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> Ran:
    """Runs one command to its end, unseen. RuntimeError where it fails or takes too long.

    The memory is the larger of its own peak and that of any child it has waited for.
    """
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=environment,
            start_new_session=True,
        )
        watch = threading.Timer(LIMIT, os.killpg, (process.pid, signal.SIGKILL))
        watch.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            watch.cancel()
        seconds = time.perf_counter() - began
        process.returncode = code = os.waitstatus_to_exitcode(status)
        if code != 0:
            said.seek(0)
            words = said.read()[-2000:].decode(errors="replace")
            command = " ".join(arguments)
            raise RuntimeError(f"{command}: exit code {code} after {seconds:.1f} s\n{words}")
    return Ran(seconds, usage.ru_maxrss * 1024)


_LOOP = asyncio.Runner()


def in_loop(work: Coroutine[Any, Any, _T]) -> _T:
    """Its result, from one loop for all parts: gRPC's poller outlives a loop, and complains."""
    return _LOOP.run(work)


def median(times: int, arguments: Sequence[str], environment: Mapping[str, str]) -> float:
    """The median wall time of a command. A first run, which compiles, does not count."""
    run(arguments, environment)
    return statistics.median(run(arguments, environment).seconds for _ in range(times))


@contextlib.contextmanager
def serving(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    out: IO[bytes] | int = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server of its own process, ended afterwards. `out`: where it says something."""
    process = subprocess.Popen(arguments, stdout=out, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def watch(provider: RemoteProvider, cluster: str) -> AsyncIterator[pb.WatchPodsResponse]:
    """All that it tells of this cluster's node."""
    return provider.watch_pods(pb.WatchPodsRequest(cluster=cluster, node=NODE))


async def until_serving(provider: RemoteProvider, cluster: str) -> None:
    """Returns once it answers and has listed its backends."""
    async with asyncio.timeout(START):
        while True:
            with contextlib.suppress(BridgeError):
                async for message in watch(provider, cluster):
                    if any(one.HasField("synced") for one in message.events):
                        return
            await asyncio.sleep(0.05)


@dataclass(slots=True)
class Pods:
    """Pods of one container each at a provider; all are deleted at the end."""

    provider: RemoteProvider
    cluster: str = field(default_factory=lambda: str(uuid.uuid4()))
    made: list[pod_pb2.PodIdentity] = field(default_factory=list)

    async def run(self, number: int, image: str, command: Sequence[str]) -> None:
        """Has so many pods made; returns once all run."""
        await self.start(number, image, command)
        await self.until(lambda pod: any(c.HasField("running") for c in pod.containers))

    async def start(self, number: int, image: str, command: Sequence[str]) -> None:
        """Has so many pods made."""
        await until_serving(self.provider, self.cluster)
        builder = Builder(Store(self.cluster, NODE, []))
        for _ in range(number):
            pod = with_defaults(self._manifest(image, command))
            who = identity(self.cluster, NODE, pod)
            self.made.append(who)
            await self.provider.create_pod(await builder.create(pod, who, time.time()))

    async def until(
        self, true_of: Callable[[pod_pb2.PodFacts], bool], number: int | None = None
    ) -> None:
        """Returns once that was true of each of them, or of so many where they are still made."""
        await self._told(len(self.made) if number is None else number, true_of)

    def _manifest(self, image: str, command: Sequence[str]) -> dict[str, Any]:
        uid = str(uuid.uuid4())
        container = {"name": "main", "image": image, "command": [*command]}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"bench-{uid[:8]}", "namespace": "default", "uid": uid},
            "spec": {"nodeName": NODE, "restartPolicy": "Never", "containers": [container]},
        }

    async def _told(self, number: int, true_of: Any) -> None:
        epoch, done = "", set[str]()
        async for message in watch(self.provider, self.cluster):
            epoch = message.epoch
            acks = [
                pb.PodAck(uid=one.pod.pod.uid, revision=one.revision)
                for one in message.events
                if one.pod.stage in (pod_pb2.POD_STAGE_ENDED, pod_pb2.POD_STAGE_GONE)
            ]
            for event in message.events:
                if event.HasField("pod") and true_of(event.pod):
                    done.add(event.pod.pod.uid)
            if acks:
                await self.provider.ack_pods(
                    pb.AckPodsRequest(epoch=epoch, cluster=self.cluster, pods=acks)
                )
            if len(done) >= number:
                return

    async def delete(self) -> None:
        """Kills them; returns once nothing is left of any."""
        for one in self.made:
            await self.provider.delete_pod(pb.DeletePodRequest(pod=one, grace_period_seconds=0))
        gone = pod_pb2.POD_STAGE_GONE
        await self._told(len(self.made), lambda pod: pod.stage == gone)
        self.made.clear()


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int:
    """Bytes of its own that a process has in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
