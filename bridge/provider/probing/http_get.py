"""An HTTP GET to a pod, as the kubelet's probes and hooks send it (pkg/probe/http)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import lru_cache
from typing import Any, Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDict
from yarl import URL

from bridge.adapter import Channel
from bridge.errors import Unavailable
from bridge.provider.probing.forward import as_socket
from bridge.workload import HttpAction

VERSION = "1.36"
"""The Kubernetes version that a request names."""
BODY_MAX = 10 * 1024
"""Bytes of a response that are read (maxRespBodyLength)."""
REDIRECTS_MAX = 10

_REDIRECTS = (301, 302, 303, 307, 308)


class Redirected(Exception):
    """The last answer sends elsewhere, or nowhere: it is not followed."""

    def __init__(self, body: str) -> None:
        super().__init__("redirected")
        self.body = body


class NotTls(Unavailable):
    """A server was asked by HTTPS and does not speak it."""


class Dialled(Protocol):
    """A pod that can be connected to."""

    @property
    def address(self) -> str:
        """The pod's address, for names."""

    async def dial(self, port: int) -> Channel:
        """One connection."""


async def get(target: Dialled, action: HttpAction, agent: str) -> int:
    """The status that the pod answers with. Unavailable with why there is none, NotTls,
    Redirected.

    Redirects are followed as long as they name the same host. Certificates are not verified.
    """
    host = f"[{target.address}]" if ":" in target.address else target.address
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    try:
        first = url = URL(f"{action.scheme.lower()}://{host}:{action.port}{path}")
    except ValueError as error:
        raise Unavailable(str(error)) from None
    headers = _headers(action, agent)
    for _ in range(REDIRECTS_MAX):
        status, location, body = await _ask(target, url, headers)
        if not 300 <= status < 400:
            return status
        if status not in _REDIRECTS or not location:
            raise Redirected(body)
        try:
            url = url.join(URL(location))
        except ValueError as error:
            raise Unavailable(f"failed to parse Location header: {error}") from None
        if url.host != first.host or url.scheme not in ("http", "https"):
            raise Redirected(body)
    raise Unavailable(f"stopped after {REDIRECTS_MAX} redirects")


def _headers(action: HttpAction, agent: str) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict(action.headers)
    headers.setdefault("User-Agent", f"{agent}/{VERSION}")
    headers.setdefault("Accept", "*/*")
    if not headers["Accept"]:
        del headers["Accept"]
    headers["Connection"] = "close"
    return headers


async def _ask(target: Dialled, url: URL, headers: CIMultiDict[str]) -> tuple[int, str, str]:
    """(status, Location, the body's beginning)."""
    async with AsyncExitStack() as stack:
        socket = await stack.enter_async_context(as_socket(await target.dial(url.port or 80)))

        async def connect(make: Callable[[], ResponseHandler]) -> ResponseHandler:
            secure = _unverified() if url.scheme == "https" else None
            name = "" if secure else None
            loop = asyncio.get_running_loop()
            transport, protocol = await loop.create_connection(
                make, sock=socket, ssl=secure, server_hostname=name
            )
            # A farewell by TLS would wait for the server's.
            stack.callback(transport.abort)
            return protocol

        try:
            session = await stack.enter_async_context(
                aiohttp.ClientSession(
                    connector=_Connector(connect),
                    auto_decompress=False,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(),
                    skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
                )
            )
            response = await stack.enter_async_context(
                session.get(url, headers=headers, allow_redirects=False)
            )
            body = await response.content.read(BODY_MAX)
        except (aiohttp.ClientError, OSError) as error:
            raise _unavailable(error) from None
        except ValueError as error:
            # Headers that cannot be sent.
            raise Unavailable(str(error)) from None
        return response.status, response.headers.get("Location", ""), body.decode(errors="replace")


def _unavailable(error: Exception) -> Unavailable:
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Unavailable("EOF")
    cause = error if isinstance(error, ssl.SSLError) else error.__cause__ or error.__context__
    if isinstance(cause, ssl.SSLError):
        if cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return NotTls("server gave HTTP response to HTTPS client")
        return Unavailable(f"tls: {cause.reason}")
    return Unavailable(str(error) or type(error).__name__)


class _Connector(aiohttp.BaseConnector):
    """Gives every request the one connection that was made for it."""

    def __init__(self, connect: Callable[[Any], Coroutine[Any, Any, ResponseHandler]]) -> None:
        super().__init__(force_close=True)
        self._connect_to = connect
        self._used = False

    async def _create_connection(
        self, req: object, traces: object, timeout: object
    ) -> ResponseHandler:
        if self._used:
            # The session tries again what a server hung up on: for a probe that is an answer.
            raise aiohttp.ServerDisconnectedError
        self._used = True
        return await self._connect_to(self._factory)


@lru_cache(maxsize=1)
def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
