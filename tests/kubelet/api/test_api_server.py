"""The listener itself: its limits, what it makes of nonsense, its beginning and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from api_kit import PATH, PATIENCE, TOKEN, Rig, client_context, rig, until
from support.pipes import Hand

from bridge.errors import Invalid, Unavailable
from bridge.kubelet.api import connection, door
from bridge.kubelet.api import server as listener


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as made:
        yield made


async def raw(node: Rig, content: bytes) -> bytes:
    """What is answered to these bytes until the connection ends."""
    context = client_context(node.folder)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.api.port, ssl=context)
    writer.write(content)
    got = b""
    try:
        async with asyncio.timeout(PATIENCE):
            while piece := await reader.read(65536):
                got += piece
    except ConnectionError:
        # Cut off: what came before counts.
        pass
    finally:
        writer.transport.abort()
    return got


def request(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: n", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


AUTHORIZATION = f"Authorization: Bearer {TOKEN}"


async def test_a_long_command_fits(node: Rig) -> None:
    hand = Hand()
    hand.ends()
    node.adapter.given.append(hand)
    words = "x" * 128 * 1024
    path = f"/exec/{PATH}/c?output=1&command={words}"
    async with node.known().ws_connect(path, protocols=["v4.channel.k8s.io"]) as stream:
        async with asyncio.timeout(PATIENCE):
            while (await stream.receive()).data is not None:
                pass
    assert node.adapter.asked[0][2] == (words,)


@pytest.mark.parametrize(
    "content",
    [
        request("/healthz?" + "x" * 300_000, AUTHORIZATION),
        request("/healthz", AUTHORIZATION + "y" * 100_000),
        request("/healthz", AUTHORIZATION, *(f"X-{number}: z" for number in range(1000))),
        b"nonsense\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: n\r\nContent-Length: -1\r\n" + AUTHORIZATION.encode(),
        b"\x00" * 400_000,
    ],
)
async def test_nonsense_is_refused(
    node: Rig, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    if content.endswith(TOKEN.encode()):
        content += b"\r\n\r\n"
    got = await raw(node, content)
    assert got == b"" or got.startswith(b"HTTP/1.1 400 ") or got.startswith(b"HTTP/1.0 400 "), got
    assert node.reviews.asked == []
    assert TOKEN.encode() not in got
    assert TOKEN not in caplog.text
    assert "Traceback" not in caplog.text
    assert await node.get("/healthz") == (200, "ok")


async def test_plain_http_is_not_answered(node: Rig) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.api.port)
    writer.write(request("/healthz", AUTHORIZATION))
    async with asyncio.timeout(PATIENCE):
        got = await reader.read(65536)
    assert b"HTTP" not in got
    writer.transport.abort()


async def test_tls_1_1_is_not_spoken(node: Rig) -> None:
    context = client_context(node.folder)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", node.api.port, ssl=context)


async def test_too_many_requests_at_once(node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "REQUESTS", 1)
    path = f"/containerLogs/{PATH}/c?follow=true"
    async with node.known().get(path) as following:
        async with node.known().get(path) as answer:
            assert (answer.status, await answer.text()) == (503, "too many requests at once")
            assert answer.headers["Retry-After"] == "1"
        # How the node is may be asked all the same.
        assert await node.get("/healthz") == (200, "ok")
        node.adapter.logged(b"end", None)
        assert await following.text() == "end"
    assert await node.get("/healthz") == (200, "ok")


async def test_too_many_connections(node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "CONNECTIONS", 1)
    assert await node.get("/healthz") == (200, "ok")
    # The one that is open is still answered; another one is closed unheard.
    with pytest.raises(ConnectionError):
        await raw(node, request("/healthz", AUTHORIZATION))
    assert await node.get("/healthz") == (200, "ok")


@pytest.mark.parametrize("limit", ["STRANGERS", "OF_ONE_ADDRESS"])
async def test_too_many_that_have_asked_for_nothing(
    node: Rig, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    # Who has asked for something is none of them.
    assert await node.get("/healthz") == (200, "ok")
    monkeypatch.setattr(door, limit, 2)
    made = [await asyncio.open_connection("127.0.0.1", node.api.port) for _ in range(2)]
    third, other = await asyncio.open_connection("127.0.0.1", node.api.port)
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionResetError):
            assert await third.read() == b""
    other.close()
    assert await node.get("/healthz") == (200, "ok")
    for _, writer in made:
        writer.close()
    await until(lambda: not node.api._door or not node.api._door._strangers)
    assert b"200 OK" in await raw(node, request("/healthz", AUTHORIZATION))


async def test_headers_that_are_too_long_together(node: Rig) -> None:
    head = b"GET /healthz HTTP/1.1\r\n" + b"".join(
        b"X-%d: %s\r\n" % (number, b"x" * 60_000) for number in range(8)
    )
    assert await raw(node, head) == b""


async def test_a_client_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST", 0.2)
    monkeypatch.setattr(door, "HANDSHAKE", 0.2)
    async with rig(tmp_path) as node:
        assert await raw(node, b"") == b""
        assert await raw(node, b"GET /healthz HT") == b""
        reader, writer = await asyncio.open_connection("127.0.0.1", node.api.port)
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        writer.transport.abort()


async def test_an_address_that_is_taken(tmp_path: Path) -> None:
    async with rig(tmp_path) as node:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            node.api._port = port
            await node.api.stop()
            with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}: "):
                await node.api.start()
        await node.api.start()
        assert node.api.port == port
        assert await node.get("/healthz") == (200, "ok")


async def test_a_certificate_that_is_wrong_at_the_start(tmp_path: Path) -> None:
    async with rig(tmp_path) as node:
        await node.api.stop()
        node.client_ca = b"nonsense"
        with pytest.raises(Invalid, match="the client CA bundle holds no certificates in PEM"):
            await node.api.start()
        # Nothing listens, and nothing is there to be reloaded.
        node.api.reload()


async def test_stopping_ends_what_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with rig(tmp_path) as node:
        async with node.known().get(f"/containerLogs/{PATH}/c?follow=true") as following:
            node.adapter.logged(b"one\n")
            assert await following.content.readany() == b"one\n"
            port = node.api.port
            await node.api.stop()
            assert node.adapter.open_logs == 0
            with pytest.raises(Exception, match=r"(?i)payload|closed|disconnected|connection"):
                await following.content.read()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await node.api.stop()
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


async def test_stopping_with_a_review_on_its_way(tmp_path: Path) -> None:
    async with rig(tmp_path) as node:
        node.reviews.gate.clear()
        asking = asyncio.create_task(node.get("/healthz"))
        await until(lambda: bool(node.reviews.reviewed))
        async with asyncio.timeout(PATIENCE):
            await node.api.stop()
        [error] = await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(error, Exception)


async def test_the_same_node_starts_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as node:
        for _ in range(2):
            assert await node.get("/healthz") == (200, "ok")
            await node.api.stop()
            await node.api.start()


ABOUT_PODS = ["/pods", "/runningpods/", "/stats/summary", f"/containerLogs/{PATH}/c"]


async def test_who_asks_before_the_pods_are_known_waits_and_is_not_told_that_there_are_none(
    node: Rig, tmp_path: Path
) -> None:
    node.adapter.logged(b"a line\n", None)
    node.pods.known.clear()
    asking = [asyncio.create_task(node.get(path)) for path in ABOUT_PODS]
    # What is not about pods is told meanwhile.
    for path in ("/healthz", "/configz", "/metrics"):
        assert (await node.get(path))[0] == 200
    assert not any(one.done() for one in asking)
    node.pods.known.set()
    assert [code for code, _ in await asyncio.gather(*asking)] == [200] * len(asking)
    async with rig(tmp_path, patience=0.05) as other:
        other.pods.known.clear()
        for path in ABOUT_PODS:
            assert await other.get(path) == (503, "the pods of this node are not known yet")
