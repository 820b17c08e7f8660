"""One client's connection: HTTP/1.1 within limits, and few words about what is none."""

from __future__ import annotations

import asyncio
import logging
import resource

from aiohttp import web

CONNECTIONS = 2048
"""Connections at once, at the most half of the files that this process may have open; more are
closed unheard."""
LONGEST_LINE = 256 * 1024
"""Bytes of a request line: the words of a command are in it. Linux gives one word 128 KiB."""
LONGEST_FIELD = 64 * 1024
"""Bytes of one header: a token's has some KiB."""
IDLE = 90.0
"""Seconds without a (whole) request, as the kubelet's IdleTimeout."""

_log = logging.getLogger(__name__)


class Connection(web.RequestHandler):
    """As aiohttp has it, but for what is said of a request that cannot be read: aiohttp repeats it,
    in its answer and with a traceback in the log, be it a token or a flood."""

    __slots__ = ()

    def __init__(self, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=IDLE,
            access_log=None,  # type: ignore[arg-type]
            debug=False,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_FIELD,
            auto_decompress=False,
        )

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that went wrong, which ends the connection."""
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        _log.info("refused a malformed request from %s", request.remote)
        answer = web.Response(status=400, text="400 Bad Request")
        answer.force_close()
        return answer


class Refused(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: it has begun, and ends."""
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()


def connection(server: web.Server | None) -> asyncio.Protocol:
    """What takes a new connection."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if server is None or len(server.connections) >= min(CONNECTIONS, files // 2):
        return Refused()
    return Connection(server)
