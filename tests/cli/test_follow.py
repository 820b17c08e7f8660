from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest
from view_kit import a_pod, ended, modified, running, waiting

from bridge.agent.provider import ProviderClient
from bridge.cli import follow
from bridge.cli.follow import LogFollower
from bridge.errors import NotFound, Unavailable, Unsupported
from bridge.local.store import Change
from bridge.pods import Manifest
from bridge.rpc.v1 import provider_pb2 as pb


class Log:
    """One run's log: grows until it is ended."""

    def __init__(self) -> None:
        self.data = b""
        self.over = False
        self.break_at: int | None = None
        """The stream breaks, once, after so many bytes."""
        self.changed = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.data += data
        self.changed.set()

    def end(self, data: bytes = b"") -> None:
        self.over = True
        self.write(data)


class Provider:
    """Only the logs of one, in memory. `logs`: by (pod, container) its runs, oldest first."""

    def __init__(self) -> None:
        self.logs: dict[tuple[str, str], list[Log]] = {}
        self.requests: list[tuple[str, str, bool, bool]] = []
        self.errors: list[Exception] = []
        self.open = 0
        self.most_open = 0

    def log(self, pod: str, container: str = "main", data: bytes = b"", over: bool = False) -> Log:
        made = Log()
        made.data, made.over = data, over
        self.logs.setdefault((pod, container), []).append(made)
        return made

    async def get_container_logs(
        self, request: pb.GetContainerLogsRequest
    ) -> AsyncIterator[pb.GetContainerLogsResponse]:
        key = (request.pod.name, request.container)
        self.requests.append((*key, request.follow, request.previous))
        if self.errors:
            raise self.errors.pop(0)
        runs = self.logs.get(key, [])
        if len(runs) < 1 + request.previous:
            raise NotFound("no log here (yet)")
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            async for piece in self._pieces(runs[-1 - request.previous], request.follow):
                yield pb.GetContainerLogsResponse(content=piece)
        finally:
            self.open -= 1

    async def _pieces(self, log: Log, follow: bool) -> AsyncIterator[bytes]:
        sent = 0
        while True:
            if log.break_at is not None and log.break_at <= len(log.data):
                at, log.break_at = log.break_at, None
                yield log.data[sent:at]
                raise Unavailable("connection reset")
            if sent < len(log.data):
                piece = log.data[sent : sent + 7]
                sent += len(piece)
                yield piece
            elif log.over or not follow:
                return
            else:
                log.changed.clear()
                await log.changed.wait()


class Seen:
    """What was passed on."""

    def __init__(self) -> None:
        self.by: dict[tuple[str, str], bytes] = {}
        self.pieces: list[bytes] = []
        self.ended: list[str] = []
        self.problems: list[str] = []
        self._changed = asyncio.Event()

    def take(self, pod: Manifest, container: str, data: bytes) -> None:
        key = (pod["metadata"]["name"], container)
        self.by[key] = self.by.get(key, b"") + data
        self.pieces.append(data)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class World:
    """A follower, its provider and what it passed on."""

    def __init__(self, mode: str = "all", limit: int = 64) -> None:
        self.provider, self.seen = Provider(), Seen()
        self.follower = LogFollower(
            cast("ProviderClient", self.provider),
            self.seen.take,
            mode,
            cluster="run",
            ended=lambda pod: self.seen.ended.append(pod["metadata"]["name"]),
            problem=self.seen.problems.append,
            limit=limit,
        )

    def tell(self, *pods: Manifest) -> None:
        for pod in pods:
            self.follower.change(modified(pod))

    async def drained(self) -> bool:
        return await self.follower.drain(60)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "FIRST_RETRY", 0.0001)
    monkeypatch.setattr(follow, "LONGEST_RETRY", 0.0005)


async def test_whole_lines_come_as_they_are_written() -> None:
    world = World()
    log = world.provider.log("a")
    world.tell(a_pod("a"), a_pod("a", running()), a_pod("a", running()))
    log.write(b"one\ntw")
    await world.seen.until(lambda: bool(world.seen.pieces))
    assert world.seen.by["a", "main"] == b"one\n"
    log.end(b"o\nlast")
    world.tell(a_pod("a", ended()))
    assert await world.drained()
    assert world.seen.by["a", "main"] == b"one\ntwo\nlast"
    assert world.seen.ended == ["a"]
    assert world.provider.requests == [("a", "main", True, False)]
    assert all(piece.endswith(b"\n") for piece in world.seen.pieces[:-1])


async def test_what_has_ended_is_read_without_following() -> None:
    world = World()
    world.provider.log("a", data=b"done\n", over=True)
    world.tell(a_pod("a", ended()))
    assert await world.drained()
    assert world.seen.by == {("a", "main"): b"done\n"}
    assert world.provider.requests == [("a", "main", False, False)]


@pytest.mark.parametrize("at", [0, 3, 5, 11])
async def test_a_broken_stream_loses_and_repeats_nothing(at: int) -> None:
    world = World()
    log = world.provider.log("a", data=b"one\ntwo\nthr")
    log.break_at = at
    world.provider.errors = [Unavailable("not yet"), NotFound("not yet")]
    world.tell(a_pod("a", running()))
    await world.seen.until(lambda: b"two\n" in world.seen.by.get(("a", "main"), b""))
    log.end(b"ee\n")
    world.tell(a_pod("a", ended()))
    assert await world.drained()
    assert world.seen.by["a", "main"] == b"one\ntwo\nthree\n"
    assert world.seen.problems == []


