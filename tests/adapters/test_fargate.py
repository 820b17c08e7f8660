"""`fargate` with the helper: the contract on the simulator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from contract import Bench, RealContract, container, exit_of, log, until, workload
from fargate_kit import HelpedBench, has_begun, helper, says_started  # noqa: F401 - a fixture
from support.channels import soon

from bridge.errors import Unsupported
from bridge.workload import Exit, Observed, RestartPolicy

pytestmark = pytest.mark.slow


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[HelpedBench]:
    made = HelpedBench(tmp_path)
    yield made
    await made.close()


class TestFargate(RealContract):
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
            return state.restart == 1 and isinstance(state.state, Exit)

        state = (await until(adapter, pod.identity, waits)).containers[0]
        codes = [one.code for one in (state.state, state.previous) if isinstance(one, Exit)]
        assert codes == [4, 4]

    async def test_who_only_looks_finds_every_run(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = workload(container("cat", "/proc/sys/kernel/random/uuid"))
        await adapter.run(pod)
        end = await exit_of(adapter, pod.identity)
        written = await log(adapter, pod.identity)
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
