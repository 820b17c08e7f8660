from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from commands_kit import home, invoke, make_run, pod

from bridge.cli.commands.port_forward import _split
from bridge.cli.forwarding import (
    Address,
    Forwarder,
    Listener,
    Port,
    listen,
    parse_addresses,
    parse_ports,
)
from bridge.errors import Invalid
from bridge.rpc.streams import Remote, open_forward
from bridge.rpc.v1 import stream_pb2 as streams

__all__ = ["home"]

LOCAL = [Address("127.0.0.1", optional=False)]
WEB = pod(
    spec={
        "containers": [
            {"name": "main", "ports": [{"name": "http", "containerPort": 8080}]},
            {
                "name": "dns",
                "ports": [
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                    {"name": "dns-tcp", "containerPort": 54},
                ],
            },
        ]
    }
)


# What was typed.


@pytest.mark.parametrize(
    ("word", "port"),
    [
        ("8080", Port(8080, 8080)),
        ("80:8080", Port(80, 8080)),
        (":8080", Port(0, 8080)),
        ("0:8080", Port(0, 8080)),
        ("http", Port(8080, 8080)),
        ("9000:http", Port(9000, 8080)),
        (":dns-tcp", Port(0, 54)),
        ("65535:1", Port(65535, 1)),
    ],
)
def test_a_port_is_local_and_remote(word: str, port: Port) -> None:
    assert parse_ports([word], WEB) == [port]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("0", "allowed: [LOCAL:]REMOTE"),
        ("80:", "allowed: [LOCAL:]REMOTE"),
        ("65536", "each 1 to 65535"),
        ("80:65536", "each 1 to 65535"),
        ("65536:80", "each 1 to 65535"),
        ("a:80", "allowed: [LOCAL:]REMOTE"),
        ("1:2:3", "allowed: [LOCAL:]REMOTE"),
        ("-1:80", "allowed: [LOCAL:]REMOTE"),
        ("https", "the pod names no such port; it names: http, dns, dns-tcp"),
        ("53", "UDP protocol is not supported for 53"),
        ("dns", "UDP protocol is not supported for 53"),
    ],
)
def test_a_port_that_is_none_is_told(word: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_ports([word, "8080"], WEB)

    assert len(caught.value.violations) == 1
    assert said in str(caught.value.violations[0])
    assert f'found "{word}"' in str(caught.value.violations[0])


def test_names_are_judged_once_the_pod_is_known() -> None:
    assert parse_ports(["http", "80:https", "8080"], None) == [Port(8080, 8080)]
    with pytest.raises(Invalid):
        parse_ports(["http", "99999"], None)


def test_addresses() -> None:
    both = [Address("127.0.0.1", optional=True), Address("::1", optional=True)]
    assert parse_addresses(["localhost"]) == both
    assert parse_addresses(["10.0.0.1,localhost"]) == [Address("10.0.0.1", optional=False), *both]
    assert parse_addresses(["0.0.0.0", "::"]) == [
        Address("0.0.0.0", optional=False),
        Address("::", optional=False),
    ]
    with pytest.raises(Invalid) as caught:
        parse_addresses(["example.org"])
    assert 'found "example.org"; allowed: IP addresses' in str(caught.value.violations[0])


@pytest.mark.usefixtures("home")
def test_which_words_are_ports() -> None:
    make_run("shop")

    assert _split(["web", "80"], None) == (["web"], ["80"])
    assert _split(["web", "http", "80"], None) == (["web"], ["http", "80"])
    assert _split(["shop", "web", "80"], None) == (["shop", "web"], ["80"])
    assert _split(["shop", "80", "81"], None) == (["shop"], ["80", "81"])
    assert _split(["shop", "http"], None) == (["shop"], ["http"])
    assert _split(["x", "pod/web", ":80"], None) == (["x", "pod/web"], [":80"])
    assert _split(["web", "80"], "shop") == (["web"], ["80"])
    assert _split(["80", "81"], "shop") == ([], ["80", "81"])


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "found nothing; a pod and at least one port are required"),
        (["web"], 'found "web"; a pod and at least one port'),
        (["80"], 'found "80"; a pod and at least one port'),
        (["web", "80", "99999"], 'PORT: found "99999"'),
        (["web", "80", "--address", "here"], '--address: found "here"'),
        (["web", "80"], 'no run, pod or job named "web"'),
    ],
)
def test_what_is_typed_wrong_is_answered(words: list[str], said: str) -> None:
    code, out, error = invoke("port-forward", *words)

    assert (code, out) == (2, "")
    assert said in error


# Listening.


def _taken(ip: str = "127.0.0.1") -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
    made.bind((ip, 0))
    made.listen(1)
    return made


def test_a_port_in_use_is_named() -> None:
    with _taken() as taken:
        number = taken.getsockname()[1]
        with pytest.raises(Invalid) as caught:
            listen([Port(number, 80)], LOCAL)
        listeners, problems = listen([Port(number, 80), Port(0, 81)], LOCAL)

    said = f"unable to listen on port {number}: 127.0.0.1:{number}: address already in use"
    assert caught.value.message == said
    assert problems == [said]
    assert [one.remote for one in listeners] == [81]
    for one in listeners:
        one.socket.close()


def test_an_open_local_port_is_the_same_on_both_of_localhost() -> None:
    listeners, problems = listen([Port(0, 80)], parse_addresses(["localhost"]))

    assert problems == []
    number = listeners[0].local
    assert listeners[0].words == f"Forwarding from 127.0.0.1:{number} -> 80"
    for one in listeners[1:]:
        assert one.words == f"Forwarding from [::1]:{number} -> 80"
    for one in listeners:
        one.socket.close()


