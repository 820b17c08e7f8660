"""The HTTPS API on a free port, over TLS, before a real provider whose containers only pipe."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import ipaddress
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from support.pipes import CLUSTER, POD, PipesAdapter

from bridge.adapter import LogOptions
from bridge.agent.request import identity
from bridge.errors import BridgeError
from bridge.kubelet.api.auth import User
from bridge.kubelet.api.server import KubeletApi
from bridge.kubelet.api.tls import server_context
from bridge.kubelet.certificates import Pair, pair_of
from bridge.kubelet.streams.spdy import Data, Frame, FrameReader, FrameWriter, SynStream
from bridge.provider.backend import Backend
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker
from bridge.rpc.v1 import pod_pb2
from bridge.workload import Identity

NODE = "n"
PATIENCE = 60.0
"""Seconds that anything may take."""
ADMIN = User("admin", ("system:authenticated",))
TOKEN = "let-me-in-3f9a"
PATH = f"{POD.namespace}/{POD.name}"


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not met():  # noqa: ASYNC110 - both ends are looked at from outside
            await asyncio.sleep(0.005)


async def left_over(before: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """The tasks that are more than there were, and whoever asks."""
    known = before | {task for task in [asyncio.current_task()] if task is not None}
    with contextlib.suppress(TimeoutError):
        await until(lambda: asyncio.all_tasks() <= known)
    return asyncio.all_tasks() - known


# Certificates.


class Authority:
    """A CA, and what it signs."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=9))
            .not_valid_after(now + datetime.timedelta(days=9))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = made.public_bytes(serialization.Encoding.PEM)

    def signs(
        self,
        name: str,
        *groups: str,
        hours: float = 1.0,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> Pair:
        """A leaf that ends in so many hours."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        if name:
            subject.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
        now = datetime.datetime.now(datetime.UTC)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(hours=hours))
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return pair_of(made.public_bytes(serialization.Encoding.PEM), private, "the test")


@functools.cache
def authority(name: str = "the cluster") -> Authority:
    return Authority(name)


def serving(name: str = "system:node:n") -> Pair:
    return authority().signs(name, "system:nodes", usage=ExtendedKeyUsageOID.SERVER_AUTH)


def client_context(folder: Path, pair: Pair | None = None) -> ssl.SSLContext:
    """What a client shows, and whom it trusts."""
    context = ssl.create_default_context(cadata=authority().pem.decode())
    if pair is not None:
        file = folder / f"{len(list(folder.iterdir()))}.pem"
        file.write_bytes(pair.certificate + pair.key)
        context.load_cert_chain(file)
    return context


# What the API asks.


@dataclass
class FakeReviews:
    """Knows tokens, and who may do what; everything may be `down`."""

    tokens: dict[str, User | BridgeError] = field(default_factory=lambda: {TOKEN: ADMIN})
    may: Callable[[User, str, str], bool] = lambda *_: True
    down: BridgeError | None = None
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """(user, verb, subresource)."""
    users: list[User] = field(default_factory=list)
    reviewed: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def token(self, token: str) -> User | None:
        self.reviewed.append(token)
        await self.gate.wait()
        found = self.tokens.get(token)
        if isinstance(found, BridgeError):
            raise found
        return found

    async def access(self, user: User, verb: str, subresource: str) -> tuple[bool, str]:
        self.asked.append((user.name, verb, subresource))
        self.users.append(user)
        await self.gate.wait()
        if self.down is not None:
            raise self.down
        return self.may(user, verb, subresource), ""


class FakePods:
    """A list of manifests."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.list = list(pods)
        self.known = asyncio.Event()
        self.known.set()

    async def listed(self, patience: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.known.wait(), patience)
        return self.known.is_set()

    def find(self, namespace: str, name: str, uid: str = "") -> dict[str, Any] | None:
        for pod in self.list:
            metadata = pod["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, name):
                return pod if uid in ("", metadata["uid"]) else None
        return None

    def all(self) -> list[dict[str, Any]]:
        return list(self.list)

    def identity(self, pod: dict[str, Any]) -> pod_pb2.PodIdentity:
        return identity(CLUSTER, NODE, pod)


def manifest(state: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    """The pod that the provider runs; `state` is its container's."""
    running = {"running": {"startedAt": "2026-01-02T03:04:05Z"}}
    one = {"name": "c", "state": running if state is None else state, "containerID": "p://1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": POD.namespace, "name": POD.name, "uid": POD.uid},
        "spec": {
            "containers": [{"name": "c", "image": "busybox", "stdin": True}],
            "initContainers": [{"name": "early", "image": "busybox"}],
            "ephemeralContainers": [{"name": "debugger", "image": "busybox"}],
        },
        "status": {
            "phase": "Running",
            "startTime": "2026-01-02T03:04:00Z",
            "containerStatuses": [one],
            **status,
        },
    }


class LogsAdapter(PipesAdapter):
    """Pipes, with a log by script: bytes, an error, or None for its end."""

    def __init__(self) -> None:
        super().__init__()
        self.log: asyncio.Queue[bytes | BridgeError | None] = asyncio.Queue()
        self.log_options: list[tuple[str, LogOptions]] = []
        self.open_logs = 0

    def logged(self, *items: bytes | BridgeError | None) -> None:
        for item in items:
            self.log.put_nowait(item)

    async def logs(
        self, identity: Identity, container: str, options: LogOptions
    ) -> AsyncIterator[bytes]:
        self.log_options.append((container, options))
        self.open_logs += 1
        try:
            while (item := await self.log.get()) is not None:
                if isinstance(item, BridgeError):
                    raise item
                yield item
        finally:
            self.open_logs -= 1


# All of it.


@dataclass
class Rig:
    """The API and what is around it."""

    adapter: LogsAdapter
    reviews: FakeReviews
    pods: FakePods
    folder: Path
    pair: Pair
    client_ca: bytes
    api: KubeletApi = field(init=False)
    now: float = 0.0
    """Seconds by which the API's clock is ahead."""
    health: str = ""
    session: aiohttp.ClientSession | None = None
    sessions: list[aiohttp.ClientSession] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.api.port}"

    def client(self, pair: Pair | None = None, **headers: str) -> aiohttp.ClientSession:
        """A client of its own, which shows this certificate."""
        made = aiohttp.ClientSession(
            self.url,
            connector=aiohttp.TCPConnector(ssl=client_context(self.folder, pair)),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=PATIENCE),
        )
        self.sessions.append(made)
        return made

    def known(self) -> aiohttp.ClientSession:
        """A client that is let in."""
        if self.session is None:
            self.session = self.client(Authorization=f"Bearer {TOKEN}")
        return self.session

    async def get(self, path: str, **more: Any) -> tuple[int, str]:
        """(status, text) of a request of one who is let in."""
        url = self.url + path
        async with self.known().request(more.pop("method", "GET"), url, **more) as answer:
            return answer.status, await answer.text()


