"""A small server that runs commands of its own over `bridge.kubelet.streams`, with TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bridge.kubelet.streams import Forwarded, RemoteCommand, Wanted
from bridge.kubelet.streams.upgrade import command, forward

SUCCESS = {"metadata": {}, "status": "Success"}
PATIENCE = 60.0
"""Seconds that anything may take."""


def exited(code: int) -> dict[str, Any]:
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def pattern(count: int) -> bytes:
    """Bytes of which no two neighbouring frames are alike."""
    block = b"".join(number.to_bytes(4, "big") for number in range(64 * 1024))
    return (block * (count // len(block) + 1))[:count]


@dataclass
class Server:
    """Where it listens, and what its commands saw."""

    url: str
    authority: Path | None
    seen: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    idle: float = 3600.0
    creation: float = 30.0
    stall: asyncio.Event = field(default_factory=asyncio.Event)
    """Commands that read nothing wait for this."""
    remotes: list[RemoteCommand] = field(default_factory=list)

    def saw(self, what: str) -> None:
        self.seen.append(what)
        self.news.set()

    async def until(self, what: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while what not in self.seen:
                self.news.clear()
                await self.news.wait()


async def run(server: Server, remote: RemoteCommand, words: list[str]) -> None:
    match words:
        case ["cat"]:
            while content := await remote.read_stdin():
                await remote.write("stdout", content)
            await remote.finish(SUCCESS)
        case ["hash"]:
            digest = hashlib.sha256()
            while content := await remote.read_stdin():
                digest.update(content)
            await remote.write("stdout", digest.hexdigest().encode())
            await remote.finish(SUCCESS)
        case ["give", count]:
            content = pattern(int(count))
            for start in range(0, len(content), 50_000):
                await remote.write("stdout", content[start : start + 50_000])
            await remote.finish(SUCCESS)
        case ["both", text]:
            await remote.write("stdout", text.encode())
            await remote.write("stderr", text[::-1].encode())
            await remote.finish(SUCCESS)
        case ["exit", code]:
            await remote.write("stdout", b"before the end")
            await remote.finish(exited(int(code)))
        case ["first"]:
            content = await remote.read_stdin()
            await remote.write("stdout", content[:1])
            await remote.finish(SUCCESS)
        case ["sizes", count]:
            for _ in range(int(count)):
                await remote.write("stdout", f"{await remote.read_resize()}".encode())
            await remote.finish(SUCCESS)
        case ["wait"]:
            await remote.write("stdout", b"waiting")
            await remote.gone()
            server.saw("gone")
        case ["endless"]:
            try:
                while True:
                    await remote.write("stdout", b"y" * 30_000)
            except ConnectionError:
                server.saw("gone")
        case ["stalled"]:
            await remote.write("stdout", b"waiting")
            await server.stall.wait()
            await run(server, remote, ["hash"])
        case ["fails"]:
            raise ValueError("the command's own failure")


async def echo(server: Server, connection: Forwarded) -> None:
    server.saw(f"port {connection.port}")
    if connection.port == 9:
        await connection.finish("error forwarding port 9 to pod p, uid u: refused")
        return
    try:
        while content := await connection.read():
            await connection.write(content)
        await connection.finish()
    except ConnectionError:
        server.saw("cut off")
        await connection.finish()


def application(server: Server) -> web.Application:
    async def on_exec(request: web.Request) -> web.StreamResponse:
        wanted = Wanted(
            *(request.query.get(name) == "1" for name in ("input", "output", "error", "tty"))
        )
        remote = await command(request, wanted, idle=server.idle, creation=server.creation)
        if isinstance(remote, web.StreamResponse):
            server.saw(f"status {remote.status}")
            return remote
        server.remotes.append(remote)
        with contextlib.suppress(ConnectionError):
            await run(server, remote, request.query.getall("command"))
        server.saw("ended")
        return remote.response

    async def on_forward(request: web.Request) -> web.StreamResponse:
        forwarding = await forward(request, idle=server.idle, creation=server.creation)
        if isinstance(forwarding, web.StreamResponse):
            return forwarding
        async with asyncio.TaskGroup() as group:
            async for connection in forwarding.connections():
                group.create_task(echo(server, connection))
        await forwarding.close()
        server.saw("ended")
        return forwarding.response

    app = web.Application()
    for method in ("GET", "POST"):
        app.router.add_route(method, "/exec", on_exec)
        app.router.add_route(method, "/forward", on_forward)
    return app


@contextlib.asynccontextmanager
async def serve(folder: Path | None) -> AsyncIterator[Server]:
    """The server on a free port; over TLS, with its certificate in a folder, or without."""
    context = certificate(folder) if folder else None
    server = Server("", folder / "ca.pem" if folder else None)
    runner = web.AppRunner(application(server), shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"{'https' if folder else 'http'}://{host}:{port}"
    try:
        yield server
    finally:
        server.stall.set()
        await runner.cleanup()


def certificate(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    import ipaddress

    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context
