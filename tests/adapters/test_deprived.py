"""`engine` with `helper: always`: the contract where there are only groups of containers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from contract import (
    Bench,
    container,
    exit_of,
    log,
    until,
    workload,
)
from deprived_kit import DeprivedBench, helper, says_started  # noqa: F401 - a fixture
from engine_kit import EngineBench, EngineContract, engine_address, image  # noqa: F401 - a fixture

from bridge.workload import Exit, Observed, RestartPolicy

pytestmark = pytest.mark.slow


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[DeprivedBench]:
    made = DeprivedBench(engine_address(), tmp_path)
    yield made
    await made.close()


class TestDeprived(EngineContract):
    async def test_restart_midway(self, bench: Bench) -> None:
        first = await bench.adapter()
        pod = bench.endless()
        await bench.launch(first, pod)
        before = await until(first, pod.identity, says_started)
        await first.close()
        again = await bench.adapter()
        # Its helpers come back by themselves.
        assert await until(again, pod.identity, says_started) == before
        await again.run(pod)
        assert len(await again.list()) == 1

    async def test_runs_are_numbered(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        one = container("sh", "-c", "cat /proc/sys/kernel/random/uuid; exit 4")
        pod = workload(replace(one, restart_policy=RestartPolicy.ON_FAILURE))
        await bench.launch(adapter, pod)

        def waits(observed: Observed) -> bool:
            state = observed.containers[0]
            return state.restart == 1 and isinstance(state.state, Exit)

        state = (await until(adapter, pod.identity, waits)).containers[0]
        assert [one.code for one in (state.state, state.previous) if isinstance(one, Exit)] == [
            4,
            4,
        ]
        # The engine has one log of both runs; the latest one's is told apart.
        assert len(await log(adapter, pod.identity)) == 37

    async def test_who_only_looks_finds_every_run(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = workload(container("cat", "/proc/sys/kernel/random/uuid"))
        await adapter.run(pod)
        onlooker = await bench.adapter()
        await onlooker.list()
        await exit_of(adapter, pod.identity)
        written = await log(adapter, pod.identity)
        assert await exit_of(onlooker, pod.identity) == await exit_of(adapter, pod.identity)
        assert await log(onlooker, pod.identity) == written
