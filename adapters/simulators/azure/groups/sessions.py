"""Exec and attach: a WebSocket that its password opens, once.

Exec: the password is the first text frame, as the Azure CLI sends it; then bytes both ways, of a
terminal. Attach: the password is the Authorization header (the SDK's model), or the first frame;
then what the container writes. An exit code does not travel: the socket closes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import WSMsgType, web

from adapters.simulators.common.names import hex_id
from adapters.simulators.common.web import Json
from bridge.adapter import Channel
from bridge.errors import BridgeError

PATH = "/_bridge/"
_OPENING = 30.0
"""Seconds that a client may take to say its password."""

Opening = Callable[[], Awaitable[Channel]]
"""Starts the command, or joins the container; BridgeError."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    password: str = field(repr=False)
    opening: Opening
    has_input: bool


class Sessions:
    """All that may be joined, each once."""

    def __init__(self, base: Callable[[], str]) -> None:
        self._base = base
        self._wanted: dict[str, _Wanted] = {}

    def offer(self, kind: str, opening: Opening) -> Json:
        """A new one, as exec and attach answer it."""
        id_, password = f"{kind}-{hex_id(32)}", secrets.token_urlsafe(32)
        self._wanted[id_] = _Wanted(password, opening, has_input=kind == "exec")
        uri = f"{self._base().replace('http', 'ws', 1)}{PATH}{id_}"
        return {"webSocketUri": uri, "password": password}

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """The WebSocket of one, to its end."""
        wanted = self._wanted.pop(request.path.removeprefix(PATH), None)
        if wanted is None:
            return web.Response(status=404)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        try:
            shown = request.headers.get("Authorization", "")
            if not shown:
                async with asyncio.timeout(_OPENING):
                    first = await socket.receive()
                shown = str(first.data) if first.type is WSMsgType.TEXT else ""
            if not secrets.compare_digest(shown.encode(), wanted.password.encode()):
                await socket.close(code=1008, message=b"the password is wrong")
                return socket
            await _join(socket, wanted)
        except TimeoutError:
            await socket.close(code=1008, message=b"no password came")
        return socket


async def _join(socket: web.WebSocketResponse, wanted: _Wanted) -> None:
    try:
        channel = await wanted.opening()
    except BridgeError as error:
        await socket.send_bytes(f"{error.message}\r\n".encode())
        await socket.close()
        return
    parts = {
        asyncio.create_task(_out(socket, channel), name="session out"),
        asyncio.create_task(_in(socket, channel if wanted.has_input else None), name="session in"),
    }
    try:
        await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in parts:
            one.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
        await channel.close()
        await socket.close()


async def _out(socket: web.WebSocketResponse, channel: Channel) -> None:
    while piece := (await channel.read())[1]:
        await socket.send_bytes(piece)


async def _in(socket: web.WebSocketResponse, channel: Channel | None) -> None:
    """Until the client goes; None: nothing that it sends is wanted."""
    async for frame in socket:
        if channel is not None and frame.type in (WSMsgType.BINARY, WSMsgType.TEXT):
            data = frame.data
            await channel.write(data.encode() if isinstance(data, str) else data)
