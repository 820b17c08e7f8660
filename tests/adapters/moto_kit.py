"""moto's server as a process of its own, and a reader of the commands that we tell people."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

REGION = "eu-west-2"
_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("port", server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def moto() -> Iterator[str]:
    """The address of an account in which nobody has made anything."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        env={**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        port = ""
        while process.stdout and not port:
            line = process.stdout.readline()
            assert line, "moto's server ended"
            port = line.removeprefix("port ").strip() if line.startswith("port ") else ""
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


class Account:
    """The account, by boto3."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._session = boto3.session.Session(
            aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION
        )

    def call(self, service: str, action: str, **given: Any) -> Any:
        """One call."""
        client = self._session.client(service, endpoint_url=self._endpoint)
        try:
            return getattr(client, action)(**given)
        finally:
            client.close()

    def run(self, command: str) -> None:
        """An `aws` command: each option is a member of the operation's input, as the AWS CLI names
        it, so that a wrong name or shape is refused by the service's own model."""
        program, service, operation, *words = shlex.split(command)
        assert program == "aws"
        client = self._session.client(
            "s3" if service == "s3api" else service, endpoint_url=self._endpoint
        )
        try:
            action = operation.replace("-", "_")
            name = client.meta.method_to_api_mapping[action]
            members = client.meta.service_model.operation_model(name).input_shape.members
            given: dict[str, Any] = {}
            for option, values in _options(words):
                if option == "region":
                    assert values == [REGION]
                    continue
                fits = [one for one in members if _kebab(one) == option]
                assert len(fits) == 1, f"{command}: no member for --{option}"
                given[fits[0]] = _value(values, members[fits[0]].type_name)
            getattr(client, action)(**given)
        finally:
            client.close()


def _options(words: list[str]) -> Iterator[tuple[str, list[str]]]:
    while words:
        option, *words = words
        values = []
        while words and not words[0].startswith("--"):
            values.append(words.pop(0))
        yield option.removeprefix("--"), values


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def _value(values: list[str], kind: str) -> Any:
    if kind == "list":
        return json.loads(values[0]) if values[0].startswith("[") else values
    (value,) = values
    if kind in ("structure", "map"):
        if value.startswith("{"):
            return json.loads(value)
        pairs = dict(one.split("=", 1) for one in value.split(","))
        return {key: {"true": True}.get(one, one) for key, one in pairs.items()}
    if kind in ("integer", "long"):
        return int(value)
    return float(value) if kind in ("double", "float") else value


def gateway(account: Account) -> str:
    """Gives the default VPC the way out that it has in AWS; its ID."""
    (vpc,) = account.call("ec2", "describe_vpcs")["Vpcs"]
    made = account.call("ec2", "create_internet_gateway")["InternetGateway"]["InternetGatewayId"]
    account.call("ec2", "attach_internet_gateway", InternetGatewayId=made, VpcId=vpc["VpcId"])
    (table,) = account.call("ec2", "describe_route_tables")["RouteTables"]
    account.call(
        "ec2",
        "create_route",
        RouteTableId=table["RouteTableId"],
        DestinationCidrBlock="0.0.0.0/0",
        GatewayId=made,
    )
    return str(vpc["VpcId"])