@contextlib.asynccontextmanager
async def rig(folder: Path, *pods: dict[str, Any], **more: Any) -> AsyncIterator[Rig]:
    before = asyncio.all_tasks()
    adapter = LogsAdapter()
    provider = Provider(Tracker([Backend(adapter, {"pods": 9})]))
    running = asyncio.create_task(provider.run())
    await provider.settled()
    known = FakePods(*(pods or (manifest(),)))
    made = Rig(adapter, FakeReviews(), known, folder, serving(), authority().pem)
    made.api = KubeletApi(
        cluster=CLUSTER,
        node=NODE,
        pods=known,
        provider=more.pop("provider", provider),
        reviews=made.reviews,
        context=lambda: server_context(made.pair, made.client_ca),
        address="127.0.0.1",
        port=0,
        problem=lambda: made.health,
        clock=lambda: time.time() + made.now,
        **more,
    )
    try:
        await made.api.start()
        yield made
    finally:
        for session in made.sessions:
            await session.close()
        await made.api.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    left = await left_over(before)
    assert not left, left


class Spdy:
    """A SPDY client over TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._frames = FrameReader()
        self._encode = FrameWriter().encode
        self._next = 1

    @classmethod
    async def connect(cls, rig: Rig, path: str, protocol: str) -> Spdy | str:
        """The client; or the answer, where that is no upgrade."""
        context = client_context(rig.folder)
        made = cls(*await asyncio.open_connection("127.0.0.1", rig.api.port, ssl=context))
        head = [f"POST {path} HTTP/1.1", "Host: n", "Connection: Upgrade", "Upgrade: SPDY/3.1"]
        head += [f"X-Stream-Protocol-Version: {protocol}", f"Authorization: Bearer {TOKEN}"]
        made.writer.write("\r\n".join([*head, "", ""]).encode())
        async with asyncio.timeout(PATIENCE):
            answer = (await made.reader.readuntil(b"\r\n\r\n")).decode()
        if answer.startswith("HTTP/1.1 101 "):
            return made
        length = int(answer.lower().split("content-length: ")[1].split("\r\n")[0])
        answer += (await made.reader.readexactly(length)).decode()
        await made.leave()
        return answer

    def open(self, **headers: str) -> int:
        """Opens a stream; its number."""
        number, self._next = self._next, self._next + 2
        named = {name.lower(): value for name, value in headers.items()}
        self.send(SynStream(number, named))
        return number

    def send(self, frame: Frame) -> None:
        self.writer.write(self._encode(frame))

    async def next(self) -> Frame | None:
        """The next frame; None: the connection is closed."""
        async with asyncio.timeout(PATIENCE):
            while (frame := self._frames.next_frame()) is None:
                try:
                    received = await self.reader.read(65536)
                except ConnectionError:
                    received = b""
                if not received:
                    return None
                self._frames.feed(received)
        return frame

    async def data(self, number: int) -> Data:
        """The next data of a stream."""
        while True:
            frame = await self.next()
            assert frame is not None
            if isinstance(frame, Data) and frame.stream == number:
                return frame

    async def leave(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


def status_of(content: bytes) -> dict[str, Any]:
    return dict(json.loads(content))
