"""`fargate` with the helper: exec, attach, dial and stats through the helpers' tunnel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from contract_streams import AttachContract, DialContract, ExecContract, StatsContract
from fargate_kit import HelpedBench, helper  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[HelpedBench]:
    made = HelpedBench(tmp_path)
    yield made
    await made.close()


class TestFargateStreams(ExecContract, AttachContract, DialContract, StatsContract):
    pass
