"""The AWS simulator for tests: in a thread of its own, spoken to by boto3 over the socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import boto3
from botocore.config import Config

from adapters.simulators.aws import Settings, Simulator

PATIENCE = 30.0
"""Seconds: far above what anything here takes."""
SUBNET = "subnet-0123456789abcdef0"
GROUP = "sg-0123456789abcdef0"
ROLE = "arn:aws:iam::123456789012:role/execution"
QUICK = 200.0
"""A time scale at which a task is up within a quarter of a second."""


class Cloud:
    """A simulator that runs."""

    def __init__(self, settings: Settings | None = None, scale: float = QUICK, **more: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulator")
        self._thread.start()
        self._clients: list[Any] = []
        self.heard: list[str] = []
        """For who reads a queue."""
        self.simulator = self._call(self._make(settings, scale, more))

    async def _make(self, settings: Settings | None, scale: float, more: Any) -> Simulator:
        return await Simulator(settings, time_scale=scale, **more).__aenter__()

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._call(self.simulator.__aexit__(None, None, None))
        self._call(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def client(
        self, service: str, *, attempts: int = 1, key: str = "simulated", **more: Any
    ) -> Any:
        made = boto3.client(
            service,
            endpoint_url=self.simulator.endpoint,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key="simulated",
            config=Config(retries={"total_max_attempts": attempts, "mode": "standard"}, **more),
        )
        self._clients.append(made)
        return made

    def control(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        url = f"{self.simulator.endpoint}/_podbridge/{path}"
        request = urllib.request.Request(url, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def fault(self, kind: str, **more: Any) -> str:
        status, answer = self.control("POST", "faults", {"kind": kind, **more})
        assert status == 201, answer
        return answer["id"]

    def ledger(self) -> Any:
        return self.control("GET", "ledger")[1]


@contextlib.contextmanager
def running(settings: Settings | None = None, scale: float = QUICK, **more: Any) -> Iterator[Cloud]:
    """A simulator; that it never answered what its models forbid is asserted at the end."""
    cloud = Cloud(settings, scale, **more)
    try:
        yield cloud
        assert cloud.simulator.broken == []
    finally:
        cloud.close()


def until(true: Callable[[], Any]) -> Any:
    """What that gives, as soon as it is true."""
    end = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
    return found


def container(*command: str, name: str = "main", **more: Any) -> dict[str, Any]:
    """A container that runs that command of this host."""
    return {"name": name, "image": "example/image", "command": list(command), **more}


def shell(script: str, name: str = "main", **more: Any) -> dict[str, Any]:
    """A container that runs a shell script."""
    return container("sh", "-c", script, name=name, **more)


def awslogs(**options: str) -> dict[str, Any]:
    """A log configuration to the group `work`."""
    given = {"awslogs-group": "work", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "p"}
    return {"logDriver": "awslogs", "options": given | {"mode": "blocking"} | options}


class Ecs:
    """What most tests do with ECS."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.client = cloud.client("ecs")
        self.client.create_cluster(
            clusterName="main", capacityProviders=["FARGATE", "FARGATE_SPOT"]
        )

    def define(self, *containers: dict[str, Any], family: str = "work", **more: Any) -> str:
        """A task definition of the smallest size; its ARN."""
        given = {
            "family": family,
            "networkMode": "awsvpc",
            "requiresCompatibilities": ["FARGATE"],
            "cpu": "256",
            "memory": "512",
            "executionRoleArn": ROLE,
            "containerDefinitions": list(containers),
        }
        answer = self.client.register_task_definition(**(given | more))
        return answer["taskDefinition"]["taskDefinitionArn"]

    def run(self, definition: str, **more: Any) -> dict[str, Any]:
        """RunTask's answer."""
        given = {
            "cluster": "main",
            "taskDefinition": definition,
            "networkConfiguration": {
                "awsvpcConfiguration": {"subnets": [SUBNET], "securityGroups": [GROUP]}
            },
        }
        if "capacityProviderStrategy" not in more:
            given["launchType"] = "FARGATE"
        return self.client.run_task(**(given | more))

    def start(self, *containers: dict[str, Any], **more: Any) -> str:
        """Defines and runs one task; its ARN."""
        definition = {name: more.pop(name) for name in ("volumes", "pidMode") if name in more}
        answer = self.run(self.define(*containers, **definition), **more)
        assert answer["failures"] == []
        return answer["tasks"][0]["taskArn"]

    def task(self, arn: str, **more: Any) -> dict[str, Any]:
        """DescribeTasks of one."""
        (found,) = self.client.describe_tasks(cluster="main", tasks=[arn], **more)["tasks"]
        return found

    def when(self, arn: str, status: str) -> dict[str, Any]:
        """The task as soon as it has that status."""

        def has() -> dict[str, Any] | None:
            found = self.task(arn)
            return found if found["lastStatus"] == status else None

        return until(has)

    def end(self, arn: str) -> dict[str, Any]:
        """The task once it is STOPPED."""
        return self.when(arn, "STOPPED")


def exits(task: dict[str, Any]) -> dict[str, int | None]:
    """Exit codes by container."""
    return {one["name"]: one.get("exitCode") for one in task["containers"]}
