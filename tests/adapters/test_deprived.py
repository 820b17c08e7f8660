"""`engine` with `helper: always`: the contract where there are only groups of containers."""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import contract
import pytest
from contract import (
    Bench,
    RealContract,
    container,
    exit_of,
    find,
    is_running,
    log,
    until,
    workload,
)
from engine_kit import IMAGE, EngineBench, engine_address

from adapters.engine import Options, make
from adapters.engine.deprived import Deprived
from bridge.helper.program import machine_of, pinned
from bridge.workload import Container, Observed, Running, Waiting, Workload
from helper.build import build, digest

pytestmark = pytest.mark.slow


class DeprivedBench(EngineBench):
    """The same place, with adapters that have the helper."""

    def __init__(self, address: str, state: Path) -> None:
        super().__init__(address)
        self.state = state

    async def adapter(self, address: str = "") -> Any:
        options = Options(
            host=address or self.address,
            owner=self.owner,
            helper="always",
            helper_state=str(self.state),
        )
        made = make("engine", options)
        await made.open()
        self._made.append(made)  # type: ignore[arg-type]
        assert isinstance(made, Deprived)
        return made

    async def launch(self, adapter: Any, pod: Workload) -> None:
        """A group begins by itself, and takes its time."""
        await adapter.run(pod)
        await until(adapter, pod.identity, has_begun)


def says_started(observed: Observed) -> bool:
    """Whether the helper itself says so, and not the engine alone."""
    return is_running(observed) and observed.containers[0].started is True


def has_begun(observed: Observed) -> bool:
    return not any(isinstance(one.state, Waiting) for one in observed.containers)


@pytest.fixture(scope="module", autouse=True)
def helper() -> None:
    """The program, built where it is not yet."""
    if shutil.which("go") is None:
        pytest.skip("no go on PATH")
    assert pinned()["sources"] == digest(), "python helper/build.py --pin"
    build(machine_of(platform.machine()))


@pytest.fixture(autouse=True)
def image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The contract's containers run that image here."""
    plain = contract.container

    def made(*command: str, **more: Any) -> Container:
        return replace(plain(*command, **more), image=IMAGE)

    monkeypatch.setattr(contract, "container", made)
    monkeypatch.setattr("engine_kit.container", made)
    monkeypatch.setitem(globals(), "container", made)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[DeprivedBench]:
    made = DeprivedBench(engine_address(), tmp_path)
    yield made
    await made.close()


class TestDeprived(RealContract):
    async def test_facts_are_whole(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = bench.endless()
        await bench.launch(adapter, pod)
        observed = await until(adapter, pod.identity, is_running)
        assert observed.identity == pod.identity
        assert observed.accepted_at is not None
        assert not observed.ended
        assert observed.pod_ips
        state = observed.containers[0]
        assert isinstance(state.state, Running)
        assert re.fullmatch(r"(podman|docker)://[0-9a-f]{64}", state.container_id)
        assert state.image_id

    async def test_stop_ends_it_and_keeps_the_facts(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = bench.endless()
        await bench.launch(adapter, pod)
        await until(adapter, pod.identity, says_started)
        await adapter.stop(pod.identity, 30)
        end = await exit_of(adapter, pod.identity)
        # It caught the signal, and left with a code of its own.
        assert (end.code, end.signal, end.reason) == (143, 0, "Error")
        observed = await until(adapter, pod.identity, lambda one: one.ended)
        await adapter.stop(pod.identity, 0)
        assert await find(adapter, pod.identity) == observed

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

    async def test_the_environment_is_exact(self, bench: Bench) -> None:
        env = {"A": "1", "EMPTY": "", "SPACES": " a  b ", "LINES": "x\ny", "PATH": "/bin"}
        pod = workload(container("env", "-0", env=env))
        adapter, _ = await self.finish(bench, pod)
        got = (await log(adapter, pod.identity)).decode().split("\0")[:-1]
        found = dict(one.split("=", 1) for one in got)
        # The image's own stay, as far as the engine gives them.
        assert found.pop("HOME")
        assert found.pop("HOSTNAME")
        assert found == env

    async def test_who_only_looks_finds_every_run(self, bench: Bench) -> None:
        pytest.skip("nobody outside starts a single container")

    async def test_runs_are_numbered(self, bench: Bench) -> None:
        pytest.skip("nobody outside starts a single container")
