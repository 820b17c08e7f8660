"""`engine` with `helper: always`: exec, attach, dial and stats through the helpers' tunnel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from contract import Bench, container
from contract_streams import (
    ECHOES,
    AttachContract,
    DialContract,
    ExecContract,
    StatsContract,
    rig,
)
from deprived_kit import DeprivedBench, helper  # noqa: F401 - a fixture
from engine_kit import engine_address, image  # noqa: F401 - a fixture
from support.channels import drained, reads

from bridge.adapter import Attach, Exec
from bridge.errors import Unavailable

pytestmark = pytest.mark.slow


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[DeprivedBench]:
    made = DeprivedBench(engine_address(), tmp_path)
    yield made
    await made.close()


class TestDeprivedStreams(ExecContract, AttachContract, DialContract, StatsContract):
    """What only a whole pod shows; the bytes of each stream are tried at the helper alone.

    A stop without grace kills the helpers too: what they were about to say is lost.
    """

    async def test_exec_of_a_container_that_ends(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        channel = await one.sh("trap 'exit 3' TERM; echo begun; while :; do sleep 1; done")
        await reads(channel, b"begun\n")
        await one.adapter.stop(one.who, 30)
        assert await drained(channel) == (b"", b"", 137)

    async def test_streams_of_a_pod_that_is_killed(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        ran, heard = await one.sh("echo begun; exec sleep 1000"), await one.attach()
        await reads(ran, b"begun\n")
        await one.adapter.stop(one.who, 0)
        for channel in (ran, heard):
            with pytest.raises(Unavailable, match="the tunnel broke"):
                await drained(channel)

    async def test_attach_feeds_and_hears(self, bench: Bench) -> None:
        one = await rig(bench, Attach, container("sh", "-c", ECHOES, stdin=True))
        first, second = await one.attach(stdin=True), await one.attach()
        await first.write(b"a\n")
        assert await reads(first, b"got a\n") == b"got a\n"
        assert await reads(second, b"got a\n") == b"got a\n"
        await one.adapter.stop(one.who, 30)
        assert await drained(first) == (b"", b"", 143)
        assert await drained(second) == (b"", b"", 143)
