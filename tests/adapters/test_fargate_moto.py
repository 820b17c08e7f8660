"""`fargate` on moto, which nobody here has written: the wire format, and a plain life.

moto runs nothing and takes every task through its states as it is described; it knows no log of a
task, no client token and no code but 0.
"""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from contract import container, exit_of, find, until, workload
from support.channels import PATIENCE

from adapters.fargate import Adapter, Options
from bridge.workload import EnvVar, HelperUse, PullCredential, Resources

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("moto") is None, reason="moto is not installed"),
]

KEYS = {"aws_access_key_id": "simulated", "aws_secret_access_key": "simulated"}
ROLE = "arn:aws:iam::123456789012:role/execution"


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "moto.server",
        "-H",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    with (tmp_path / "moto.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert process.poll() is None, "moto has ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
            continue
        return
    raise TimeoutError("moto does not listen")


def furnished(endpoint: str) -> dict[str, Any]:
    """What the adapter needs, made as a person would."""

    def client(service: str) -> Any:
        return boto3.client(service, endpoint_url=endpoint, region_name="us-east-1", **KEYS)

    ecs, s3, ec2, logs = map(client, ("ecs", "s3", "ec2", "logs"))
    try:
        ecs.create_cluster(clusterName="pods", capacityProviders=["FARGATE", "FARGATE_SPOT"])
        s3.create_bucket(Bucket="podbridge-pods")
        logs.create_log_group(logGroupName="/podbridge/pods")
        subnets = ec2.describe_subnets()["Subnets"][:2]
        groups = ec2.describe_security_groups()["SecurityGroups"][:1]
    finally:
        for one in (ecs, s3, ec2, logs):
            one.close()
    return {
        "region": "us-east-1",
        "endpoint_url": endpoint,
        "cluster": "pods",
        "bucket": "podbridge-pods",
        "subnets": [one["SubnetId"] for one in subnets],
        "security_groups": [groups[0]["GroupId"]],
        "execution_role": ROLE,
        "images": {"resolve": False},
        "helper": HelperUse.NEVER,
        "poll": 0.1,
        "threads": 4,
    }


async def test_a_plain_life(endpoint: str, tmp_path: Path) -> None:
    given = {**furnished(endpoint), "helper_state": str(tmp_path)}
    adapter = Adapter("fargate", Options(**given))
    await adapter.open()
    try:
        one = replace(
            container("sh", "-c", "exit 0", env={"A": "b"}),
            resources=Resources({"memory": 2**29, "cpu": 250}, {"memory": 2**29}),
            image="registry.example/app:1",
        )
        one = replace(one, env=(*one.env, EnvVar("WORD", "hunter2", secret=True)))
        login = PullCredential("registry.example", "me", "s3same")
        pod = workload(one, pull_credentials=(login,))
        assert adapter.check(pod) == []
        await adapter.run(pod)
        assert (await exit_of(adapter, pod.identity)).code == 0
        await adapter.run(pod)
        assert len(await adapter.list()) == 1
        endless = workload(one)
        await adapter.run(endless)
        await until(adapter, endless.identity, lambda one: one.accepted_at is not None)
        await adapter.delete(endless.identity)
        assert await find(adapter, endless.identity) is None
        await adapter.delete(pod.identity)
        assert await adapter.list() == []
    finally:
        await adapter.close()
