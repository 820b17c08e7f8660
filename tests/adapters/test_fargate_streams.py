"""`fargate` with the helper: exec, attach, dial and stats through the helpers' tunnel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contract import Bench, container, exit_of, log, until, workload
from contract_streams import ECHOES, AttachContract, DialContract, ExecContract, rig
from fargate_kit import SCALE, HelpedBench, helper  # noqa: F401 - a fixture
from support.channels import drained, reads

from bridge.adapter import Attach, Exec, Size
from bridge.workload import Observed, RestartPolicy, Waiting

pytestmark = pytest.mark.slow


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[HelpedBench]:
    made = HelpedBench(tmp_path)
    yield made
    await made.close()


class TestFargateStreams(ExecContract, AttachContract, DialContract):
    """What only a whole pod shows; the bytes of each stream are tried at the helper alone, and what
    containers use where they have a control group of their own."""

    async def test_exec_of_a_container_that_ends(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        channel = await one.sh("trap 'exit 3' TERM; echo begun; while :; do sleep 1; done")
        await reads(channel, b"begun\n")
        await one.adapter.stop(one.who, 30)
        assert await drained(channel) == (b"", b"", 137)

    @pytest.mark.parametrize("inside", [True])
    async def test_dial_reaches_who_listens(self, bench: Bench, inside: bool) -> None:
        """A task that is a process has an address that its helper does not know of."""
        await super().test_dial_reaches_who_listens(bench, inside)

    async def test_attach_feeds_and_hears(self, bench: Bench) -> None:
        one = await rig(bench, Attach, container("sh", "-c", ECHOES, stdin=True))
        first, second = await one.attach(stdin=True), await one.attach()
        await first.write(b"a\n")
        assert await reads(first, b"got a\n") == b"got a\n"
        assert await reads(second, b"got a\n") == b"got a\n"
        await one.adapter.stop(one.who, 30)
        assert await drained(first) == (b"", b"", 143)
        assert await drained(second) == (b"", b"", 143)

    async def test_attach_on_a_terminal(self, bench: Bench) -> None:
        script = "read x; stty size; echo err >&2; read x; exit 3"
        one = await rig(bench, Attach, container("sh", "-c", script, stdin=True, tty=True))
        channel = await one.attach(stdin=True)
        await channel.resize(Size(width=90, height=30))
        await channel.write(b"go\n")
        assert await reads(channel, b"err\r\n") == b"go\r\n30 90\r\nerr\r\n"
        await channel.write(b"\n")
        assert (await drained(channel))[1:] == (b"", 3)
        assert b"30 90" in await log(one.adapter, one.who, follow=True)


@pytest.mark.parametrize("options", [{}, {"tail_lines": 1}, {"follow": True}])
async def test_who_reads_a_log_right_after_the_end_has_all_of_it(
    bench: HelpedBench, options: dict[str, Any]
) -> None:
    """The helper tells of the end before the driver has sent the last lines: they are awaited."""
    adapter = await bench.adapter()
    await bench.cloud.fault("delay", service="logs", action="PutLogEvents", seconds=1.5 * SCALE)
    pod = workload(container("echo", "last"))
    await bench.launch(adapter, pod)
    await exit_of(adapter, pod.identity)
    assert await log(adapter, pod.identity, **options) == b"last\n"


async def test_who_reads_the_log_of_a_run_that_waits_for_the_next_has_all_of_it(
    bench: HelpedBench,
) -> None:
    """What the driver has not sent yet is awaited there too."""
    adapter = await bench.adapter()
    await bench.cloud.fault("delay", service="logs", action="PutLogEvents", seconds=1.5 * SCALE)
    one = container("sh", "-c", "echo last; exit 1")
    pod = workload(replace(one, restart_policy=RestartPolicy.ALWAYS))
    await bench.launch(adapter, pod)

    def rests(observed: Observed) -> bool:
        state = observed.containers[0]
        return isinstance(state.state, Waiting) and state.previous is not None

    await until(adapter, pod.identity, rests)
    assert await log(adapter, pod.identity) == b"last\n"
