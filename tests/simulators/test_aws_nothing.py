"""Tasks that are not run at all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from aws_kit import Cloud, Ecs, awslogs, container, exits, running, until

pytestmark = pytest.mark.slow


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with running(run_on="null") as cloud:
        cloud.client("logs").create_log_group(logGroupName="work")
        yield cloud


def test_what_is_not_run_ends_as_its_command_says(cloud: Cloud) -> None:
    ecs = Ecs(cloud)
    commands = (("true",), ("sleep", "0.2"), ("/bin/server", "--port", "80"))
    quick, slow, server = (
        ecs.start(container(*one, logConfiguration=awslogs())) for one in commands
    )
    assert exits(ecs.end(quick)) == {"main": 0}
    assert exits(ecs.end(slow)) == {"main": 0}
    until(lambda: ecs.task(server)["lastStatus"] == "RUNNING")
    ecs.client.stop_task(cluster="main", task=server)
    assert exits(ecs.end(server)) == {"main": 143}
