"""Port-forward over the HTTPS API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from api_kit import PATH, PATIENCE, Rig, Spdy, manifest, rig, until
from support.pipes import POD, Hand

from bridge.errors import Unavailable, Unsupported
from bridge.kubelet.streams.spdy import Data, RstStream

FORWARD = f"/portForward/{PATH}"
PROTOCOL = "portforward.k8s.io"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as made:
        yield made


async def opened(node: Rig, path: str = FORWARD) -> Spdy:
    client = await Spdy.connect(node, path, PROTOCOL)
    assert isinstance(client, Spdy), client
    return client


def dial(client: Spdy, port: int, number: int = 0) -> tuple[int, int]:
    """(error stream, data stream) of a new connection."""
    headers = {"port": str(port), "requestID": str(number)}
    return (
        client.open(streamType="error", **headers),
        client.open(streamType="data", **headers),
    )


async def test_bytes_both_ways_and_both_ends(node: Rig) -> None:
    hand = Hand()
    node.adapter.given.append(hand)
    client = await opened(node, f"{FORWARD}/{POD.uid}")
    error, data = dial(client, 8080)
    client.send(Data(data, b"ping"))
    await until(lambda: hand.written == [b"ping"])
    assert [one[1:] for one in node.adapter.asked] == [(8080, True)]
    hand.says("stdout", b"pong")
    assert (await client.data(data)).content == b"pong"
    # The end of one way leaves the other one open.
    client.send(Data(data, b"last", fin=True))
    async with asyncio.timeout(PATIENCE):
        await hand.input_closed.wait()
    assert hand.written == [b"ping", b"last"]
    hand.says("stdout", b"answer")
    assert (await client.data(data)).content == b"answer"
    hand.ends()
    frames = [await client.data(error), await client.data(data)]
    assert [(one.content, one.fin) for one in frames] == [(b"", True), (b"", True)]
    await until(hand.closed.is_set)
    await client.leave()


async def test_several_connections_at_once(node: Rig) -> None:
    hands = [Hand() for _ in range(3)]
    node.adapter.given.extend(hands)
    client = await opened(node)
    streams = []
    for number, hand in enumerate(hands):
        streams.append(dial(client, 8000 + number, number)[1])
        await until(lambda number=number: len(node.adapter.asked) == number + 1)
        hand.says("stdout", b"%d" % number)
    for number, stream in reversed(list(enumerate(streams))):
        client.send(Data(stream, b"to %d" % number))
        await until(lambda number=number: hands[number].written == [b"to %d" % number])
    # One that ends ends no other.
    hands[1].ends()
    await until(hands[1].closed.is_set)
    hands[2].says("stdout", b" more")
    assert (await client.data(streams[2])).content == b"2"
    assert (await client.data(streams[2])).content == b" more"
    assert not hands[0].closed.is_set()
    await client.leave()
    await until(lambda: hands[0].closed.is_set() and hands[2].closed.is_set())


@pytest.mark.parametrize("error", [Unavailable("connection refused"), Unsupported("no ports")])
async def test_why_a_connection_cannot_be_made(node: Rig, error: Exception) -> None:
    node.adapter.given.append(error)
    client = await opened(node)
    said = await client.data(dial(client, 81)[0])
    expected = f"error forwarding port 81 to pod pipes, uid {POD.uid}: {error}"
    assert (said.content.decode(), said.fin) == (expected, True)
    # The next one is another matter.
    hand = Hand()
    node.adapter.given.append(hand)
    data = dial(client, 82, 1)[1]
    hand.says("stdout", b"here")
    assert (await client.data(data)).content == b"here"
    await client.leave()


async def test_a_connection_that_breaks_off(node: Rig) -> None:
    hand = Hand()
    node.adapter.given.append(hand)
    client = await opened(node)
    error, data = dial(client, 80)
    hand.says("stdout", b"some")
    assert (await client.data(data)).content == b"some"
    hand.out.put_nowait(Unavailable("reset by peer"))
    expected = f"error forwarding port 80 to pod pipes, uid {POD.uid}: reset by peer"
    assert (await client.data(error)).content.decode() == expected
    await until(hand.closed.is_set)
    await client.leave()


async def test_a_connection_that_the_client_resets(node: Rig) -> None:
    hand = Hand()
    node.adapter.given.append(hand)
    client = await opened(node)
    _, data = dial(client, 80)
    client.send(Data(data, b"x"))
    await until(lambda: hand.written == [b"x"])
    client.send(RstStream(data, 5))
    await until(hand.closed.is_set)
    await client.leave()


async def test_a_client_that_leaves(node: Rig) -> None:
    hand = Hand()
    node.adapter.given.append(hand)
    client = await opened(node)
    dial(client, 80)
    await until(lambda: bool(node.adapter.asked))
    await client.leave()
    await until(hand.closed.is_set)


async def test_stopping_ends_connections(tmp_path: Path) -> None:
    async with rig(tmp_path) as node:
        hand = Hand()
        node.adapter.given.append(hand)
        client = await opened(node)
        dial(client, 80)
        await until(lambda: bool(node.adapter.asked))
        await node.api.stop()
        assert hand.closed.is_set()
        while await client.next() is not None:
            pass
        await client.leave()


async def test_through_a_websocket(node: Rig) -> None:
    hand = Hand()
    node.adapter.given.append(hand)
    path = f"{FORWARD}?port=8080"
    async with node.known().ws_connect(path, protocols=["v4.channel.k8s.io"]) as socket:
        # First each channel tells its port.
        for channel in (b"\0", b"\1"):
            async with asyncio.timeout(PATIENCE):
                assert await socket.receive_bytes() == channel + (8080).to_bytes(2, "little")
        await socket.send_bytes(b"\0ping")
        await until(lambda: hand.written == [b"ping"])
        hand.says("stdout", b"pong")
        async with asyncio.timeout(PATIENCE):
            assert await socket.receive_bytes() == b"\0pong"
    await until(hand.closed.is_set)


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/portForward/default/other", 404, "pod does not exist"),
        (f"{FORWARD}/another-uid", 404, "pod does not exist"),
        (FORWARD, 400, "unable to upgrade: the request asks for no upgrade"),
    ],
)
async def test_what_is_refused(node: Rig, path: str, status: int, text: str) -> None:
    for method in ("GET", "POST"):
        got, said = await node.get(path, method=method)
        assert (got, said.rstrip("\n")) == (status, text)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_pod_that_is_over(node: Rig, phase: str) -> None:
    node.pods.list = [manifest(phase=phase)]
    assert await node.get(FORWARD, method="POST") == (404, 'pod not found ("pipes_default")')
