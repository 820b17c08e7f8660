"""`fargate` without a tunnel: exec through ECS ExecuteCommand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from contract import identity
from contract_streams import ExecContract, ExecStreamsContract
from fargate_kit import Cloud, FargateBench

pytestmark = pytest.mark.slow

ROLE = "arn:aws:iam::123456789012:role/pods"


class CommandBench(FargateBench):
    """Pods without the helper, with a role that lets AWS's agent in."""

    def __init__(self, state: Path, cloud: Cloud | None = None, **options: object) -> None:
        mapped = [{"namespace": identity().namespace, "task_role": ROLE}]
        given = {"execute_command": True, "tunnel": None, "identities": mapped, **options}
        super().__init__(state, cloud, **given)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[CommandBench]:
    made = CommandBench(tmp_path)
    yield made
    await made.close()


class TestFargateCommands(ExecContract, ExecStreamsContract):
    """What any exec does."""
