"""`fargate` without the helper: one container a task, on the simulator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from contract import Contract, container, exit_of, find, log, until, workload
from fargate_kit import FargateBench, helper  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[FargateBench]:
    made = FargateBench(tmp_path)
    yield made
    await made.close()


class TestBare(Contract):
    """What all adapters do."""


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