async def test_each_run_of_a_container_is_read_once() -> None:
    world = World()
    first = world.provider.log("a", data=b"first\n", over=True)
    world.tell(a_pod("a", running()))
    await world.seen.until(lambda: bool(world.seen.by))
    assert first.over
    world.tell(a_pod("a", waiting("CrashLoopBackOff"), "Running", last=ended(1)))
    second = world.provider.log("a")
    world.tell(a_pod("a", running(11), last=ended(1), restarts=1))
    second.end(b"second\n")
    world.tell(a_pod("a", ended(0, 12), last=ended(1), restarts=1))
    assert await world.drained()
    assert world.seen.by["a", "main"] == b"first\nsecond\n"
    assert world.seen.ended == ["a"]


async def test_a_run_that_was_missed_is_read_as_the_previous_one() -> None:
    world = World()
    world.provider.log("a", data=b"lost\n", over=True)
    world.provider.log("a", data=b"missed\n", over=True)
    world.provider.log("a", data=b"last\n", over=True)
    world.tell(a_pod("a", ended(0), last=ended(1), restarts=2))
    assert await world.drained()
    assert sorted(world.seen.pieces) == [b"last\n", b"missed\n"]
    assert set(world.provider.requests) == {
        ("a", "main", False, True),
        ("a", "main", False, False),
    }


async def test_a_run_that_crashed_unseen_is_read_while_it_waits() -> None:
    world = World()
    world.provider.log("a", data=b"crash\n", over=True)
    crashed = a_pod("a", waiting("CrashLoopBackOff"), "Running", last=ended(1))
    world.tell(crashed, crashed)
    assert await world.drained()
    assert world.provider.requests == [("a", "main", False, False)]


async def test_only_failed_runs_where_that_is_asked() -> None:
    world = World("failed")
    for name in ("good", "bad"):
        world.provider.log(name, data=f"{name}\n".encode(), over=True)
        world.tell(a_pod(name, running()))
    assert world.provider.requests == []
    world.tell(a_pod("good", ended(0)), a_pod("bad", ended(3)))
    assert await world.drained()
    assert world.seen.by == {("bad", "main"): b"bad\n"}
    assert sorted(world.seen.ended) == ["bad", "good"]


async def test_nothing_where_nothing_is_asked() -> None:
    world = World("none")
    world.tell(a_pod("a", running()), a_pod("a", ended(1)))
    assert await world.drained()
    assert (world.provider.requests, world.seen.ended) == ([], ["a"])


async def test_a_log_that_nobody_has_does_not_hold_up_the_end() -> None:
    world = World()
    world.tell(a_pod("a", ended(1)))
    assert await world.drained()
    assert len(world.provider.requests) == follow.NOT_FOUND_TRIES
    assert world.seen.problems == ["no log of a/main: no log here (yet)"]


async def test_a_backend_without_logs_is_told_once() -> None:
    world = World()
    world.provider.errors = [Unsupported("backend x keeps no logs") for _ in range(2)]
    world.tell(a_pod("a", running()), a_pod("b", running()))
    world.tell(a_pod("a", ended()), a_pod("b", ended()))
    assert await world.drained()
    assert world.seen.problems == ["no log of a/main: backend x keeps no logs"]


async def test_a_pod_that_never_ran_is_asked_for_once_and_silently() -> None:
    world = World()
    lost = {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}
    world.tell(a_pod("a", lost))
    assert await world.drained()
    assert (len(world.provider.requests), world.seen.problems) == (1, [])


async def test_a_drain_has_its_limit() -> None:
    world = World()
    world.provider.log("a", data=b"begun\n")
    world.tell(a_pod("a", running()))
    await world.seen.until(lambda: bool(world.seen.by))
    world.tell(a_pod("a", ended()))
    assert not await world.follower.drain(0.001)
    await world.follower.close()
    assert world.provider.open == 0


async def test_a_line_without_an_end_takes_no_more_memory_than_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow, "LONGEST_LINE", 20)
    world = World()
    world.provider.log("a", data=b"x" * 100, over=True)
    world.tell(a_pod("a", ended()))
    assert await world.drained()
    assert world.seen.by["a", "main"] == b"x" * 100
    assert max(map(len, world.seen.pieces)) <= 27


async def test_more_containers_than_streams_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "QUIET_SECONDS", 0.001)
    world = World(limit=3)
    names = [f"p-{at}" for at in range(20)]
    logs = {name: world.provider.log(name, data=b"begin\nmid") for name in names}
    world.tell(*(a_pod(name, running()) for name in names))
    await world.seen.until(lambda: len(world.seen.by) == len(names))
    for name in names:
        logs[name].end(b"dle\nend")
        world.tell(a_pod(name, ended()))
    assert await world.drained()
    assert set(world.seen.by.values()) == {b"begin\nmiddle\nend"}
    assert world.provider.most_open == 3
    assert sorted(world.seen.ended) == sorted(names)


async def test_a_deleted_pod_is_followed_to_its_last_byte() -> None:
    world = World()
    log = world.provider.log("a", data=b"one\n")
    world.tell(a_pod("a", running()))
    await world.seen.until(lambda: bool(world.seen.by))
    log.end(b"bye\n")
    gone = a_pod("a", ended(143), deleted_for="")
    world.tell(gone)
    world.follower.change(Change("DELETED", "Pod", gone))
    assert await world.drained()
    assert world.seen.by["a", "main"] == b"one\nbye\n"


async def test_many_silent_pods_are_one_request_each() -> None:
    world = World()
    for at in range(500):
        world.provider.log(f"p-{at}", over=True)
    for at in range(500):
        for state in (None, running(), ended()):
            world.tell(a_pod(f"p-{at}", state))
        await asyncio.sleep(0)
    assert await world.drained()
    assert len(world.seen.ended) == 500
    assert len(world.provider.requests) == 500
    assert world.provider.most_open <= follow.STREAMS
