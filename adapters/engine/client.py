"""One connection to one engine: the only place that speaks HTTP, and raises `bridge.errors` alone.

The Docker API for what both engines do alike; libpod's own calls where Podman's Docker API lacks
one. aiodocker finds out how to reach the engine and keeps the session. Streams that go both ways
are connections of their own: they need a half-close and back-pressure to the last byte.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiodocker
import aiohttp
import orjson
import yarl

from adapters.engine import discovery, peer
from bridge.errors import (
    Ambiguous,
    BridgeError,
    Invalid,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
)

_OLDEST = (1, 40)
"""Docker 19.03 and Podman 4: what everything here was written for."""
_LIBPOD = "v4.0.0/libpod"
"""Answered by Podman 4 and 5 alike."""
_CONNECT = 10.0
"""Seconds to a connection."""
_CHUNK = 256 * 1024
"""Bytes: the buffer of a raw stream, above which the engine has to wait."""
_LONGEST_LINE = 256 * 1024
"""Bytes of a line that are kept."""
_HEAD = 64 * 1024
"""Bytes: longer answers' heads are none."""


class Conflict(Ambiguous):
    """409: it is there already, or in a state in which this cannot be done. Look."""


class Refused(Unavailable):
    """The engine itself answered with a failure (5xx); `message` is its own words."""


