"""`engine` with `helper: always`: the contract where there are only groups of containers."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from contract import (
    Bench,
    container,
    exit_of,
    is_running,
    log,
    until,
    workload,
)
from deprived_kit import DeprivedBench, helper, says_started  # noqa: F401 - a fixture
from engine_kit import IMAGE, EngineBench, EngineContract, Line, engine_address, image, refusal  # noqa: F401 - a fixture
from support.channels import PATIENCE, soon
from support.paper_registry import PaperRegistry, serving

from bridge.errors import Unsupported
from bridge.helper.program import machine_of
from bridge.helper.wrap import INSTALL
from bridge.workload import LATE, Exit, HelperUse, Observed, RestartPolicy, Role, Waiting

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
        # The engine may be late to put a time to what was written right before an end.
        one = container("sh", "-c", "cat /proc/sys/kernel/random/uuid; sleep 1; exit 4")
        pod = workload(replace(one, restart_policy=RestartPolicy.ON_FAILURE))
        await bench.launch(adapter, pod)

        def waits(observed: Observed) -> bool:
            state = observed.containers[0]
            return state.restart == 1 and isinstance(state.state, Waiting)

        state = (await until(adapter, pod.identity, waits)).containers[0]
        where = f"container=main pod={pod.identity.name}_default({pod.identity.uid})"
        words = f"back-off 10s restarting failed {where}"
        assert state.state == Waiting("CrashLoopBackOff", words)
        assert state.previous is not None
        assert state.previous.code == 4
        # The engine has one log of both runs; the latest one's is told apart.
        assert len(await log(adapter, pod.identity)) == 37

    async def test_who_follows_a_run_comes_to_its_end(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        one = container("sh", "-c", "cat /proc/sys/kernel/random/uuid; sleep 1; exit 4")
        pod = workload(replace(one, restart_policy=RestartPolicy.ON_FAILURE))
        await bench.launch(adapter, pod)
        async with asyncio.timeout(PATIENCE):
            # Of whichever run it is by now: its line, and no other run's.
            assert len(await log(adapter, pod.identity, follow=True)) == 37

    async def test_who_only_looks_finds_every_run(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = workload(container("cat", "/proc/sys/kernel/random/uuid"))
        await adapter.run(pod)
        onlooker = await bench.adapter()
        await onlooker.list()
        for one in (adapter, onlooker):
            # Its last word may be in the log a moment after the helper tells that it has ended.
            await until(one, pod.identity, lambda seen: seen.ended)
        written = await log(adapter, pod.identity)
        assert written
        assert await exit_of(onlooker, pod.identity) == await exit_of(adapter, pod.identity)
        assert await log(onlooker, pod.identity) == written

    async def test_addresses_are_filled_in(self, bench: DeprivedBench) -> None:
        adapter = await bench.adapter()
        script = 'echo "$IP $1"; echo "$HOST"; sleep 1000'
        one = container(
            *("sh", "-c", script, "sh", f"({LATE['podIPs']})"),
            env={"IP": LATE["podIP"], "HOST": LATE["hostIP"]},
        )
        pod = workload(one)
        await bench.launch(adapter, pod)
        found = await until(adapter, pod.identity, is_running)
        wanted = f"{found.pod_ips[0]} ({','.join(found.pod_ips)})\n{found.host_ips[0]}\n"

        async def written() -> bool:
            return (await log(adapter, pod.identity)).decode() == wanted

        await soon(written)

    async def test_a_pod_can_go_without_the_helper(self, bench: DeprivedBench) -> None:
        adapter = await bench.adapter()
        one = replace(
            container("sh", "-c", "tr '\\0' '\\n' </proc/1/cmdline; sleep 0.2; exit 7"),
            restart_policy=RestartPolicy.NEVER,
        )
        pod = replace(workload(one), helper=HelperUse.NEVER)
        assert adapter.check(pod) == []
        await adapter.run(pod)
        assert (await exit_of(adapter, pod.identity)).code == 7
        await until(adapter, pod.identity, lambda found: found.ended)
        assert (await log(adapter, pod.identity)).startswith(b"sh\n-c\n")
        with pytest.raises(Unsupported, match="no helper"):
            await adapter.exec(pod.identity, "main", ["true"], stdin=False, tty=False)

    async def test_a_pod_without_the_helper_is_stopped_and_removed(
        self, bench: DeprivedBench
    ) -> None:
        adapter = await bench.adapter()
        forever = bench.endless().containers[0]
        pod = workload(replace(forever, restart_policy=RestartPolicy.NEVER))
        pod = replace(pod, helper=HelperUse.NEVER)
        await adapter.run(pod)
        await until(adapter, pod.identity, is_running)
        await adapter.stop(pod.identity, 30)
        await until(adapter, pod.identity, lambda found: found.ended)
        await adapter.delete(pod.identity)
        assert await adapter.list() == []

    async def test_what_the_helper_would_give_is_refused_without_it(
        self, bench: DeprivedBench
    ) -> None:
        adapter = await bench.adapter()
        sidecar = container("sleep", "1000", name="side", role=Role.SIDECAR)
        pod = replace(workload(sidecar, container("true")), helper=HelperUse.NEVER)
        fields = [one.field for one in adapter.check(pod)]
        assert "spec.initContainers[0]" in fields
        assert adapter.check(replace(pod, helper=HelperUse.AUTO)) == []

    async def test_only_pods_that_need_the_helper_have_it(self, bench: DeprivedBench) -> None:
        adapter = await bench.adapter(helper=HelperUse.AUTO)
        script = "tr '\\0' ' ' </proc/1/cmdline; true"
        plain = replace(container("sh", "-c", script), restart_policy=RestartPolicy.NEVER)
        needy = replace(plain, logs_as_message=True)
        for one, first in ((plain, b"sh -c"), (needy, b"/podbridge/helper run")):
            pod = workload(one)
            await adapter.run(pod)
            await exit_of(adapter, pod.identity)
            assert (await log(adapter, pod.identity)).startswith(first)

    async def test_a_registry_says_what_an_image_runs(self, bench: DeprivedBench) -> None:
        config = {"Entrypoint": ["sh", "-c"], "Cmd": ["echo told; exit 3"]}
        async with serving(PaperRegistry()) as paper:
            machine = machine_of(platform.machine())
            paper.image("app:1", {"architecture": machine, "os": "linux", "config": config})
            async with named(bench, f"{paper.address}/app:1") as name:
                adapter = await bench.adapter(helper_images="registry")
                pod = workload(replace(container(), image=name))
                await adapter.run(pod)
                assert (await exit_of(adapter, pod.identity)).code == 3
                assert await log(adapter, pod.identity) == b"told\n"

    async def test_an_image_that_cannot_be_read_is_not_wrapped(self, bench: DeprivedBench) -> None:
        async with (
            serving(PaperRegistry()) as paper,
            named(bench, f"{paper.address}/app:1") as name,
        ):
            adapter = await bench.adapter(helper_images="registry")
            plain = replace(container(), image=name, restart_policy=RestartPolicy.NEVER)
            pod = workload(plain)
            await adapter.run(pod)
            await exit_of(adapter, pod.identity)
            observed = await until(adapter, pod.identity, lambda found: found.ended)
            assert "has no such image" in observed.message
            assert "lost: exec" in observed.message
            needy = workload(replace(plain, logs_as_message=True))
            await adapter.run(needy)

            def says(found: Observed) -> bool:
                state = found.containers[0].state
                return isinstance(state, Waiting) and state.reason == "ImageInspectError"

            await until(adapter, needy.identity, says)


@asynccontextmanager
async def named(bench: DeprivedBench, name: str) -> AsyncIterator[str]:
    """The tests' image under another name, for a while."""
    engine = await bench.engine()
    repository, _, tag = name.rpartition(":")
    await engine.call("POST", f"images/{IMAGE}/tag", params={"repo": repository, "tag": tag})
    try:
        yield name
    finally:
        await engine.call("DELETE", f"images/{name}")


