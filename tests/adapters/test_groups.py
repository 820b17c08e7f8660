"""What is the same on all clouds that run groups, proved by one on paper that has nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from contract import Bench, Contract, container, exit_of, find, is_running, until, workload
from paper_groups import Adapter, PaperCloud

from bridge.adapter import Acts, Attach, Dial, Events, Exec, Logs, Stats, Updates
from bridge.errors import Unavailable, Unsupported
from bridge.groups.options import GroupOptions
from bridge.workload import HelperUse, Identity, Observed, Waiting, Workload


class GroupsBench(Bench):
    """One account."""

    real = False
    at_once = 143
    """The cloud has no such stop."""

    def __init__(self, state: Path) -> None:
        self.cloud = PaperCloud()
        self._state = state
        self._made: list[Adapter] = []

    async def adapter(self, *, only_looks: bool = False) -> Any:
        options = GroupOptions(
            helper=HelperUse.NEVER, helper_state=str(self._state), images={"resolve": False}
        )
        made = Adapter("paper-groups", self.cloud, options)
        if only_looks:
            made.only_look()
        await made.open()
        self._made.append(made)
        return made

    async def close(self) -> None:
        for one in self._made:
            await one.close()

    async def vanish(self, adapter: Any, who: Identity) -> None:
        self.cloud.vanish(adapter._pods.of(who).mark)

    def endless(self) -> Workload:
        return workload(container("sleep", "1000"))

    def brief(self, code: int = 0) -> Workload:
        return workload(container("exit", str(code)))

    async def leftovers(self, who: Identity) -> Sequence[str]:
        return list(self.cloud.names())


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[GroupsBench]:
    made = GroupsBench(tmp_path)
    yield made
    await made.close()


class TestGroups(Contract):
    """On such a cloud the same call once more would have started a group anew."""


def waits_for(reason: str) -> Any:
    def true(observed: Observed) -> bool:
        state = observed.containers[0].state
        return isinstance(state, Waiting) and state.reason == reason

    return true


async def test_it_has_the_abilities_of_the_helper(bench: GroupsBench) -> None:
    adapter = await bench.adapter()
    for one in (Acts, Attach, Dial, Events, Exec, Logs, Stats, Updates):
        assert isinstance(adapter, one), one


async def test_a_lost_answer_makes_no_second_group(bench: GroupsBench) -> None:
    adapter = await bench.adapter()
    bench.cloud.lost = 1
    pod = bench.brief(3)
    await adapter.run(pod)
    assert (await exit_of(adapter, pod.identity)).code == 3
    assert list(bench.cloud.made.values()) == [1]


async def test_a_launch_in_doubt_is_found_out_before_it_is_given_up(bench: GroupsBench) -> None:
    adapter = await bench.adapter()
    bench.cloud.lost, bench.cloud.hidden = 1, True
    pod = bench.endless()
    await adapter.run(pod)
    await until(adapter, pod.identity, waits_for("Ambiguous"))
    with pytest.raises(Unavailable):
        await adapter.delete(pod.identity)
    found = await find(adapter, pod.identity)
    assert found is not None
    assert not found.ended, "it may still run"
    bench.cloud.hidden = False
    await adapter.delete(pod.identity)
    assert await bench.leftovers(pod.identity) == []
    assert await find(adapter, pod.identity) is None


async def test_what_never_starts_is_replaced(bench: GroupsBench) -> None:
    adapter = await bench.adapter()
    bench.cloud.full = 1
    pod = bench.endless()
    await adapter.run(pod)
    await until(adapter, pod.identity, waits_for("OutOfCapacity"))
    await until(adapter, pod.identity, is_running)
    assert list(bench.cloud.made.values()) == [2]


async def test_who_only_looks_replaces_nothing(bench: GroupsBench) -> None:
    first = await bench.adapter()
    pod = bench.endless()
    await first.run(pod)
    await until(first, pod.identity, is_running)
    onlooker = await bench.adapter(only_looks=True)
    assert await find(onlooker, pod.identity) == await find(first, pod.identity)


async def test_changes_are_told(bench: GroupsBench) -> None:
    adapter = await bench.adapter()
    pod = bench.brief(4)
    events = adapter.events()
    waiting = asyncio.create_task(anext(events))
    await asyncio.sleep(0)
    await adapter.run(pod)
    async with asyncio.timeout(60):
        told = await waiting
        while not told.ended:
            told = await anext(events)
    await events.aclose()
    assert told == await find(adapter, pod.identity)


async def test_without_the_helper_nobody_gets_in(bench: GroupsBench) -> None:
    adapter = await bench.adapter()
    pod = bench.endless()
    await adapter.run(pod)
    await until(adapter, pod.identity, is_running)
    with pytest.raises(Unsupported, match="no helper"):
        await adapter.exec(pod.identity, "main", ["true"], stdin=False, tty=False)