_BY_STATUS: Mapping[int, type[BridgeError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    429: Throttled,
}
"""Everything else from 400 on is Refused."""


_TAKEN = "name is already in use"
"""Podman's words, and status 500, for a container that is there already."""


def error_of(status: int, body: bytes) -> BridgeError:
    """What an answer with that status means, with the engine's own words."""
    words = body.decode(errors="replace").strip()
    try:
        said = orjson.loads(body)
        if isinstance(said, dict):
            words = str(said.get("message") or said.get("cause") or words)
    except orjson.JSONDecodeError:
        pass
    if "no space left on device" in words:
        # No failure of what was asked for: it is done once there is room again.
        return Unavailable(f"the engine's disk is full: {words}")
    if status == 500 and _TAKEN in words:
        return Conflict(words)
    return _BY_STATUS.get(status, Refused)(words or f"the engine answered {status}")


class Engine:
    """One connection to one engine.

    Paths are without version and leading slash (`containers/json`). Parameters may hold strings,
    numbers, truth values, and mappings and lists, which are sent as JSON (filters).
    """

    docker: aiodocker.Docker
    """aiodocker's client, whose session carries every call."""
    podman: bool = False
    """Podman answers: libpod's own calls are there."""
    api: tuple[int, int] = (0, 0)
    """The version of the Docker API that is spoken."""
    owner: str
    """The value of the label `podbridge.io/owner` of all that is ours here (see `names`)."""
    local: bool = False
    """The engine's host is this one: its containers' process IDs and its files are ours to see."""
    lowers_oom_scores: bool = False
    """The engine may give a container a negative oom_score_adj."""
    info: Mapping[str, Any]
    """What the engine says of itself and its host (GET /info)."""

    def __init__(self, host: str = "", *, owner: str = "podbridge", timeout: float = 120.0) -> None:
        self.owner = owner
        self._host = host
        self._timeout = timeout
        self._address = ""
        self._base = ""
        self._tls: Any = None
        self._connector: aiohttp.BaseConnector | None = None
        self.info = {}

    @property
    def address(self) -> str:
        """Where the engine is; empty before `open`."""
        return self._address

    @property
    def type(self) -> str:
        """What a container's ID begins with: `docker` or `podman`."""
        return "podman" if self.podman else "docker"

    async def open(self) -> None:
        """Finds the engine and asks what it is. Unavailable, Unauthorized, Invalid."""
        self._address = discovery.find(self._host, os.environ)
        self._tls = discovery.tls(self._address, os.environ)
        connector = _connector(self._address, self._tls)
        self._connector = connector
        self._base = _base(self._address, self._tls)
        self.docker = aiodocker.Docker(url=self._base, connector=connector, api_version="v1.40")
        try:
            await self._meet()
        except BaseException:
            await self.close()
            raise

    async def _meet(self) -> None:
        # The headers of a ping: Podman looks all its packages up for GET /version.
        limit = aiohttp.ClientTimeout(total=self._timeout, connect=_CONNECT)
        async with self._request("GET", "_ping", None, None, limit) as answer:
            self.podman = "Libpod-API-Version" in answer.headers
            self.api = _version(answer.headers.get("Api-Version"))
        if self.api < _OLDEST:
            raise Unavailable(
                f"the engine at {self._address} speaks the Docker API {_dotted(self.api)}; "
                f"{_dotted(_OLDEST)} is the oldest that is enough"
            )
        self.docker.api_version = f"v{_dotted(self.api)}"
        self.info = await self.call("GET", "info")
        self.local = self._address.startswith("unix://") and _is_this_host(self.info)
        rootless = "rootless" in str(self.info.get("SecurityOptions"))
        if not rootless:
            path = self._address.removeprefix("unix://")
            self.lowers_oom_scores = not self.local or await asyncio.to_thread(
                peer.lowers_oom_scores, path
            )

    async def close(self) -> None:
        """Closes the connections. May be repeated."""
        connector, self._connector = self._connector, None
        if connector is not None:
            await self.docker.close()
            await connector.close()

    def _url(self, path: str, libpod: bool, params: Mapping[str, Any] | None) -> str:
        version = _LIBPOD if libpod else f"v{_dotted(self.api)}"
        return f"/{version}/{path}{_query(params)}"

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        libpod: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """One call with JSON both ways; None for an empty answer, text for what is no JSON.

        NotFound (404), Conflict (409), Invalid (400), Unauthorized, Throttled, Refused (5xx: the
        engine's own failure), Unavailable (it does not answer, or its disk is full).
        """
        data = None if body is None else orjson.dumps(body)
        sent = {"Content-Type": "application/json", **(headers or {})}
        url = self._url(path, libpod, params)
        return await self._ask(method, url, data=data, headers=sent, timeout=timeout)

    async def containers(self, filters: Mapping[str, Any]) -> Any:
        """All containers, running or not, that the filters leave. Errors as of `call`."""
        params = {"all": True, "filters": filters}
        return await self.call("GET", "containers/json", params=params)

    async def send(
        self,
        method: str,
        path: str,
        *,
        data: bytes | AsyncIterable[bytes],
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        libpod: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """As `call`, with a body that is no JSON: a tar archive unless the headers say more."""
        sent = {"Content-Type": "application/x-tar", **(headers or {})}
        url = self._url(path, libpod, params)
        return await self._ask(method, url, data=data, headers=sent, timeout=timeout)

    async def _ask(
        self,
        method: str,
        url: str,
        *,
        data: bytes | AsyncIterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Any:
        limit = aiohttp.ClientTimeout(total=timeout or self._timeout, connect=_CONNECT)
        async with self._request(method, url, data, headers, limit) as answer:
            return _decoded(await answer.read(), answer.content_type)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        libpod: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is read as it comes (logs, events, pulls, archives): no time limit.

        aiohttp's own errors inside of the block are translated as well: a connection that breaks
        is Unavailable.
        """
        data = None if body is None else orjson.dumps(body)
        sent = {"Content-Type": "application/json", **(headers or {})}
        limit = aiohttp.ClientTimeout(total=None, connect=_CONNECT)
        async with self._request(
            method, self._url(path, libpod, params), data, sent, limit
        ) as answer:
            yield answer

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        url: str,
        data: bytes | AsyncIterable[bytes] | None,
        headers: Mapping[str, str] | None,
        limit: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._connector is None:
            raise Unavailable("the engine backend is not open")
        whole = f"{self._base}/{url.lstrip('/')}"
        try:
            async with self.docker.session.request(
                method, yarl.URL(whole, encoded=True), data=data, headers=headers, timeout=limit
            ) as answer:
                if answer.status >= 400:
                    raise error_of(answer.status, await answer.read())
                yield answer
        except TimeoutError:
            raise Unavailable(f"the engine at {self._address} does not answer") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"the engine at {self._address}: {_words(error)}") from None

    async def hijack(
        self,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, Any] | None = None,
        libpod: bool = False,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A POST whose connection becomes a raw stream both ways (exec start, attach).

        The reader holds at most half a megabyte before the engine has to wait; `write_eof` closes
        our half alone (not over TLS, where `can_write_eof` is false). The caller closes the writer.
        Errors as of `call`.
        """
        if self._connector is None:
            raise Unavailable("the engine backend is not open")
        data = b"" if body is None else orjson.dumps(body)
        head = (
            f"POST {self._url(path, libpod, params)} HTTP/1.1\r\nHost: localhost\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(self._timeout):
                reader, writer = await self._connect()
                writer.write(head.encode("ascii") + data)
                await writer.drain()
                await _accepted(reader)
        except BaseException as error:
            if writer is not None:
                writer.close()
            if isinstance(error, TimeoutError):
                raise Unavailable(f"the engine at {self._address} does not answer") from None
            if isinstance(error, OSError | EOFError | asyncio.LimitOverrunError):
                raise Unavailable(f"the engine at {self._address}: {_words(error)}") from None
            raise
        return reader, writer

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._address.startswith("unix://"):
            path = self._address.removeprefix("unix://")
            return await asyncio.open_unix_connection(path, limit=_CHUNK)
        parts = urlsplit(self._address)
        port = parts.port or (2376 if self._tls else 2375)
        return await asyncio.open_connection(parts.hostname, port, ssl=self._tls, limit=_CHUNK)


async def lines(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The answer's lines as they come, without their ends; of a long one only the beginning, since
    labels of images and words of registries are anybody's."""
    held = bytearray()
    async for chunk in answer.content.iter_chunked(_CHUNK):
        for at, one in enumerate(chunk.split(b"\n")):
            if at:
                yield bytes(held)
                held.clear()
            held += one[: max(0, _LONGEST_LINE - len(held))]
    if held:
        yield bytes(held)


def part(text: str) -> str:
    """A name as one part of a path."""
    return quote(text, safe="")


def _connector(address: str, tls: Any) -> aiohttp.BaseConnector:
    # Followed logs and events each hold a connection for as long as they please.
    if address.startswith("unix://"):
        return aiohttp.UnixConnector(address.removeprefix("unix://"), limit=0)
    return aiohttp.TCPConnector(limit=0, ssl=tls if tls is not None else True)


def _base(address: str, tls: Any) -> str:
    """What every URL begins with; over a socket the host is a word of no meaning."""
    if address.startswith("unix://"):
        return "http://localhost"
    parts = urlsplit(address)
    scheme, port = ("https", 2376) if tls else ("http", 2375)
    return f"{scheme}://{parts.hostname}:{parts.port or port}"


def _query(params: Mapping[str, Any] | None) -> str:
    if not params:
        return ""
    return "?" + urlencode({key: _value(one) for key, one in params.items() if one is not None})


def _value(one: Any) -> str:
    if isinstance(one, bool):
        return "true" if one else "false"
    if isinstance(one, str | int | float):
        return str(one)
    return orjson.dumps(one).decode()


def _decoded(body: bytes, kind: str) -> Any:
    if not body.strip():
        return None
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        if kind == "text/html":
            raise Unavailable("something answers that is no container engine") from None
        return body.decode(errors="replace")


async def _accepted(reader: asyncio.StreamReader) -> None:
    """Reads the answer's head; its error where it is none of those that begin a raw stream."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    words = first.split(" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    if status in (101, 200):
        return
    length = 0
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip().lower() == "content-length" and value.strip().isdigit():
            length = min(int(value), _HEAD)
    body = await reader.readexactly(length) if length else await reader.read(_HEAD)
    raise error_of(status, body)


def _version(text: Any) -> tuple[int, int]:
    major, _, minor = str(text or "0.0").partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _is_this_host(info: Mapping[str, Any]) -> bool:
    """Docker Desktop and `podman machine` have a local socket, and their containers elsewhere."""
    here = os.uname()
    return info.get("KernelVersion") == here.release and info.get("Name") == here.nodename


def _words(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
