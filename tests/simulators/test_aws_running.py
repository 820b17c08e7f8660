"""What a simulated task's containers are known to do, whoever tells of it, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from aws_kit import Cloud, Ecs, awslogs, container

from adapters.simulators.common import running
from bridge.workload import ContainerState, Exit, Identity, Observed, Running, State

WHO = Identity("cluster", "node", "ecs", "task", "a", 0)


def task(state: State) -> Observed:
    return Observed(WHO, (ContainerState("main", state),))


class Scripted:
    """A backend that tells what the test says, when it says so."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[Observed] = asyncio.Queue()
        self.asked = asyncio.Semaphore(0)
        self.lists: asyncio.Queue[Sequence[Observed]] = asyncio.Queue()

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def list(self) -> Sequence[Observed]:
        self.asked.release()
        return await self.lists.get()

    async def events(self) -> AsyncIterator[Observed]:
        while True:
            yield await self.told.get()


@pytest.fixture
async def backend(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    made = Scripted()
    monkeypatch.setattr(running, "_make", lambda *_: made)
    return made


@pytest.mark.parametrize("older", [task(Running(1.0)), Observed(WHO, ())])
async def test_a_list_that_is_older_than_an_event_takes_nothing_back(
    backend: Scripted, older: Observed
) -> None:
    runner: Any = running.Runner("null", "aws")
    await runner.open()
    heard = asyncio.Queue[None]()
    runner.listen("a", lambda: heard.put_nowait(None))
    await backend.asked.acquire()
    await backend.told.put(task(Exit(3, 2.0)))
    await heard.get()
    await backend.lists.put([older])
    await backend.asked.acquire()
    assert isinstance(runner.state("a", "main").state, Exit)
    # Of ends the later one counts.
    await backend.lists.put([task(Exit(4, 2.0))])
    await heard.get()
    assert runner.state("a", "main").state.code == 4
    await backend.asked.acquire()
    await backend.lists.put([])
    closing = asyncio.create_task(runner.close())
    await backend.lists.put([])
    await closing


def test_a_task_of_which_the_simulator_loses_its_way_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lines(*_: object) -> AsyncIterator[bytes]:
        raise ZeroDivisionError

    monkeypatch.setattr(running.Runner, "lines", lines)
    cloud = Cloud(run_on="null")
    try:
        cloud.client("logs").create_log_group(logGroupName="work")
        ecs = Ecs(cloud)
        task = ecs.start(container("sleep", "0.1", logConfiguration=awslogs()))
        (ended,) = ecs.end(task)["containers"]
        assert ended["reason"] == "The simulator made a mistake: ZeroDivisionError()"
        assert ["ZeroDivisionError" in one for one in cloud.simulator.broken] == [True]
    finally:
        cloud.close()
