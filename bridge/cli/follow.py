"""Follows the logs of a run's containers: every run of each, each byte once.

What is read of a run survives a lost stream: it is opened again and what was seen is skipped. At
most `limit` streams are open; when more containers run than that, quiet ones take turns.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal, cast

from bridge.agent.provider import ProviderClient
from bridge.agent.request import identity
from bridge.errors import BridgeError, Invalid, NotFound, Unsupported
from bridge.local.outcome import pod_over
from bridge.local.session import NODE
from bridge.local.store import Change
from bridge.pods import Manifest
from bridge.rpc.v1 import provider_pb2 as pb

STREAMS = 64
"""Open streams at the most."""
LONGEST_LINE = 64 * 1024
"""Bytes of a line that are kept until its end comes; a longer one is passed on in pieces."""
QUIET_SECONDS, TURN_SECONDS = 2.0, 10.0
"""While others wait: a stream gives way after so long without a byte, or after so long in all."""
FIRST_RETRY, LONGEST_RETRY = 0.1, 5.0
"""Seconds before a broken stream is opened again: doubling from the first to the longest."""
NOT_FOUND_TRIES = 14
"""Times that the log of an ended run may not be found: some 40 s, as a provider that has just
started, or looks on while another process runs the pods, hears of each only with its next list,
and a busy engine lists slowly."""

_log = logging.getLogger(__name__)

Sink = Callable[[Manifest, str, bytes], None]
"""(pod, container, whole lines): only the last of a run may lack its newline, and one that is
longer than `LONGEST_LINE` comes in pieces."""


async def _no_wait() -> None:
    return


@dataclass(slots=True, eq=False)
class _Reading:
    """One run of a container, until its log is read to the end."""

    uid: str
    container: str
    number: int
    """Its restart count."""
    ended: bool = False
    began: bool = True
    """Whether it is known to have started at all."""
    seen: int = 0
    partial: bytes = b""
    failures: int = 0
    opened: float = 0.0
    heard: float = 0.0
    giving_way: bool = False


@dataclass(slots=True)
class _Pod:
    manifest: Manifest
    newest: dict[str, int] = field(default_factory=dict)
    """By container the number of its newest known run."""
    readings: dict[tuple[str, int], _Reading] = field(default_factory=dict)
    gone: bool = False
    told: bool = False


class LogFollower:
    """Passes the logs of the pods that it is told of to `sink`.

    `cluster`: the run's UID. `mode`: "all" live; "failed" only runs that failed, once they have;
    "none" nothing. `ended` is called with a pod that is over, once all of its log was passed on;
    `problem` with words about logs that cannot be had; `room` is awaited before more is read. Runs
    that began and ended between two changes are read if they are the last or the one before; older
    ones nobody has.
    """

    def __init__(
        self,
        provider: ProviderClient,
        sink: Sink,
        mode: Literal["all", "failed", "none"] = "all",
        *,
        cluster: str,
        node: str = NODE,
        ended: Callable[[Manifest], None] = lambda _: None,
        problem: Callable[[str], None] = lambda _: None,
        room: Callable[[], Awaitable[None]] = _no_wait,
        limit: int = STREAMS,
    ) -> None:
        self._provider = provider
        self._cluster, self._node = cluster, node
        self._sink = sink
        self._mode = mode
        self._ended = ended
        self._problem = problem
        self._room = room
        self._limit = limit
        self._pods: dict[str, _Pod] = {}
        self._waiting: deque[_Reading] = deque()
        self._active: dict[_Reading, asyncio.Task[None]] = {}
        self._due: set[_Reading] = set()
        """Runs that have ended and are not read to their end."""
        self._retries: dict[_Reading, asyncio.TimerHandle] = {}
        self._turns: asyncio.TimerHandle | None = None
        self._finished = asyncio.Event()
        self._told: set[str] = set()
        self._closed = False

    def change(self, change: Change) -> None:
        """Takes in a change of the run; all but those of pods mean nothing here."""
        if change.kind != "Pod" or self._closed:
            return
        manifest = change.object
        uid = manifest["metadata"]["uid"]
        pod = self._pods.get(uid)
        if pod is None:
            pod = self._pods[uid] = _Pod(manifest)
        pod.manifest = manifest
        pod.gone = pod.gone or change.type == "DELETED"
        if self._mode != "none":
            status = manifest.get("status") or {}
            for key in ("initContainerStatuses", "containerStatuses"):
                for one in status.get(key) or ():
                    self._container(uid, pod, one)
        self._check_end(pod)

    async def drain(self, timeout: float | None = None) -> bool:
        """Waits until every run that has ended was passed on to its last byte; whether it was."""
        try:
            async with asyncio.timeout(timeout):
                while self._due:
                    self._finished.clear()
                    await self._finished.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Closes all streams. What was not passed on is not."""
        self._closed = True
        for timer in self._retries.values():
            timer.cancel()
        if self._turns is not None:
            self._turns.cancel()
        self._waiting.clear()
        tasks = list(self._active.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _container(self, uid: str, pod: _Pod, status: Manifest) -> None:
        name = status["name"]
        newest = pod.newest.get(name, -1)
        for number, end in _runs(status, newest):
            if number <= newest:
                reading = pod.readings.get((name, number))
                if end is not None and reading is not None and not reading.ended:
                    reading.ended = True
                    self._due.add(reading)
                continue
            if self._mode == "failed" and end is None:
                continue
            pod.newest[name] = number
            if self._mode == "failed" and not (end or {}).get("exitCode"):
                continue
            reading = _Reading(uid, name, number, ended=end is not None)
            reading.began = end is None or "startedAt" in end
            pod.readings[name, number] = reading
            if reading.ended:
                self._due.add(reading)
            self._enqueue(reading)

    def _enqueue(self, reading: _Reading) -> None:
        self._retries.pop(reading, None)
        self._waiting.append(reading)
        self._pump()

    def _pump(self) -> None:
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        while self._waiting and len(self._active) < self._limit:
            reading = self._waiting.popleft()
            reading.opened = loop.time()
            name = f"log {reading.uid}/{reading.container}"
            self._active[reading] = asyncio.create_task(self._work(reading), name=name)
        if self._waiting and self._turns is None:
            self._turns = loop.call_later(QUIET_SECONDS, self._take_turns)

    def _take_turns(self) -> None:
        self._turns = None
        now = asyncio.get_running_loop().time()
        quiet = [
            one
            for one in self._active
            if not one.giving_way
            and (
                now - max(one.opened, one.heard) >= QUIET_SECONDS or now - one.opened > TURN_SECONDS
            )
        ]
        quiet.sort(key=lambda one: one.heard)
        for reading in quiet[: len(self._waiting)]:
            reading.giving_way = True
            self._active[reading].cancel()
        self._pump()

    async def _work(self, reading: _Reading) -> None:
        retry: float | None = None
        try:
            await self._read(reading)
        except asyncio.CancelledError:
            if not reading.giving_way or self._closed:
                raise
            retry = 0.0
        except BridgeError as error:
            retry = self._after(reading, error)
        except Exception:  # noqa: BLE001 - a defect with one log must not hold up the end of a run
            _log.exception("log of %s/%s", reading.uid, reading.container)
        finally:
            reading.giving_way = False
            self._active.pop(reading, None)
        if retry is None:
            self._finish(reading)
        elif retry == 0.0:
            self._waiting.append(reading)
        else:
            loop = asyncio.get_running_loop()
            self._retries[reading] = loop.call_later(retry, self._enqueue, reading)
        self._pump()

    async def _read(self, reading: _Reading) -> None:
        pod = self._pods[reading.uid]
        behind = pod.newest[reading.container] - reading.number
        if behind > 1:
            # Only the newest run and the one before can be asked for.
            return
        request = pb.GetContainerLogsRequest(
            pod=identity(self._cluster, self._node, pod.manifest),
            container=reading.container,
            follow=not reading.ended,
            previous=behind == 1,
        )
        loop = asyncio.get_running_loop()
        skip = reading.seen
        stream = self._provider.get_container_logs(request)
        # Generators all of them: closing one at once lets go of what it holds open.
        async with aclosing(cast("AsyncGenerator[pb.GetContainerLogsResponse]", stream)):
            async for piece in stream:
                data = piece.content
                reading.heard = loop.time()
                if skip >= len(data):
                    skip -= len(data)
                    continue
                data, skip = data[skip:], 0
                reading.seen += len(data)
                reading.failures = 0
                self._take(reading, data)
                await self._room()

    def _take(self, reading: _Reading, data: bytes) -> None:
        end = data.rfind(b"\n") + 1
        if end:
            self._pass(reading, reading.partial + data[:end])
            reading.partial = data[end:]
        else:
            reading.partial += data
        if len(reading.partial) > LONGEST_LINE:
            self._pass(reading, reading.partial)
            reading.partial = b""

    def _pass(self, reading: _Reading, data: bytes) -> None:
        self._sink(self._pods[reading.uid].manifest, reading.container, data)

    def _after(self, reading: _Reading, error: BridgeError) -> float | None:
        """Seconds until the log is asked for again; None: never."""
        pod = self._pods[reading.uid]
        reading.failures += 1
        name = pod.manifest["metadata"]["name"]
        if isinstance(error, (Invalid, Unsupported)):
            self._say_once(str(error), f"no log of {name}/{reading.container}: {error}")
            return None
        if isinstance(error, NotFound) and reading.ended:
            tries = NOT_FOUND_TRIES if reading.began and not pod.gone else 1
            if reading.failures >= tries:
                if reading.began:
                    self._say_once(reading.uid, f"no log of {name}/{reading.container}: {error}")
                return None
        _log.debug("log of %s/%s: %s", name, reading.container, error)
        return float(min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(reading.failures - 1, 10)))

    def _say_once(self, key: str, text: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self._problem(text)

    def _finish(self, reading: _Reading) -> None:
        if reading.partial:
            self._pass(reading, reading.partial)
            reading.partial = b""
        pod = self._pods[reading.uid]
        pod.readings.pop((reading.container, reading.number), None)
        self._due.discard(reading)
        self._finished.set()
        self._check_end(pod)

    def _check_end(self, pod: _Pod) -> None:
        if pod.told or pod.readings or not (pod.gone or pod_over(pod.manifest)):
            return
        pod.told = True
        self._ended(pod.manifest)


def _runs(status: Manifest, newest: int) -> Iterator[tuple[int, Manifest | None]]:
    """(number, how it ended or None) of the runs that a container's status tells of, oldest first.
    `newest`: the highest number that is known already."""
    count = status.get("restartCount") or 0
    state = status.get("state") or {}
    last = (status.get("lastState") or {}).get("terminated")
    if "running" in state or "terminated" in state:
        if last is not None and count:
            yield count - 1, last
        yield count, state.get("terminated")
    elif last is not None:
        # While it waits to run again the count is still that of the run that has ended; only where
        # the next run is already being made is it one more.
        waiting = (state.get("waiting") or {}).get("reason")
        again = waiting != "CrashLoopBackOff" and count > newest and count > 0
        yield count - again, last
