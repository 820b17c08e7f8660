"""Tasks in containers of a real engine."""

from __future__ import annotations

import io
import ipaddress
import json
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from aws_kit import Cloud, Ecs, awslogs, exits, running
from support import engine

from adapters.simulators.aws import Settings

pytestmark = pytest.mark.slow


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    if problem := engine.problem():
        pytest.skip(problem)
    monkeypatch.setenv("DOCKER_HOST", engine.address())
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    assert os.environ["DOCKER_HOST"].startswith("unix:")
    limits = {"logs-read": {"burst": 1000, "per_second": 1000}}
    with running(Settings(buckets=limits), run_on="engine") as cloud:
        owner = cloud.simulator._runner._backend.client.owner
        yield cloud
    assert owner.startswith("podbridge-aws-")
    assert engine.owned(owner) == []


def in_busybox(script: str, **more: Any) -> dict[str, Any]:
    return {"name": "main", "image": engine.BUSYBOX, "command": ["sh", "-c", script], **more}


def test_containers_of_a_task_share_volumes_and_an_address(cloud: Cloud) -> None:
    cloud.client("logs").create_log_group(logGroupName="work")
    ecs = Ecs(cloud)
    shared: Any = {"mountPoints": [{"sourceVolume": "v", "containerPath": "/shared"}]}
    init = in_busybox("echo $WHO > /shared/f", **shared) | {
        "name": "init",
        "essential": False,
        "environment": [{"name": "WHO", "value": "me"}],
    }
    main = in_busybox(
        "cat /shared/f; touch /x || echo read only; exit 3",
        dependsOn=[{"containerName": "init", "condition": "SUCCESS"}],
        readonlyRootFilesystem=True,
        logConfiguration=awslogs(),
        **shared,
    )
    arn = ecs.start(init, main, volumes=[{"name": "v", "host": {}}])
    task = ecs.end(arn)
    assert exits(task) == {"init": 0, "main": 3}
    answer = cloud.client("logs").get_log_events(
        logGroupName="work", logStreamName=f"p/main/{arn.rpartition('/')[2]}", startFromHead=True
    )
    lines = [one["message"] for one in answer["events"]]
    assert {"me", "read only"} <= set(lines)
    details = {one["name"]: one["value"] for one in task["attachments"][0]["details"]}
    assert details["privateIPv4Address"]


def test_what_still_runs_is_removed_at_the_end(cloud: Cloud) -> None:
    ecs = Ecs(cloud)
    arn = ecs.start(in_busybox("sleep 1000"))
    assert ecs.when(arn, "RUNNING")["containers"][0]["lastStatus"] == "RUNNING"


def test_an_image_that_is_not_there(cloud: Cloud) -> None:
    ecs = Ecs(cloud)
    image = "localhost/no/such:image"
    task = ecs.end(ecs.start({"name": "main", "image": image, "command": ["true"]}))
    assert task["stopCode"] == "TaskFailedToStart"
    assert exits(task) == {"main": None}
    assert task["stoppedReason"].startswith("CannotPullContainerError: ")
    assert "no/such" in task["stoppedReason"]
    assert "startedAt" not in task


def test_an_image_of_ones_own_is_given_to_the_engine(cloud: Cloud) -> None:
    """By the control API, as the helper's is: no registry has it."""
    name = "localhost/podbridge-tests/own:1"
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("empty"), io.BytesIO())
    try:
        answer = post(cloud, f"images?name={name}", layer.getvalue())
        assert answer["name"] == name
        assert ipaddress.ip_address(answer["host"])
        assert engine.call("GET", f"/images/{quote(name, safe='')}/json")["Id"]
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(cloud, "images?name=No/Name", b"")
        assert caught.value.code == 400
        assert "allowed: REPOSITORY:TAG" in caught.value.read().decode()
    finally:
        engine.call("DELETE", f"/images/{quote(name, safe='')}")


def post(cloud: Cloud, path: str, body: bytes) -> Any:
    url = f"{cloud.simulator.endpoint}/_podbridge/{path}"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as answer:
        return json.load(answer)
