"""ExecuteCommand, by boto3 and a client of Session Manager's message stream."""

from __future__ import annotations

import asyncio
import json
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aws_kit import PATIENCE, Cloud, Ecs, running, shell, until
from botocore.exceptions import ClientError

from adapters.simulators.aws.agentmessages import Malformed, Message, Payload, decode, encode


def test_messages_are_those_of_the_agent() -> None:
    id_ = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
    data = encode(
        Message("input_stream_data", 7, b"ls\n", Payload.OUTPUT, 1_700_000_000_000, 1, id_)
    )
    assert struct.unpack_from(">I", data, 0) == (116,)
    assert data[4:36] == b"input_stream_data".ljust(32)
    assert struct.unpack_from(">QQQ", data, 40) == (1_700_000_000_000, 7, 1)
    assert data[64:80].hex() == "8899aabbccddeeff0011223344556677"
    assert struct.unpack_from(">II", data, 112) == (1, 3)
    assert data[120:] == b"ls\n"
    assert decode(data) == Message("input_stream_data", 7, b"ls\n", 1, 1_700_000_000_000, 1, id_)
    for broken in (b"", data[:-1], data[:-1] + b"x"):
        with pytest.raises(Malformed):
            decode(broken)


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with running() as cloud:
        yield cloud


@pytest.fixture(scope="module")
def task(cloud: Cloud) -> str:
    ecs = Ecs(cloud)
    definition = ecs.define(
        shell("sleep 1000", environment=[{"name": "WHO", "value": "me"}]),
        taskRoleArn="arn:aws:iam::123456789012:role/task",
    )
    arn = ecs.run(definition, enableExecuteCommand=True)["tasks"][0]["taskArn"]
    ecs.when(arn, "RUNNING")
    return arn