class Refusing(Line):
    """An engine that starts nothing, and counts what it refuses."""

    refuses = True
    refused = 0

    def answer(self, request: bytes) -> bytes:
        if not self.refuses or b"/start HTTP/1.1" not in request:
            return b""
        self.refused += 1
        return refusal("runc create failed")


async def test_a_sandbox_that_does_not_start_is_tried_again_after_a_rest(
    bench: DeprivedBench, tmp_path: Path
) -> None:
    """However often somebody looks meanwhile; and nothing is told that has not changed."""
    line = Refusing(bench.address, tmp_path / "engine.sock")
    await line.mend()
    adapter = await bench.adapter(line.address)
    pod = bench.endless()
    told = 0

    async def hear() -> None:
        nonlocal told
        async for _ in adapter.events():
            told += 1

    async def is_refused() -> bool:
        await adapter.list()
        return line.refused >= 3

    hearing = asyncio.create_task(hear())
    began = time.monotonic()
    await adapter.run(pod)
    await soon(is_refused)
    # At once, after one second, and after two more.
    assert time.monotonic() - began >= 2.9
    assert told <= 20
    line.refuses = False
    await until(adapter, pod.identity, says_started)
    hearing.cancel()
    await asyncio.gather(hearing, return_exceptions=True)
    await adapter.close()
    bench._made.remove(adapter)
    await line.cut()


async def test_a_stop_between_the_first_container_and_the_others_ends_the_pod(
    bench: DeprivedBench,
) -> None:
    """All of them are made by then, and nothing will ever begin them."""
    adapter = await bench.adapter()
    pod = bench.endless()
    await adapter.run(pod)

    async def installed() -> bool:
        # Whoever asks the adapter itself has it begin the others.
        group = await adapter._engine.look(pod.identity)
        first = group and group.container(INSTALL)
        return first is not None and isinstance(first.state, Exit)

    await soon(installed)
    await adapter.stop(pod.identity, 30)
    observed = await until(adapter, pod.identity, lambda one: one.ended)
    assert isinstance(observed.containers[0].state, Waiting)
    await adapter.delete(pod.identity)
    assert await adapter.list() == []
