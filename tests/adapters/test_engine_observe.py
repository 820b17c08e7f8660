"""`engine`: what its lists and inspects mean, where they are looked at and whom they lose."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from test_engine_pure import WHO, seen

from adapters.engine import (
    monitor,
    names,
    observe,
)
from adapters.engine.adapter import Adapter
from adapters.engine.client import Refused
from adapters.engine.place import Place
from adapters.engine.sight import Sight
from bridge.workload import (
    Exit,
    Identity,
    Running,
    Waiting,
)


def ended_at(at: float, code: int = 0) -> observe.Fact:
    return observe.Fact(Exit(code, at, "Error" if code else "Completed"), "podman://x")


class TestObserve:
    PAUSE = seen(id_="pause")
    RUNS = observe.Fact(Running(101.0), "podman://x")

    def look(
        self, entries: Sequence[observe.Entry], facts: Mapping[str, observe.Fact], **more: Any
    ) -> Any:
        pod = observe.pods(entries)[WHO.key]
        return observe.observed(pod, facts, more.pop("waits", {}), **more)

    def test_a_running_pod(self) -> None:
        found = self.look([self.PAUSE, seen("main")], {"main0": self.RUNS})
        assert found.identity == WHO
        assert found.pod_ips == ("10.0.0.2",)
        assert isinstance(found.containers[0].state, Running)
        assert (found.ended, found.disrupted, found.accepted_at) == (False, False, 100.0)

    def test_the_last_run_counts_and_the_one_before_is_told(self) -> None:
        runs = [seen("main", 3, "exited"), seen("main", 4)]
        facts = {"main3": ended_at(102.0, 7), "main4": self.RUNS}
        (state,) = self.look([self.PAUSE, *runs], facts).containers
        assert state.restart == 4
        assert state.previous.code == 7

    def test_what_waits_is_told_before_there_is_a_container(self) -> None:
        waits = {"main": (5, Waiting("ImagePullBackOff", "words"))}
        runs = [seen("main", 4, "exited")]
        found = self.look([self.PAUSE, *runs], {"main4": ended_at(102.0, 7)}, waits=waits)
        (state,) = found.containers
        assert (state.restart, state.state.reason) == (5, "ImagePullBackOff")
        assert state.previous.code == 7
        assert state.container_id == ""
        assert not found.ended

    def test_a_wait_for_a_run_that_is_there_is_over(self) -> None:
        waits = {"main": (4, Waiting("ErrImagePull"))}
        found = self.look([self.PAUSE, seen("main", 4)], {"main4": self.RUNS}, waits=waits)
        (state,) = found.containers
        assert isinstance(state.state, Running)

    def test_it_has_ended_when_every_container_has(self) -> None:
        pair = {"containers": "init,main"}
        holder = seen(id_="pause", **pair)
        init, main = seen("init", 0, "exited", **pair), seen("main", 0, "exited", **pair)
        facts = {"init0": ended_at(101.0), "main0": ended_at(102.0)}
        assert not self.look([holder, init], facts).ended
        assert self.look([holder, init], facts, stopped=True).ended
        assert self.look([holder, init, main], facts).ended

    def test_a_dead_pause_container_disrupts_what_had_not_ended(self) -> None:
        dead = replace(self.PAUSE, status="exited")
        main = seen("main", 0, "exited")
        facts = {"pause": ended_at(110.0, 137), "main0": ended_at(109.0)}
        assert not self.look([dead, main], facts).disrupted
        later = {**facts, "main0": ended_at(111.0, 137)}
        found = self.look([dead, main], later)
        assert (found.disrupted, found.ended) == (True, True)
        # Nothing has run beside it: it will be started again.
        found = self.look([dead], facts)
        assert (found.disrupted, found.ended) == (False, False)
        assert not self.look([dead], facts, leaving=True).disrupted
        assert self.look([main], facts).disrupted
        released = {**facts, "pause": replace(facts["pause"], released=True)}
        assert not self.look([dead, seen("init", 0, "exited")], released).disrupted

    def test_times_have_nanoseconds(self) -> None:
        assert observe.parse_time("1970-01-01T00:00:01.5Z") == 1.5
        assert observe.parse_time("1970-01-01T02:00:00.123456789+02:00") == pytest.approx(0.1234568)
        assert observe.parse_time("0001-01-01T00:00:00Z") is None

    @pytest.mark.parametrize(
        ("state", "expected"),
        [
            ({"ExitCode": 0}, (0, "Completed", 0)),
            ({"ExitCode": 3}, (3, "Error", 0)),
            ({"ExitCode": 137}, (137, "Error", 9)),
            ({"ExitCode": 143}, (143, "Error", 15)),
            ({"ExitCode": 137, "OOMKilled": True}, (137, "OOMKilled", 9)),
            ({"ExitCode": -1}, (137, "ContainerStatusUnknown", 0)),
            (
                {"ExitCode": 0, "FinishedAt": "0001-01-01T00:00:00Z"},
                (137, "ContainerStatusUnknown", 0),
            ),
        ],
    )
    def test_exits(self, state: dict[str, Any], expected: tuple[int, str, int]) -> None:
        times = {"StartedAt": "1970-01-01T00:00:01Z", "FinishedAt": "1970-01-01T00:00:02Z"}
        found = observe.ended({**times, **state}, 0.0)
        assert (found.code, found.reason, found.signal) == expected

    def test_what_the_engine_lists(self) -> None:
        said = {
            "Id": "abc",
            "Names": ["/" + names.run(WHO, "main", 2)],
            "State": "Running",
            "Created": 7,
            "Labels": names.labels(WHO, "me", container="main", restart="2"),
            "NetworkSettings": {"Networks": {"n": {"IPAddress": "10.0.0.2"}}},
        }
        found = observe.entry(said)
        assert found is not None
        assert (found.container, found.restart, found.status) == ("main", 2, "running")
        assert found.addresses == ("10.0.0.2",)
        assert observe.entry({**said, "Labels": None}) is None

    @pytest.mark.parametrize("slash", ["", "/"])
    @pytest.mark.parametrize(
        ("name", "labels"),
        [
            (names.pause(WHO), {}),
            (names.run(WHO, "main", 2), {"container": "main", "restart": "2"}),
        ],
    )
    def test_a_copy_of_our_labels_is_not_ours(
        self, slash: str, name: str, labels: dict[str, str]
    ) -> None:
        held = names.labels(WHO, "me", **labels)
        listed = {"Id": "x", "Names": ["/alias", slash + name], "Labels": held}
        assert observe.entry(listed) is not None
        others: list[list[str] | None] = [None, [], ["/busy_bee"], [f"/{name}-copy"]]
        for other in others:
            assert observe.entry({**listed, "Names": other}) is None
        config = {"Labels": held}
        assert observe.inspected({"Id": "x", "Name": slash + name, "Config": config}) is not None
        assert observe.inspected({"Id": "x", "Name": "/busy_bee", "Config": config}) is None
        assert observe.inspected({"Id": "x", "Config": config}) is None


class TestSight:
    """What is known between two lists."""

    async def test_what_was_made_while_a_list_was_under_way_is_known(self) -> None:
        engine: Any = None
        sight = Sight(engine)
        other = replace(WHO, uid="other")
        sight.begun(WHO, "pause")
        sight.made(other, "run")
        assert sight.known() == {"pause", "run"}
        assert sight.pods() == {WHO.key, other.key}
        sight.forget(other.key)
        assert sight.known() == {"pause"}

    async def test_a_list_that_fails_over_a_vanished_container_is_asked_again(self) -> None:
        calls = []

        class Racing:
            owner = "me"

            async def containers(self, filters: Mapping[str, Any]) -> Any:
                calls.append(filters)
                if len(calls) < 3:
                    raise Refused("container 1 does not exist in database: no such container")
                if len(calls) == 4:
                    raise Refused("the database is broken")
                return []

        engine: Any = Racing()
        sight = Sight(engine)
        assert await sight.all() == []
        assert len(calls) == 3
        with pytest.raises(Refused, match="broken"):
            await sight.all()


class TestMonitor:
    """A process that stands for a container's conmon."""

    @asynccontextmanager
    async def monitored(self, name: str, container: str) -> AsyncIterator[tuple[int, Any]]:
        script = "sleep 1000 & echo $!; read line; kill $!"
        process = await asyncio.create_subprocess_exec(
            name, "-c", script, container, executable="/bin/sh",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(await process.stdout.readline()), process.stdin
        finally:
            await process.communicate(b"")

    async def test_its_end_is_waited_for(self) -> None:
        async with self.monitored("/usr/bin/conmon", "abc") as (pid, stdin):
            found = monitor.find(pid, "abc")
            assert found is not None
            gone = asyncio.create_task(monitor.gone(found))
            await asyncio.sleep(0)
            assert not gone.done()
            stdin.write_eof()
            await asyncio.wait_for(gone, 20)
            os.close(found)

    async def test_nobody_else_is_taken_for_it(self) -> None:
        async with self.monitored("/usr/bin/conmon", "abc") as (pid, _):
            assert monitor.find(pid, "another") is None
        async with self.monitored("/usr/bin/other", "abc") as (pid, _):
            assert monitor.find(pid, "abc") is None
        assert monitor.find(2**22 + 1, "abc") is None


async def test_a_pod_that_becomes_whole_while_it_is_listed_is_not_lost() -> None:
    """Its volumes are there; the list that lacks its pause container is older than that."""

    class Racing(Adapter):
        async def _volumes(self) -> Sequence[tuple[str, Identity]]:
            return [("volume", WHO)]

    adapter = Racing("engine")
    adapter.memory.making.add(WHO.key)
    lists = 0

    async def listed() -> list[observe.Entry]:
        nonlocal lists
        lists += 1
        if lists == 2:
            adapter.memory.making.discard(WHO.key)
        return []

    adapter.sight.all = listed  # type: ignore[method-assign]
    assert await adapter.list() == []
    # Nobody makes it any more: what is left of it is told.
    assert [one.identity for one in await adapter.list()] == [WHO]


def test_where_a_pod_is_follows_from_the_inspect_of_its_pause_container() -> None:
    said = {"State": {"Pid": os.getpid()}}
    entry = observe.Entry("id", WHO, "running", 0.0, addresses=("10.1.2.3",), said=said)
    place = Place.of(entry)
    assert (place.address, place.pid, place.stands()) == ("10.1.2.3", os.getpid(), True)
    # In the host's network it has no address of its own; and what has ended stands no more.
    gone = Place.of(replace(entry, addresses=(), said={"State": {"Pid": 0}}))
    assert (gone.address, gone.pid, gone.stands()) == ("127.0.0.1", None, False)
