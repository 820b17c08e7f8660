"""HTTP, HTTPS, gRPC and TCP actions against real servers on the loopback interface."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from support import virtual
from support.paper import Cloud, PaperAdapter

from bridge.adapter import Size
from bridge.errors import Unavailable
from bridge.provider.probing.actions import Outcome, Result, Target, hook, probe
from bridge.workload import (
    ExecAction,
    GrpcAction,
    HttpAction,
    Identity,
    SleepAction,
    TcpAction,
)

WHO = Identity("c", "n", "d", "p", "u")


class Connection:
    """A TCP connection as a channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.closed = False

    async def read(self) -> tuple[str, bytes]:
        try:
            data = await self._reader.read(32 * 1024)
        except OSError as error:
            raise Unavailable(str(error)) from None
        return ("stdout", data) if data else ("", b"")

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close_input(self) -> None:
        if not self._writer.is_closing():
            self._writer.write_eof()

    async def resize(self, size: Size) -> None: ...

    async def wait(self) -> int:
        return 0

    async def close(self) -> None:
        self.closed = True
        self._writer.close()


class Loopback(PaperAdapter):
    """A pod whose ports are this host's."""

    type: ClassVar[str] = "loopback"

    def __init__(self) -> None:
        super().__init__(Cloud(virtual.clock))
        self.connections: list[Connection] = []

    async def dial(self, identity: Identity, port: int, *, inside: bool) -> Connection:
        try:
            made = Connection(*await asyncio.open_connection("127.0.0.1", port))
        except OSError:
            raise Unavailable("connect: connection refused") from None
        self.connections.append(made)
        return made


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    adapter = Loopback()
    before = asyncio.all_tasks()
    yield Target(adapter, WHO, "c", "127.0.0.1")
    assert all(one.closed for one in adapter.connections)
    await asyncio.sleep(0)
    # A server's own handlers end a little after their connections.
    assert {one for one in asyncio.all_tasks() - before if "probe" in one.get_name()} == set()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(
    routes: Mapping[str, Handler], secure: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    app = web.Application()
    for path, handler in routes.items():
        app.router.add_get(path, handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=secure)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def answering(status: int, text: str = "", **headers: str) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers=headers)

    return handle


async def test_statuses_and_words(target: Target) -> None:
    routes = {
        "/good": answering(204),
        "/bad": answering(503, "the body may hold a secret"),
        "/multiple": answering(300, "choose"),
        "/here": answering(302, Location="/good"),
        "/away": answering(302, "gone", Location="http://elsewhere.example/good"),
        "/round": answering(301, Location="/round"),
    }
    async with served(routes) as port:

        async def ask(path: str) -> Outcome:
            return await probe(target, HttpAction(port, path), 5)

        assert await ask("/good") == Outcome(Result.SUCCESS)
        assert await ask("good?x=1") == Outcome(Result.SUCCESS)
        bad = await ask("/bad")
        assert bad == Outcome(Result.FAILURE, "HTTP probe failed with statuscode: 503")
        assert await ask("/here") == Outcome(Result.SUCCESS)
        for path, body in (("/away", "gone"), ("/multiple", "choose")):
            words = f"Probe terminated redirects, Response body: {body}"
            assert await ask(path) == Outcome(Result.WARNING, words)
        round_ = await ask("/round")
        words = f'Get "http://127.0.0.1:{port}/round": stopped after 10 redirects'
        assert round_ == Outcome(Result.FAILURE, words)


async def test_what_a_request_says(target: Target) -> None:
    heard: list[dict[str, str]] = []

    async def listen(request: web.Request) -> web.Response:
        heard.append(dict(request.headers))
        return web.Response(text="x" * 100_000)

    async with served({"/": listen}) as port:
        await probe(target, HttpAction(port), 5)
        own = (("Host", "name"), ("User-Agent", "me"), ("Accept", ""), ("X-One", "1"))
        await probe(target, HttpAction(port, headers=own), 5)
        assert await hook(target, HttpAction(port))
    address = f"127.0.0.1:{port}"
    default = {
        "Host": address,
        "User-Agent": "kube-probe/1.36",
        "Accept": "*/*",
        "Connection": "close",
    }
    assert heard[0] == default
    assert heard[1] == {
        "Host": "name",
        "User-Agent": "me",
        "X-One": "1",
        "Connection": "close",
    }
    assert heard[2] == default | {"User-Agent": "kube-lifecycle/1.36"}


