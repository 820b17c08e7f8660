"""The door: TCP connections are taken, counted and shaken hands with, before anybody is known."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
from collections import Counter

from aiohttp import web

from bridge.kubelet.api.connection import Connection

CONNECTIONS = 2048
"""Connections at once, handshakes included, at the most half of the files that this process may
have open; more are closed unheard."""
STRANGERS = 512
"""Those among them that have not asked for anything yet."""
OF_ONE_ADDRESS = 64
"""The same from one address: nobody alone keeps the API server out."""
HANDSHAKE = 10.0
"""Seconds for a TLS handshake."""
FAREWELL = 2.0
"""Seconds for the other end to agree that a TLS connection ends."""
_PAUSE = 1.0
"""Seconds after which the next one is taken, where there was no file left for one."""

_log = logging.getLogger(__name__)


class Door:
    """Listens. OSError: the address is not free, or not ours."""

    def __init__(self, address: str, port: int, server: web.Server, context: ssl.SSLContext):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.create_server((address, port), family=family, backlog=512)
        self._socket.setblocking(False)
        self.port = int(self._socket.getsockname()[1])
        """Where it listens."""
        self._server = server
        self._context = context
        self._strangers: Counter[str] = Counter()
        self._entering: set[asyncio.Task[None]] = set()
        self._taking = asyncio.create_task(self._take(), name="take connections")

    async def close(self) -> None:
        """Takes nobody any more, and lets go of those who have not come in."""
        tasks = [self._taking, *self._entering]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                taken, (address, *_) = await loop.sock_accept(self._socket)
            except OSError as error:
                _log.warning("cannot take a connection: %s", error.strerror or error)
                await asyncio.sleep(_PAUSE)
                continue
            if not self._has_room(address):
                taken.close()
                continue
            self._strangers[address] += 1
            task = asyncio.create_task(self._enter(taken, address), name="TLS handshake")
            self._entering.add(task)
            task.add_done_callback(self._entering.discard)

    def _has_room(self, address: str) -> bool:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return (
            len(self._server.connections) + len(self._entering) < min(CONNECTIONS, files // 2)
            and self._strangers.total() < STRANGERS
            and self._strangers[address] < OF_ONE_ADDRESS
        )

    async def _enter(self, taken: socket.socket, address: str) -> None:
        made: list[Connection] = []

        def known() -> None:
            self._strangers[address] -= 1
            if not self._strangers[address]:
                del self._strangers[address]

        def make() -> Connection:
            made.append(Connection(self._server, known))
            return made[0]

        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                make,
                taken,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE,
                ssl_shutdown_timeout=FAREWELL,
            )
        except BaseException as error:
            # Nobody has come in, and nobody will tell of an end.
            if made:
                made[0].is_known()
            else:
                known()
            if not isinstance(error, OSError):
                raise
