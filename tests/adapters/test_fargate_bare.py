"""`fargate` without the helper: one container a task, on the simulator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from contract import Bench, Contract, container, exit_of, find, is_running, log, until, workload
from fargate_kit import FargateBench, helper  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[FargateBench]:
    made = FargateBench(tmp_path)
    yield made
    await made.close()


class TestBare(Contract):
    async def test_stop_without_grace_kills(self, bench: Bench) -> None:
        """ECS has no such stop: a signal goes first."""
        adapter = await bench.adapter()
        pod = bench.endless()
        await bench.launch(adapter, pod)
        await until(adapter, pod.identity, is_running)
        await adapter.stop(pod.identity, 0)
        assert (await exit_of(adapter, pod.identity)).code == 143


async def test_a_pod_runs_to_its_end(bench: FargateBench) -> None:
    adapter = await bench.adapter()
    pod = workload(container("sh", "-c", "for i in 1 2 3; do echo line $i; done; exit 7"))
    assert adapter.check(pod) == []
    await adapter.run(pod)
    end = await exit_of(adapter, pod.identity)
    assert (end.code, end.reason, end.signal) == (7, "Error", 0)
    observed = await until(adapter, pod.identity, lambda one: one.ended)
    assert observed.identity == pod.identity
    assert await log(adapter, pod.identity) == b"line 1\nline 2\nline 3\n"
    await adapter.delete(pod.identity)
    assert await find(adapter, pod.identity) is None
    assert await bench.leftovers(pod.identity) == []
