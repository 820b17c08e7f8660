"""HTTP as the clouds see it, and the port on which one of them listens."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

Json = dict[str, Any]
"""A JSON object."""

MAX_BODY = 1024**3
"""Bytes of a request: what is stored is held in memory."""
_GRACE = 1.0
"""Seconds that connections have to end when the server stops."""


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request. `path` is as sent, percent-encoded; header names are lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def parameters(self) -> dict[str, str]:
        """Of the query."""
        return dict(parse_qsl(self.query, keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Lost(Exception):
    """The answer is to be lost: the connection closes without one."""


class Site:
    """One port. `answer` answers requests (Lost: not at all); `streams` serves the paths that begin
    with its prefixes by itself."""

    def __init__(
        self,
        host: str,
        port: int,
        answer: Callable[[Request], Awaitable[Answer]],
        streams: Mapping[str, Callable[[web.Request], Awaitable[web.StreamResponse]]],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._answer = answer
        self._streams = streams
        self._tls = tls
        self._runner: web.AppRunner | None = None

    async def open(self) -> str:
        """Listens; where, as `http://127.0.0.1:4566`. OSError where the port is taken."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # What is stored with a Content-Encoding must come back as it was sent.
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=_GRACE, auto_decompress=False
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port, ssl_context=self._tls).start()
        host, port = self._runner.addresses[0][:2]
        scheme = "https" if self._tls is not None else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    async def close(self) -> None:
        """Listens no more; again, or before it was opened: nothing to do."""
        if self._runner is None:
            return
        connections = self._runner.server.connections if self._runner.server is not None else []
        transports = [one.transport for one in connections]
        await self._runner.cleanup()
        # With TLS a connection is over only once its client has said so as well.
        for transport in transports:
            if isinstance(transport, asyncio.Transport):
                transport.abort()
        # One turn of the loop closes their sockets, another tells of it.
        for _ in range(2):
            await asyncio.sleep(0)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        for prefix, serve in self._streams.items():
            if request.path.startswith(prefix):
                return await serve(request)
        given = Request(
            request.method,
            request.raw_path.partition("?")[0],
            request.rel_url.raw_query_string,
            {name.lower(): value for name, value in request.headers.items()},
            await request.read(),
        )
        try:
            return _response(await self._answer(given), given.method)
        except Lost:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)


def _response(answer: Answer, method: str) -> web.Response:
    headers = dict(answer.headers)
    if method == "HEAD":
        # Its length is that of the body that it does not have.
        return web.Response(status=answer.status, headers=headers)
    headers.pop("Content-Length", None)
    return web.Response(status=answer.status, body=answer.body, headers=headers)