class Client:
    """What the plugin does."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.sequence = 0
        self.output = b""
        self.closed: Any = None
        self.acknowledged: list[int] = []

    async def send(self, kind: int, payload: bytes) -> None:
        message = Message("input_stream_data", self.sequence, payload, kind)
        self.sequence += 1
        await self.socket.send_bytes(encode(message))

    async def run(self, *, until_output: bytes = b"") -> None:
        """Takes what comes, to the end or until that was written."""
        async for frame in self.socket:
            message = decode(frame.data)
            if message.type == "acknowledge":
                self.acknowledged.append(
                    json.loads(message.payload)["AcknowledgedMessageSequenceNumber"]
                )
            elif message.type == "channel_closed":
                self.closed = json.loads(message.payload)
            elif message.kind == Payload.HANDSHAKE_REQUEST:
                asked = json.loads(message.payload)["RequestedClientActions"]
                done = [{"ActionType": one["ActionType"], "ActionStatus": 1} for one in asked]
                answer = {"ClientVersion": "1.2.0", "ProcessedClientActions": done, "Errors": []}
                await self.send(Payload.SIZE, b'{"cols": 91, "rows": 17}')
                await self.send(Payload.HANDSHAKE_RESPONSE, json.dumps(answer).encode())
            elif message.kind == Payload.OUTPUT:
                self.output += message.payload
            if until_output and until_output in self.output:
                return


async def _session(answer: Any, token: str | None = None) -> Any:
    session = aiohttp.ClientSession()
    socket = await session.ws_connect(answer["session"]["streamUrl"])
    first = {"MessageSchemaVersion": "1.0", "RequestId": str(uuid.uuid4()), "ClientId": "c"}
    await socket.send_json({**first, "TokenValue": token or answer["session"]["tokenValue"]})
    return session, socket


@pytest.mark.slow
async def test_a_command_has_a_terminal(cloud: Cloud, task: str) -> None:
    ecs = cloud.client("ecs")
    given = {"cluster": "main", "task": task, "interactive": True}
    # The size comes once the terminal is there.
    script = (
        'while [ "$(stty size)" = "0 0" ]; do :; done; stty size; echo $WHO; read x; echo got $x'
    )
    answer = ecs.execute_command(command=f"sh -c '{script}'", **given)
    assert answer["containerName"] == "main"
    async with asyncio.timeout(PATIENCE):
        session, socket = await _session(answer)
        client = Client(socket)
        await client.run(until_output=b"me")
        await client.send(Payload.OUTPUT, b"line\n")
        await client.run()
        await session.close()
    assert b"17 91" in client.output
    assert b"got line" in client.output
    assert client.closed["MessageType"] == "channel_closed"
    assert client.acknowledged == [0, 1, 2]


@pytest.mark.slow
async def test_a_client_ends_its_session(cloud: Cloud, task: str) -> None:
    ecs = cloud.client("ecs")
    answer = ecs.execute_command(
        cluster="main", task=task, interactive=True, command="sh -c 'echo up; sleep 1000'"
    )
    async with asyncio.timeout(PATIENCE):
        session, socket = await _session(answer)
        client = Client(socket)
        await client.run(until_output=b"up")
        await client.send(Payload.FLAG, struct.pack(">I", 2))
        await client.run()
        await session.close()
    assert socket.closed


def _runs(process: str) -> bool:
    return Path(f"/proc/{process}").exists()


@pytest.mark.slow
@pytest.mark.parametrize("leaves", [False, True])
async def test_a_session_is_terminated(cloud: Cloud, tmp_path: Path, leaves: bool) -> None:
    """A client that only goes leaves its command running."""
    ecs = Ecs(cloud)
    role = "arn:aws:iam::123456789012:role/task"
    definition = ecs.define(shell("sleep 1000"), taskRoleArn=role)
    arn = ecs.run(definition, enableExecuteCommand=True)["tasks"][0]["taskArn"]
    ecs.when(arn, "RUNNING")
    command = f"sh -c 'echo $$ >{tmp_path}/pid; echo up; exec sleep 1000'"
    answer = ecs.client.execute_command(cluster="main", task=arn, interactive=True, command=command)
    async with asyncio.timeout(PATIENCE):
        session, socket = await _session(answer)
        client = Client(socket)
        await client.run(until_output=b"up")
        process = (tmp_path / "pid").read_text().strip()
        if leaves:
            await session.close()
        assert _runs(process)
        id_ = answer["session"]["sessionId"]
        assert cloud.client("ssm").terminate_session(SessionId=id_)["SessionId"] == id_
        if not leaves:
            await client.run()
            assert client.closed["Output"] == ""
        until(lambda: not _runs(process))
        await session.close()
    # Again, or one that never was: nothing to do.
    cloud.client("ssm").terminate_session(SessionId=id_)


@pytest.mark.slow
async def test_nobody_joins_without_the_token_or_twice(cloud: Cloud, task: str) -> None:
    answer = cloud.client("ecs").execute_command(
        cluster="main", task=task, interactive=True, command="true"
    )
    async with asyncio.timeout(PATIENCE):
        session, socket = await _session(answer, token="wrong")
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        await session.close()
        async with aiohttp.ClientSession() as again:
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await again.ws_connect(answer["session"]["streamUrl"])


@pytest.mark.slow
def test_what_is_refused(cloud: Cloud, task: str) -> None:
    ecs = Ecs(cloud)
    (agent,) = ecs.task(task)["containers"][0]["managedAgents"]
    assert (agent["name"], agent["lastStatus"]) == ("ExecuteCommandAgent", "RUNNING")
    call = ecs.client.execute_command
    with pytest.raises(ClientError, match="Interactive is the only mode"):
        call(cluster="main", task=task, interactive=False, command="true")
    with pytest.raises(ClientError, match="not found"):
        call(cluster="main", task="0" * 32, interactive=True, command="true")
    plain = ecs.start(shell("sleep 1000"))
    until(lambda: ecs.task(plain)["lastStatus"] == "RUNNING")
    with pytest.raises(ClientError, match="was not enabled"):
        call(cluster="main", task=plain, interactive=True, command="true")
