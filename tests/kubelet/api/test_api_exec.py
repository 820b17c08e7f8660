"""Exec and attach over the HTTPS API, by WebSocket and by SPDY."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from api_kit import PATH, PATIENCE, TOKEN, Rig, Spdy, manifest, rig, status_of, until
from support.pipes import POD, Hand

from bridge.adapter import Size
from bridge.errors import Invalid, NotFound, Unavailable, Unsupported
from bridge.kubelet.streams.spdy import Data, GoAway

EXEC = f"/exec/{PATH}/c"
ATTACH = f"/attach/{PATH}/c"
ALL = "input=1&output=1&error=1"
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
SUCCESS = {"metadata": {}, "status": "Success"}


def failure(code: int) -> dict[str, Any]:
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def internal(words: str) -> dict[str, Any]:
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {words}",
        "reason": "InternalError",
        "details": {"causes": [{"message": words}]},
        "code": 500,
    }


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as made:
        yield made


@pytest.fixture
def hand(node: Rig) -> Hand:
    made = Hand()
    node.adapter.given.append(made)
    return made


def websocket(node: Rig, path: str, protocol: str = V4) -> Any:
    return node.known().ws_connect(path, protocols=[protocol])


async def rest(socket: aiohttp.ClientWebSocketResponse) -> dict[int, bytes]:
    """What comes on each channel until the end."""
    got: dict[int, bytes] = {}
    async with asyncio.timeout(PATIENCE):
        async for message in socket:
            assert isinstance(message.data, bytes)
            channel = message.data[0]
            got[channel] = got.get(channel, b"") + message.data[1:]
    return got


@pytest.mark.parametrize("protocol", [V4, V5])
async def test_output_and_exit_code(node: Rig, hand: Hand, protocol: str) -> None:
    hand.says("stdout", b"out ", b"put")
    hand.says("stderr", b"err")
    hand.ends(7)
    async with websocket(node, f"{EXEC}?command=run&command=a%20b&{ALL}", protocol) as socket:
        got = await rest(socket)
    assert (got[1], got[2], status_of(got[3])) == (b"out put", b"err", failure(7))
    [(identity, container, command, stdin, tty)] = node.adapter.asked
    assert (identity.uid, container, command) == (POD.uid, "c", ("run", "a b"))
    assert (stdin, tty) == (True, False)
    assert hand.closed.is_set()


async def test_success(node: Rig, hand: Hand) -> None:
    hand.ends(0)
    async with websocket(node, f"{EXEC}?command=true&output=1") as socket:
        assert status_of((await rest(socket))[3]) == SUCCESS
    assert node.adapter.asked[0][3:] == (False, False)


async def test_stdin_and_its_end(node: Rig, hand: Hand) -> None:
    async with websocket(node, f"{EXEC}?command=cat&{ALL}", V5) as socket:
        await socket.send_bytes(b"\x00hello ")
        await socket.send_bytes(b"\x00world")
        await until(lambda: b"".join(hand.written) == b"hello world")
        assert not hand.input_closed.is_set()
        await socket.send_bytes(b"\xff\x00")
        async with asyncio.timeout(PATIENCE):
            await hand.input_closed.wait()
        hand.says("stdout", b"done")
        hand.ends()
        got = await rest(socket)
    assert (got[1], status_of(got[3])) == (b"done", SUCCESS)


async def test_a_terminal_and_its_sizes(node: Rig, hand: Hand) -> None:
    async with websocket(node, f"{EXEC}?command=sh&{ALL}&tty=1") as socket:
        for width, height in ((80, 24), (132, 50)):
            size = json.dumps({"Width": width, "Height": height}).encode()
            await socket.send_bytes(b"\x04" + size)
            wanted = Size(width, height)
            await until(lambda wanted=wanted: wanted in hand.sizes)
        hand.says("stdout", b"$ ")
        hand.ends(130)
        got = await rest(socket)
    # A terminal has one output.
    assert 2 not in got
    assert (got[1], status_of(got[3])) == (b"$ ", failure(130))
    assert node.adapter.asked[0][3:] == (True, True)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        (f"{EXEC}?command=x", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        (f"{EXEC}?command=x&tty=1&error=1", 400, "you must specify at least 1 of stdin, stdout,"),
        (f"{EXEC}?command=x&output=true", 400, "you must specify at least 1 of stdin, stdout,"),
        (f"{EXEC}?output=1", 400, "you must specify a command"),
        (f"/exec/default/other/c?command=x&{ALL}", 404, "pod does not exist"),
        (f"/exec/{PATH}/another-uid/c?command=x&{ALL}", 404, "pod does not exist"),
        (f"/exec/{PATH}/d?command=x&{ALL}", 404, 'container not found ("d")'),
        (f"/exec/{PATH}/early?command=x&{ALL}", 404, 'container not found ("early")'),
        (f"{ATTACH}?tty=1", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        (f"/attach/default/other/c?{ALL}", 404, "pod does not exist"),
        (f"/attach/{PATH}/another-uid/c?{ALL}", 404, "pod does not exist"),
        (f"/attach/{PATH}/d?{ALL}", 404, 'container not found ("d")'),
        (f"{EXEC}?command=x&{ALL}", 400, "unable to upgrade: the request asks for no upgrade"),
        (f"{ATTACH}?{ALL}", 400, "unable to upgrade: the request asks for no upgrade"),
    ],
)
async def test_what_is_refused(node: Rig, method: str, path: str, status: int, text: str) -> None:
    got, said = await node.get(path, method=method)
    assert (got, said[: len(text)]) == (status, text)
    assert node.adapter.asked == []


async def test_a_container_that_does_not_run(node: Rig) -> None:
    for state in ({"waiting": {"reason": "CrashLoopBackOff"}}, {"terminated": {"exitCode": 0}}):
        node.pods.list = [manifest(state)]
        for path in (f"{EXEC}?command=x&output=1", f"{ATTACH}?output=1"):
            assert await node.get(path) == (404, 'container not found ("c")')


async def test_the_uid_is_compared(node: Rig, hand: Hand) -> None:
    hand.ends()
    path = f"/exec/{PATH}/{POD.uid}/c?command=true&output=1"
    async with websocket(node, path) as socket:
        assert status_of((await rest(socket))[3]) == SUCCESS


@pytest.mark.parametrize(
    "error",
    [
        Invalid("exec: no such file"),
        Unsupported("backend b cannot"),
        NotFound("it does not run"),
        Unavailable("no answer"),
    ],
)
async def test_what_the_provider_refuses(node: Rig, error: Exception) -> None:
    node.adapter.given.append(error)
    async with websocket(node, f"{EXEC}?command=x&{ALL}") as socket:
        got = await rest(socket)
    assert status_of(got[3]) == internal(f"error executing command in container: {error}")


async def test_a_command_that_breaks_off(node: Rig, hand: Hand) -> None:
    hand.says("stdout", b"some")
    hand.out.put_nowait(Unavailable("the backend has gone"))
    async with websocket(node, f"{EXEC}?command=x&{ALL}") as socket:
        got = await rest(socket)
    words = "error executing command in container: the backend has gone"
    assert (got[1], status_of(got[3])) == (b"some", internal(words))


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_client_that_leaves_takes_its_command_along(
    node: Rig, hand: Hand, how: str
) -> None:
    socket = await websocket(node, f"{EXEC}?command=sleep&{ALL}")
    hand.says("stdout", b"here")
    while (await socket.receive_bytes())[1:] != b"here":
        pass
    assert not hand.closed.is_set()
    if how == "close":
        await socket.close()
    else:
        transport = socket._response.connection.transport  # type: ignore[union-attr]
        transport.abort()
    async with asyncio.timeout(PATIENCE):
        await hand.closed.wait()
    socket._response.close()


async def test_a_client_that_leaves_while_nothing_takes_its_input(node: Rig, hand: Hand) -> None:
    hand.takes.clear()
    async with websocket(node, f"{EXEC}?command=stuck&{ALL}") as socket:
        for _ in range(8):
            await socket.send_bytes(b"\x00" + b"x" * 60_000)
        await until(lambda: bool(node.adapter.asked))
    async with asyncio.timeout(PATIENCE):
        await hand.closed.wait()


async def test_stopping_ends_commands(tmp_path: Path) -> None:
    async with rig(tmp_path) as node:
        hand = Hand()
        node.adapter.given.append(hand)
        async with websocket(node, f"{EXEC}?command=sleep&{ALL}") as socket:
            await until(lambda: bool(node.adapter.asked))
            await node.api.stop()
            assert hand.closed.is_set()
            assert 3 not in await rest(socket)


# Attach.


async def test_attach(node: Rig, hand: Hand) -> None:
    async with websocket(node, f"{ATTACH}?{ALL}") as socket:
        await socket.send_bytes(b"\x00typed")
        await until(lambda: hand.written == [b"typed"])
        hand.says("stdout", b"out")
        hand.says("stderr", b"err")
        hand.ends(3)
        got = await rest(socket)
    # How the process ended is in the pod's status.
    assert (got[1], got[2], status_of(got[3])) == (b"out", b"err", SUCCESS)
    assert [one[1:] for one in node.adapter.asked] == [("c", True)]


async def test_attach_to_what_has_a_terminal_and_no_stdin(node: Rig, hand: Hand) -> None:
    node.pods.list[0]["spec"]["containers"][0] |= {"stdin": False, "tty": True}
    async with websocket(node, f"{ATTACH}?{ALL}") as socket:
        # Nobody reads it, and that holds nobody up.
        for _ in range(40):
            await socket.send_bytes(b"\x00" + b"x" * 30_000)
        hand.says("stdout", b"$ ")
        hand.ends()
        got = await rest(socket)
    assert (got[1], status_of(got[3])) == (b"$ ", SUCCESS)
    assert [one[1:] for one in node.adapter.asked] == [("c", False)]
    assert hand.written == []


async def test_attach_that_is_refused(node: Rig) -> None:
    node.adapter.given.append(Invalid("it has no output"))
    async with websocket(node, f"{ATTACH}?output=1") as socket:
        got = await rest(socket)
    assert status_of(got[3]) == internal("error attaching to container: it has no output")


async def test_leaving_an_attach_lets_go(node: Rig, hand: Hand) -> None:
    async with websocket(node, f"{ATTACH}?{ALL}"):
        await until(lambda: bool(node.adapter.asked))
    async with asyncio.timeout(PATIENCE):
        await hand.closed.wait()


# SPDY.


async def test_exec_over_spdy(node: Rig, hand: Hand) -> None:
    client = await Spdy.connect(node, f"{EXEC}?command=cat&{ALL}", V4)
    assert isinstance(client, Spdy)
    numbers = {name: client.open(streamType=name) for name in ("error", "stdin", "stdout")}
    numbers["stderr"] = client.open(streamType="stderr")
    client.send(Data(numbers["stdin"], b"typed", fin=True))
    async with asyncio.timeout(PATIENCE):
        await hand.input_closed.wait()
    assert hand.written == [b"typed"]
    hand.says("stdout", b"out")
    assert (await client.data(numbers["stdout"])).content == b"out"
    hand.ends(1)
    assert status_of((await client.data(numbers["error"])).content) == failure(1)
    while not isinstance(await client.next(), GoAway):
        pass
    await client.leave()
    async with asyncio.timeout(PATIENCE):
        await hand.closed.wait()


async def test_leaving_over_spdy(node: Rig, hand: Hand) -> None:
    client = await Spdy.connect(node, f"{EXEC}?command=sleep&output=1", V4)
    assert isinstance(client, Spdy)
    client.open(streamType="error")
    number = client.open(streamType="stdout")
    hand.says("stdout", b"here")
    assert (await client.data(number)).content == b"here"
    await client.leave()
    async with asyncio.timeout(PATIENCE):
        await hand.closed.wait()


async def test_what_is_refused_over_spdy(node: Rig) -> None:
    answer = await Spdy.connect(node, f"/exec/{PATH}/d?command=x&output=1", V4)
    assert isinstance(answer, str)
    assert answer.startswith("HTTP/1.1 404 ")
    assert answer.endswith('container not found ("d")')
    answer = await Spdy.connect(node, f"{EXEC}?command=x&output=1", "v9.channel.k8s.io")
    assert isinstance(answer, str)
    assert answer.startswith("HTTP/1.1 403 ")


async def test_no_secret_is_told(node: Rig, hand: Hand, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    hand.ends(1)
    async with websocket(node, f"{EXEC}?command=login&command=--pass%3Dhush-7&{ALL}") as socket:
        got = await rest(socket)
    assert b"hush-7" not in b"".join(got.values())
    await node.get(f"{EXEC}?command=hush-7")
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("bridge")]
    assert not [text for text in ours if "hush-7" in text or TOKEN in text]