async def test_servers_that_do_not_answer(target: Target) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10_000)
        await reader.read(1)
        writer.close()

    for handler, timeout, words in ((close, 5, "EOF"), (hang, 0.05, "context deadline exceeded")):
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            outcome = await probe(target, HttpAction(port), timeout)
            assert outcome.result is Result.FAILURE
            assert words in outcome.message
    refused = await probe(target, HttpAction(port), 5)
    assert refused.message == f'Get "http://127.0.0.1:{port}/": connect: connection refused'
    assert (await probe(target, TcpAction(port), 5)).result is Result.FAILURE


async def test_a_port_that_opens(target: Target) -> None:
    async with served({}) as port:
        assert await probe(target, TcpAction(port), 5) == Outcome(Result.SUCCESS)


def own_certificate() -> ssl.SSLContext:
    """Signed by itself, long expired, for another name: a probe asks no questions."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")])
    day = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(day)
        .not_valid_after(day + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pem"
        path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        context.load_cert_chain(path)
    return context


async def test_https(target: Target) -> None:
    routes = {"/": answering(200), "/bad": answering(500)}
    async with served(routes, own_certificate()) as port:
        for path, result in (("/", Result.SUCCESS), ("/bad", Result.FAILURE)):
            outcome = await probe(target, HttpAction(port, path, "HTTPS"), 5)
            assert outcome.result is result
        assert await hook(target, HttpAction(port, "/bad", "HTTPS"))
    async with served(routes) as port:
        outcome = await probe(target, HttpAction(port, "/", "HTTPS"), 5)
        words = "server gave HTTP response to HTTPS client"
        assert outcome == Outcome(Result.FAILURE, f'Get "https://127.0.0.1:{port}/": {words}')
        # A hook tries again without.
        assert await hook(target, HttpAction(port, "/", "HTTPS"))


@asynccontextmanager
async def serving_grpc(add: Callable[[Any], None]) -> AsyncIterator[int]:
    server = grpc.aio.server()
    add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def test_grpc(target: Target) -> None:
    servicer = health.HealthServicer()
    states = health_pb2.HealthCheckResponse
    await servicer.set("", states.SERVING)
    await servicer.set("down", states.NOT_SERVING)

    def add(server: Any) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)

    async with serving_grpc(add) as port:
        assert await probe(target, GrpcAction(port), 5) == Outcome(
            Result.SUCCESS, "service healthy"
        )
        down = await probe(target, GrpcAction(port, "down"), 5)
        assert down.message == 'service unhealthy (responded with "NOT_SERVING")'
        unknown = await probe(target, GrpcAction(port, "no such"), 5)
        assert unknown.result is Result.FAILURE
        assert "NOT_FOUND" in unknown.message
    async with serving_grpc(lambda _: None) as port:
        other = await probe(target, GrpcAction(port), 5)
        assert "does not implement the grpc health protocol" in other.message
    refused = await probe(target, GrpcAction(port), 5)
    assert refused.message.startswith("error: failed to connect service at")


async def test_grpc_against_silence(target: Target) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(10_000):
            pass
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        outcome = await probe(target, GrpcAction(port), 0.2)
        assert outcome.message == "timeout: health rpc did not complete within 0.2s"


async def test_what_cannot_be_done(target: Target) -> None:
    assert (await probe(target, ExecAction(("x",)), 1)).result is Result.UNKNOWN
    assert (await probe(target, SleepAction(1), 1)).result is Result.UNKNOWN
    assert not await hook(target, ExecAction(("x",)))
    assert not await hook(target, TcpAction(80))
    assert not await hook(target, HttpAction(0))