# Carrying.


class Pod:
    """The far end of the contract's PortForward: what a pod's port does is up to a test."""

    def __init__(self, serve: Any) -> None:
        self.opened: list[int] = []
        self.live = 0
        self._serve = serve

    async def open(self, port: int) -> Remote:
        client: Any = self
        return await open_forward(client, streams.PortForwardStart(port=port))

    async def port_forward(
        self, requests: AsyncIterator[streams.PortForwardRequest]
    ) -> AsyncGenerator[streams.PortForwardResponse, None]:
        self.opened.append((await anext(requests)).start.port)
        self.live += 1
        try:
            async for one in self._serve(requests):
                yield one
        finally:
            self.live -= 1


async def echo(
    requests: AsyncIterator[streams.PortForwardRequest],
) -> AsyncIterator[streams.PortForwardResponse]:
    """Says again what it hears, and ends once no more comes."""
    async for request in requests:
        match request.WhichOneof("message"):
            case "data":
                assert len(request.data) <= 32 * 1024
                yield streams.PortForwardResponse(data=request.data)
                yield streams.PortForwardResponse(credit=len(request.data))
            case "close":
                yield streams.PortForwardResponse(closed="")
                return


async def greet(
    requests: AsyncIterator[streams.PortForwardRequest],
) -> AsyncIterator[streams.PortForwardResponse]:
    """Speaks first and ends, whatever it hears."""
    yield streams.PortForwardResponse(data=b"bye\n")
    yield streams.PortForwardResponse(closed="")


async def refuse(
    requests: AsyncIterator[streams.PortForwardRequest],
) -> AsyncIterator[streams.PortForwardResponse]:
    """Nothing listens there."""
    yield streams.PortForwardResponse(closed="connection refused")


@asynccontextmanager
async def forwarded(serve: Any) -> AsyncIterator[tuple[Pod, Listener]]:
    """A pod behind a local port."""
    far = Pod(serve)
    listeners, _ = listen([Port(0, 80)], LOCAL)
    running = asyncio.create_task(Forwarder(listeners, far.open).run())
    try:
        async with asyncio.timeout(60):
            yield far, listeners[0]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert far.live == 0


async def _connect(listener: Listener) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", listener.local)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except ConnectionError:
        return


async def test_a_half_close_passes_and_the_answer_still_comes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sent = os.urandom(3_000_000)
    async with forwarded(echo) as (far, listener):
        reader, writer = await _connect(listener)

        async def send() -> None:
            writer.write(sent)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        assert await reader.read(-1) == sent
        await sending
        await _close(writer)

    assert far.opened == [80]
    assert capsys.readouterr().out == f"Handling connection for {listener.local}\n"


async def test_each_connection_has_a_stream_of_its_own() -> None:
    async with forwarded(echo) as (far, listener):
        ends = [await _connect(listener) for _ in range(20)]
        for number, (_, writer) in enumerate(ends):
            writer.write(b"%d\n" % number)
        said = [await reader.readline() for reader, _ in ends]
        for _, writer in ends:
            await _close(writer)

    assert said == [b"%d\n" % number for number in range(20)]
    assert far.opened == [80] * 20


async def test_the_pods_end_of_a_connection_ends_it_here() -> None:
    async with forwarded(greet) as (_, listener):
        reader, writer = await _connect(listener)
        assert await reader.read(-1) == b"bye\n"
        await _close(writer)


async def test_an_error_of_a_connection_is_said_and_the_next_one_is_taken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with forwarded(refuse) as (far, listener):
        for _ in range(2):
            reader, writer = await _connect(listener)
            with pytest.raises(ConnectionResetError):
                await reader.read(-1)
            await _close(writer)
    said = f"error: an error occurred forwarding {listener.local} -> 80: connection refused\n"
    assert capsys.readouterr().err == said * 2
    assert far.opened == [80, 80]


async def test_one_who_leaves_in_the_middle_is_no_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def flood(requests: AsyncIterator[streams.PortForwardRequest]) -> AsyncIterator[Any]:
        credit = 256 * 1024
        while True:
            while credit >= 32 * 1024:
                credit -= 32 * 1024
                yield streams.PortForwardResponse(data=bytes(32 * 1024))
            request = await anext(requests)
            credit += request.credit

    async with forwarded(flood) as (far, listener):
        reader, writer = await _connect(listener)
        await reader.readexactly(100_000)
        writer.transport.abort()
        while far.live:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
    assert capsys.readouterr().err == ""


async def test_a_reader_that_stops_stops_the_pod_and_not_memory() -> None:
    sent = 0

    async def flood(requests: AsyncIterator[streams.PortForwardRequest]) -> AsyncIterator[Any]:
        nonlocal sent
        credit = 256 * 1024
        while True:
            while credit >= 32 * 1024:
                credit -= 32 * 1024
                sent += 32 * 1024
                yield streams.PortForwardResponse(data=bytes(32 * 1024))
            request = await anext(requests)
            credit += request.credit

    async with forwarded(flood) as (_, listener):
        connection = socket.create_connection(("127.0.0.1", listener.local))
        with connection:
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.2)
    # The kernel's buffers at both ends and one credit: not what a pod would send for ever.
    assert 0 < sent < 32 * 2**20
