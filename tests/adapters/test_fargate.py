"""`fargate` with the helper: the contract on the simulator."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from contract import Bench, RealContract, container, exit_of, log, until, workload
from fargate_kit import HelpedBench, has_begun, helper, says_started  # noqa: F401 - a fixture
from support.channels import PATIENCE, soon

from bridge.adapter import Adapter
from bridge.errors import NotFound, Unsupported
from bridge.workload import (
    EmptyDir,
    Exit,
    File,
    Files,
    HelperUse,
    Mount,
    Observed,
    RestartPolicy,
    Role,
    Security,
    Waiting,
    Workload,
)

pytestmark = pytest.mark.slow


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[HelpedBench]:
    made = HelpedBench(tmp_path)
    yield made
    await made.close()


class TestFargate(RealContract):
    async def finish(self, bench: Bench, pod: Workload) -> tuple[Adapter, Exit]:
        """Until its task has ended: its helper tells of an end before CloudWatch has the last
        line."""
        adapter, end = await super().finish(bench, pod)
        await until(adapter, pod.identity, lambda one: one.ended)
        return adapter, end

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
        one = container("sh", "-c", "cat /proc/sys/kernel/random/uuid; sleep 1; exit 4")
        pod = workload(replace(one, restart_policy=RestartPolicy.ON_FAILURE))
        await bench.launch(adapter, pod)

        def waits(observed: Observed) -> bool:
            state = observed.containers[0]
            return state.restart >= 1 and isinstance(state.state, Waiting)

        state = (await until(adapter, pod.identity, waits)).containers[0]
        assert isinstance(state.state, Waiting)
        assert state.state.reason == "CrashLoopBackOff"
        assert state.previous is not None
        assert state.previous.code == 4
        # CloudWatch Logs has one log of all runs; the latest one's is told apart.
        assert len(await log(adapter, pod.identity)) == 37

    async def test_who_follows_a_run_comes_to_its_end(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        one = container("sh", "-c", "cat /proc/sys/kernel/random/uuid; sleep 1; exit 4")
        pod = workload(replace(one, restart_policy=RestartPolicy.ON_FAILURE))
        await bench.launch(adapter, pod)
        await until(adapter, pod.identity, has_begun)
        async with asyncio.timeout(PATIENCE):
            # Of whichever run it is by now: its line, and no other run's.
            assert len(await log(adapter, pod.identity, follow=True)) == 37

    async def test_who_only_looks_finds_every_run(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = workload(container("cat", "/proc/sys/kernel/random/uuid"))
        await adapter.run(pod)
        end = await exit_of(adapter, pod.identity)
        written = await log(adapter, pod.identity, follow=True)
        assert len(written) == 37
        onlooker = await bench.adapter()
        assert await exit_of(onlooker, pod.identity) == end
        assert await log(onlooker, pod.identity) == written

    async def test_logs_to_the_byte(self, bench: Bench) -> None:
        """Of text: CloudWatch Logs keeps lines of both streams together, and no empty ones."""
        script = r"printf 'a b\n\né\nlast'; sleep 0.1; printf 'to stderr\n' >&2"
        pod = workload(container("sh", "-c", script))
        adapter, _ = await self.finish(bench, pod)
        assert sorted((await log(adapter, pod.identity)).decode().splitlines()) == [
            *("a b", "last", "to stderr", "é")
        ]
        with pytest.raises(Unsupported):
            await log(adapter, pod.identity, stream="stdout")

    async def test_stop_without_grace_kills(self, bench: Bench) -> None:
        """After the stop signal: the helper leaves two seconds for that."""
        adapter = await bench.adapter()
        deaf = container("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done")
        pod = workload(deaf, grace=1000)
        await bench.launch(adapter, pod)
        await until(adapter, pod.identity, says_started)

        async def is_deaf() -> bool:
            return await log(adapter, pod.identity) == b"deaf\n"

        await soon(is_deaf)
        await adapter.stop(pod.identity, 0)
        assert (await exit_of(adapter, pod.identity)).code == 137

    async def test_the_environment_is_exact(self, bench: Bench) -> None:
        """But for what AWS adds."""
        env = {"A": "1", "EMPTY": "", "SPACES": " a  b ", "LINES": "x\ny", "UTF": "é"}
        pod = workload(container("env", "-0", env=env))
        adapter, _ = await self.finish(bench, pod)
        got = (await log(adapter, pod.identity)).decode().split("\0")[:-1]
        found = dict(one.split("=", 1) for one in got)
        more = {name for name in found.keys() - env.keys() if not name.startswith("AWS_")}
        assert more <= {"HOME", "HOSTNAME", "PATH"}
        assert {name: found[name] for name in env} == env

    async def test_a_message_is_read(self, bench: Bench, tmp_path: Path) -> None:
        # Where tasks are processes, /dev is the host's, and all tasks'.
        path = tmp_path / "message"
        script = f"printf 'what happened' > {path}; exit 1"
        one = container("sh", "-c", script, termination_message_path=str(path))
        _, end = await self.finish(bench, workload(one))
        assert end.message == "what happened"

    async def test_follows_to_the_very_end(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        script = "for i in 1 2 3; do echo $i; sleep 0.05; done; printf end"
        pod = workload(container("sh", "-c", script))
        await bench.launch(adapter, pod)
        await until(adapter, pod.identity, has_begun)
        assert await log(adapter, pod.identity, follow=True) == b"1\n2\n3\nend\n"
        assert (await exit_of(adapter, pod.identity)).code == 0


async def test_a_pod_of_many_parts(bench: HelpedBench, tmp_path: Path) -> None:
    adapter = await bench.adapter()
    # Where tasks are processes, a volume is at its path of this host in a namespace of the task's.
    secret = Files("keys", (File("key", b"open sesame", 0o440, secret=True),), "1")
    keys = [Mount("keys", str(tmp_path / "keys"))]
    work = [Mount("work", str(tmp_path / "work"))]
    for folder in ("keys", "work"):
        (tmp_path / folder).mkdir()
    first = container(
        *("sh", "-c", f"cat {tmp_path}/keys/key > {tmp_path}/work/found"),
        name="first",
        role=Role.INIT,
        mounts=[*keys, *work],
    )
    side = replace(
        container("sleep", "1000", name="side", role=Role.SIDECAR),
        restart_policy=RestartPolicy.ALWAYS,
    )
    main = container("sh", "-c", f"cat {tmp_path}/work/found; exit 9", mounts=work)
    pod = workload(first, side, main, volumes=[secret, EmptyDir("work")])
    assert adapter.check(pod) == []
    await adapter.run(pod)
    observed = await until(adapter, pod.identity, lambda one: one.ended)
    codes = {one.name: one.state.code for one in observed.containers if isinstance(one.state, Exit)}
    assert codes == {"first": 0, "side": 143, "main": 9}
    assert await log(adapter, pod.identity) == b"open sesame\n"
    await adapter.delete(pod.identity)
    assert await bench.leftovers(pod.identity) == []


async def test_an_empty_volume_is_for_every_user(bench: HelpedBench) -> None:
    """ECS makes it root's; the helper opens it before anything else runs."""
    if os.getuid() != 0:
        pytest.skip("a task's user can only be another one where this is root")
    adapter = await bench.adapter(helper=HelperUse.AUTO)
    work = "/srv"  # A folder that every host has and every user may go through.
    script = f"stat -c '%a %g' {work}; echo > {work}/file; stat -c %u:%g {work}/file"
    main = container("sh", "-c", script, mounts=[Mount("work", work)])
    main = replace(main, security=Security(run_as_user=1234, run_as_group=1234, fs_group=77))
    pod = workload(main, volumes=[EmptyDir("work")])
    await adapter.run(pod)
    assert (await exit_of(adapter, pod.identity)).code == 0
    assert await log(adapter, pod.identity, follow=True) == b"2777 77\n1234:77\n"


async def test_a_cluster_that_is_not_there(bench: HelpedBench) -> None:
    with pytest.raises(NotFound, match="no ECS cluster"):
        await bench.adapter(cluster="other")


async def test_a_launch_is_stopped_before_its_task(bench: HelpedBench) -> None:
    adapter = await bench.adapter()
    await bench.cloud.fault("no-capacity", times=1000)
    pod = bench.endless()
    await adapter.run(pod)
    await until(adapter, pod.identity, lambda one: "capacity" in str(one).lower())
    await adapter.stop(pod.identity, 30)
    await until(adapter, pod.identity, lambda one: one.ended)
    await adapter.delete(pod.identity)
    assert await adapter.list() == []
    assert await bench.leftovers(pod.identity) == []
