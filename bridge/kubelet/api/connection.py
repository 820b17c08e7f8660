"""One client's connection: HTTP/1.1 within limits, and few words about what is none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web

LONGEST_LINE = 256 * 1024
"""Bytes of a request line: the words of a command are in it. Linux gives one word 128 KiB."""
LONGEST_FIELD = 64 * 1024
"""Bytes of one header: a token's has some KiB."""
LONGEST_HEAD = LONGEST_LINE + LONGEST_FIELD
"""Bytes of a request line and all headers together."""
FIRST = 10.0
"""Seconds for the first whole request: whoever has not asked for anything has shown no right to be
here."""
IDLE = 90.0
"""Seconds without a (whole) request after that, as the kubelet's IdleTimeout."""

_log = logging.getLogger(__name__)


class Connection(web.RequestHandler):
    """As aiohttp has it, but for what is said of a request that cannot be read: aiohttp repeats it,
    in its answer and with a traceback in the log, be it a token or a flood."""

    __slots__ = ("_first", "_head", "_known")

    def __init__(self, server: web.Server, known: Callable[[], None]) -> None:
        """`known` is called once: with the first request, or when there will be none."""
        self._known: Callable[[], None] | None = known
        self._first: asyncio.TimerHandle | None = None
        self._head = 0
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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: it has begun."""
        super().connection_made(transport)
        self._first = asyncio.get_running_loop().call_later(FIRST, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        """asyncio: it has ended."""
        self.is_known()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes have come."""
        count = self._request_count
        # aiohttp bounds each header, and not all of them together.
        waits = self._current_request is None and not self._messages
        self._head = self._head + len(data) if waits else 0
        if self._head > LONGEST_HEAD:
            self.force_close()
            return
        super().data_received(data)
        if self._request_count != count:
            self._head = 0
            self.is_known()

    def is_known(self) -> None:
        """It has asked for something, or will not."""
        if self._first is not None:
            self._first.cancel()
            self._first = None
        if self._known is not None:
            self._known()
            self._known = None

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
