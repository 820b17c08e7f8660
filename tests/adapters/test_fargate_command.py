"""`fargate` without a tunnel: exec through ECS ExecuteCommand."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from contract import Bench, identity, is_running, until
from contract_streams import ExecContract, ExecStreamsContract, Rig, rig
from fargate_kit import Cloud, FargateBench, HelpedBench, helper  # noqa: F401 - a fixture
from support.channels import drained, reads, soon

from adapters.fargate import command, observe, session
from bridge.adapter import Exec, Size
from bridge.errors import BridgeError, Invalid, NotFound, Unavailable, Unsupported
from bridge.groups.command import Command
from bridge.workload import HelperUse, Observed

pytestmark = pytest.mark.slow

ROLE = "arn:aws:iam::123456789012:role/pods"
MAPPED = [{"namespace": identity().namespace, "task_role": ROLE}]


class CommandBench(FargateBench):
    """Pods without the helper, with a role that lets AWS's agent in."""

    def __init__(self, state: Path, cloud: Cloud | None = None, **options: Any) -> None:
        given = {"execute_command": True, "tunnel": None, "identities": MAPPED, **options}
        super().__init__(state, cloud, **given)

    def terminate(self) -> None:
        """As somebody else may do it in AWS's console."""
        sessions = self.cloud.simulator.account.ecs.commands.sessions
        for id_ in list(sessions._terminated):
            sessions.terminate(id_)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[CommandBench]:
    made = CommandBench(tmp_path)
    yield made
    await made.close()


class TestFargateCommands(ExecContract, ExecStreamsContract):
    """What any exec does."""

    async def test_exec_of_a_container_that_ends(self, bench: Bench) -> None:
        """Its session ends with it: if nobody is left to tell the command's code, that is said."""
        one = await rig(bench, Exec)
        channel = await one.sh("echo begun; exec sleep 1000")
        await reads(channel, b"begun\n")
        await one.adapter.stop(one.who, 0)
        try:
            assert await drained(channel) == (b"", b"", 137)
        except Unavailable as error:
            assert "ended before the command" in error.message or "lost" in error.message  # noqa: PT017
            await channel.close()


async def test_a_session_that_somebody_ends(bench: CommandBench) -> None:
    one = await rig(bench, Exec)
    channel = await one.sh("echo begun; exec sleep 1000", stdin=True)
    await reads(channel, b"begun\n")
    bench.terminate()
    with pytest.raises(Unavailable, match="ended before the command"):
        await channel.read()
    with pytest.raises(Unavailable, match="ended before the command"):
        await channel.wait()
    await channel.close()


async def test_a_connection_that_is_cut(bench: CommandBench) -> None:
    """The command does not outlive the one who has lost it."""
    one = await rig(bench, Exec)
    channel: Any = await one.sh("echo begun; echo $$ >/work/pid; exec sleep 1000", stdin=True)
    await reads(channel, b"begun\n")
    transport = channel._session._socket._response.connection.transport
    transport.abort()
    with pytest.raises(Unavailable, match="was cut"):
        await channel.read()
    with pytest.raises(Unavailable, match="was cut"):
        await channel.write(b"x")
    await channel.close()

    async def gone() -> bool:
        return not await one.says("kill -0 $(cat /work/pid) && echo there")

    await soon(gone)


async def test_an_adapter_that_is_closed_ends_its_commands(bench: CommandBench) -> None:
    one = await rig(bench, Exec)
    channel = await one.sh("echo begun; exec sleep 1000")
    await reads(channel, b"begun\n")
    await one.adapter.close()

    async def over() -> bool:
        return not bench.cloud.simulator.account.ecs.commands.sessions._terminated

    await soon(over)
    with pytest.raises(Unavailable, match=r"closed|ended before"):
        await channel.read()
    await channel.close()


