"""`null`: the contract, its annotations, and that it is fast enough to measure other things."""

from __future__ import annotations

import pytest
from contract import Bench, Contract, container, find, workload

from adapters.null import EXIT_CODE, SECONDS, Adapter
from bridge.adapter import Adapter as Protocol
from bridge.workload import Exit, Identity, Role, Running, Workload


class NullBench(Bench):
    survives = False
    real = False

    def __init__(self) -> None:
        self.now = 1000.0

    async def adapter(self) -> Protocol:
        made = Adapter("null", clock=lambda: self.now)
        await made.open()
        return made

    async def vanish(self, adapter: Protocol, who: Identity) -> None:
        # It has no other side that could lose a pod: a deletion by somebody else is all there is.
        await adapter.delete(who)

    def endless(self) -> Workload:
        return workload(container("anything"))

    def brief(self, code: int = 0) -> Workload:
        annotations = {SECONDS: "2.5", EXIT_CODE: str(code)}
        return workload(container("anything"), annotations=annotations)

    def settle(self) -> None:
        self.now += 2.5


@pytest.fixture
def bench() -> NullBench:
    return NullBench()


class TestNull(Contract):
    pass


async def test_ends_when_its_time_has_come(bench: NullBench) -> None:
    adapter = await bench.adapter()
    pod = bench.brief(3)
    await adapter.run(pod)
    bench.now += 2.4
    observed = await find(adapter, pod.identity)
    assert observed is not None
    assert isinstance(observed.containers[0].state, Running)
    bench.now += 100
    observed = await find(adapter, pod.identity)
    assert observed is not None
    state = observed.containers[0].state
    assert isinstance(state, Exit)
    assert (state.code, state.finished_at) == (3, 1002.5)


async def test_a_key_that_runs_again_has_its_own_time(bench: NullBench) -> None:
    adapter = await bench.adapter()
    pod = bench.brief()
    await adapter.run(pod)
    bench.now += 1
    await adapter.delete(pod.identity)
    await adapter.run(pod)
    bench.now += 2
    observed = await find(adapter, pod.identity)
    assert observed is not None
    assert not observed.ended


async def test_init_containers_are_done(bench: NullBench) -> None:
    adapter = await bench.adapter()
    pod = workload(container("x", name="first", role=Role.INIT), container("x"))
    await adapter.run(pod)
    observed = await find(adapter, pod.identity)
    assert observed is not None
    assert isinstance(observed.containers[0].state, Exit)


@pytest.mark.parametrize(
    ("name", "value"),
    [(SECONDS, "soon"), (SECONDS, "-1"), (SECONDS, "nan"), (EXIT_CODE, "256"), (EXIT_CODE, "1.5")],
)
async def test_annotations_are_checked(bench: NullBench, name: str, value: str) -> None:
    adapter = await bench.adapter()
    (wrong,) = adapter.check(workload(container("x"), annotations={name: value}))
    assert wrong.field == f"metadata.annotations[{name}]"
    assert value in wrong.message