async def test_a_terminal(bench: CommandBench) -> None:
    one = await rig(bench, Exec)
    script = "echo ready; read x; stty size; echo err >&2; read x; exit 3"
    channel = await one.sh(script, stdin=True, tty=True)
    await reads(channel, b"ready\r\n")
    await channel.resize(Size(width=90, height=30))
    await channel.write(b"go\n")
    assert await reads(channel, b"err\r\n") == b"go\r\n30 90\r\nerr\r\n"
    await channel.resize(Size(width=91, height=31))
    await channel.write(b"\x03")
    assert (await drained(channel))[1:] == (b"", 130)


async def test_an_interactive_shell(bench: CommandBench) -> None:
    one = await rig(bench, Exec)
    channel = await one.exec("sh", stdin=True, tty=True)
    await channel.write(b"PS1=; stty -echo; echo $((6 * 7))\n")
    assert (await reads(channel, b"42\r\n")).endswith(b"42\r\n")
    await channel.write(b"exit 9\n")
    assert (await drained(channel))[2] == 9


async def test_output_that_nobody_has_read_when_the_command_ends(bench: CommandBench) -> None:
    one = await rig(bench, Exec)
    channel = await one.sh("head -c 200000 /dev/zero; exit 4")
    await one.says("true")
    out, err, code = await drained(channel)
    assert (len(out), err, code) == (200_000, b"", 4)


async def test_a_pod_without_a_role(tmp_path: Path) -> None:
    bench = CommandBench(tmp_path, identities=[])
    try:
        one = await rig(bench, Exec)
        with pytest.raises(Unsupported, match=r"takes a pod with a role.*identities"):
            await one.exec("true")
    finally:
        await bench.close()


async def test_a_backend_that_does_not_allow_it(tmp_path: Path) -> None:
    bench = CommandBench(tmp_path, execute_command=False)
    try:
        one = await rig(bench, Exec)
        with pytest.raises(Unsupported, match="execute_command is false"):
            await one.exec("true")
        # It is the task that takes commands or does not, and it stays.
        await one.adapter.close()
        again = Rig(bench, await bench.adapter(execute_command=True), one.pod)
        with pytest.raises(Unsupported, match="launched without ExecuteCommand"):
            await again.exec("true")
    finally:
        await bench.close()


async def test_a_backend_that_does_not_allow_it_any_more(bench: CommandBench) -> None:
    """Whatever its pods were launched with."""
    one = await rig(bench, Exec)
    assert await drained(await one.exec("true")) == (b"", b"", 0)
    await one.adapter.close()
    again = Rig(bench, await bench.adapter(execute_command=False), one.pod)
    await until(again.adapter, one.who, is_running)
    with pytest.raises(Unsupported, match="execute_command is false"):
        await again.exec("true")


async def test_a_pod_with_the_helper_and_no_tunnel(tmp_path: Path) -> None:
    bench = HelpedBench(tmp_path, execute_command=True, tunnel=None, identities=MAPPED)
    try:
        adapter: Any = await bench.adapter()
        one = Rig(bench, adapter, bench.endless())
        await bench.launch(adapter, one.pod)

        def is_there(_: Observed) -> bool:
            # What its helper says, no tunnel tells.
            return observe.is_running(adapter._pods.of(one.who).task or {})

        await until(adapter, one.who, is_there)
        assert await drained(await one.sh("echo out; exit 3")) == (b"out\n", b"", 3)
        for name in ("podbridge-watch", "other"):
            with pytest.raises(NotFound):
                await one.exec("true", name=name)
    finally:
        await bench.close()


async def test_a_tunnel_goes_before(tmp_path: Path) -> None:
    """Such a task takes no commands of ECS's; one without the helper beside it does."""
    bench = CommandBench(tmp_path, helper=HelperUse.AUTO)
    try:
        adapter: Any = await bench.adapter(tunnel={"listen": "127.0.0.1", "address": "127.0.0.1"})
        bare = bench.endless()
        helped = replace(bench.endless(), helper=HelperUse.ALWAYS)
        for pod, asked in ((bare, True), (helped, False)):
            await bench.launch(adapter, pod)
            await until(adapter, pod.identity, is_running)
            kept = adapter._pods.of(pod.identity)
            told = await adapter._tasks.describe([kept.arn])
            assert told[kept.arn]["enableExecuteCommand"] is asked
            channel = await adapter.exec(pod.identity, "main", ["true"], stdin=False, tty=False)
            assert isinstance(channel, Command) is asked
            assert await drained(channel) == (b"", b"", 0)
    finally:
        await bench.close()


async def test_what_aws_refuses(bench: CommandBench) -> None:
    one = await rig(bench, Exec)
    await bench.cloud.fault("error", service="ecs", action="ExecuteCommand", times=1)
    with pytest.raises(BridgeError, match="ExecuteCommand"):
        await one.exec("true")
    with pytest.raises(Invalid, match="option of the shell"):
        await one.exec("-c")
    assert await drained(await one.exec("true")) == (b"", b"", 0)


async def test_an_agent_that_does_not_run(
    bench: CommandBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS's agent writes to the container's disk, for one: with a read-only one it stops."""
    one = await rig(bench, Exec)
    adapter: Any = one.adapter
    arn = adapter._pods.of(one.who).arn
    found = dict((await adapter._tasks.describe([arn]))[arn])
    agent = {"name": "ExecuteCommandAgent", "lastStatus": "PENDING", "reason": "no disk"}
    container = {**found["containers"][0], "managedAgents": [agent]}
    looks = 0

    async def describe(arns: list[str]) -> dict[str, Any]:
        nonlocal looks
        looks += 1
        if looks == 2:
            agent["lastStatus"] = "STOPPED"
        return {arn: {**found, "containers": [container]}}

    monkeypatch.setattr(command, "_LOOK", 0)
    monkeypatch.setattr(adapter._tasks, "describe", describe)
    adapter._pods.of(one.who).task = {**found, "containers": [container]}
    with pytest.raises(Unavailable, match="no disk"):
        await one.exec("true")
    assert looks == 2


async def test_an_agent_that_is_known_to_run_is_not_looked_at(
    bench: CommandBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless AWS knows better."""
    one = await rig(bench, Exec)
    adapter: Any = one.adapter
    looks = 0

    async def look(arns: list[str]) -> Any:
        nonlocal looks
        looks += 1
        return await adapter._tasks.describe(arns)

    async def known() -> bool:
        return command._takes_commands(adapter._pods.of(one.who).task, "main")

    await soon(known)
    monkeypatch.setattr(adapter._commands, "_tasks", SimpleNamespace(describe=look))
    assert await drained(await one.exec("true")) == (b"", b"", 0)
    assert looks == 0
    refusals = [Unavailable("ecs:ExecuteCommand: TargetNotConnectedException")]

    async def call(service: str, action: str, **given: Any) -> Any:
        if action == "execute_command" and refusals:
            raise refusals.pop()
        return await adapter._clients.call(service, action, **given)

    monkeypatch.setattr(adapter._commands, "_clients", SimpleNamespace(call=call))
    assert await drained(await one.exec("true")) == (b"", b"", 0)
    assert looks == 1


async def test_a_session_that_cannot_be_joined(
    bench: CommandBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is terminated, and its token is told to nobody."""
    one = await rig(bench, Exec)
    tokens: list[str] = []

    async def connect(url: str, token: str) -> session.Session:
        tokens.append(token)
        raise Unavailable("the session cannot be opened")

    monkeypatch.setattr(session, "connect", connect)
    with caplog.at_level(logging.INFO), pytest.raises(Unavailable) as caught:
        await one.exec("true")
    sessions = bench.cloud.simulator.account.ecs.commands.sessions
    assert sessions._wanted == {}
    assert tokens[0] not in caught.value.message + caplog.text


async def test_a_large_file_by_a_terminal_that_is_no_terminal(bench: CommandBench) -> None:
    """As `cp` does it: an archive to and fro."""
    one = await rig(bench, Exec)
    data = os.urandom(200_000)
    channel = await one.sh("cat >/work/file; wc -c </work/file", stdin=True)
    await channel.write(data)
    await channel.close_input()
    assert await drained(channel) == (b"200000\n", b"", 0)
    assert await drained(await one.exec("cat", "/work/file")) == (data, b"", 0)
