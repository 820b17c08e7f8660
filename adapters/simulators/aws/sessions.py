"""Sessions of ExecuteCommand: a terminal in a container, over Session Manager's WebSocket.

The exit code does not travel: with AWS neither. What is sent is not sent again, since it arrives.
A client that goes leaves its command running, until the session is terminated or idle for too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from adapters.simulators.aws.agentmessages import (
    ACKNOWLEDGE,
    CLOSED,
    INPUT,
    OUTPUT,
    TERMINATE,
    Malformed,
    Message,
    Payload,
    decode,
    encode,
)
from adapters.simulators.aws.shapes import Json
from adapters.simulators.common.clock import Clock
from adapters.simulators.common.names import hex_id, uuid_id
from bridge.adapter import Channel, Size
from bridge.errors import BridgeError

_logger = logging.getLogger(__name__)

PATH = "/v1/data-channel/"
AGENT = "3.3.0.0"
_OPENING = 30.0
"""Seconds that a client may take to say its token, and to answer the handshake."""
_IDLE = 20 * 60.0
"""Seconds of AWS's after which a session ends that nobody uses ("ECS Exec": the idle timeout)."""

Opening = Callable[[], Awaitable[Channel]]
"""Starts the command; BridgeError."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A session that nobody has joined yet."""

    token: str = field(repr=False)
    opening: Opening


class Sessions:
    """All sessions that may be joined, each once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wanted: dict[str, Wanted] = {}
        self._terminated: dict[str, asyncio.Event] = {}
        """Of those that were joined and have not ended."""
        self._left: set[asyncio.Task[None]] = set()

    def terminate(self, id_: str) -> None:
        """Ends a session, and its command; one that has ended or never was: nothing to do."""
        self._wanted.pop(id_, None)
        if (terminated := self._terminated.get(id_)) is not None:
            terminated.set()

    async def close(self) -> None:
        """Ends the commands that their clients have left."""
        for one in self._left:
            one.cancel()
        await asyncio.gather(*self._left, return_exceptions=True)

    def offer(self, opening: Opening, base: str) -> Json:
        """A new one, as ExecuteCommand answers it."""
        id_, token = f"ecs-execute-command-{hex_id(17)}", secrets.token_urlsafe(64)
        self._wanted[id_] = Wanted(token, opening)
        url = f"{base.replace('http', 'ws', 1)}{PATH}{id_}?role=publish_subscribe"
        return {"sessionId": id_, "streamUrl": url, "tokenValue": token}

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """The WebSocket of one session, to its end."""
        id_ = request.path.removeprefix(PATH)
        wanted = self._wanted.pop(id_, None)
        if wanted is None:
            return web.Response(status=404)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        terminated = self._terminated[id_] = asyncio.Event()
        session = _Session(socket, wanted.opening, id_, self._clock, terminated)
        try:
            async with asyncio.timeout(_OPENING):
                await _admit(socket, wanted.token)
            await session.run()
        except (TimeoutError, PermissionError, Malformed) as error:
            await socket.close(code=1008, message=str(error).encode()[:100])
        finally:
            left = asyncio.create_task(self._end(id_, session, terminated), name=f"{id_} end")
            self._left.add(left)
            left.add_done_callback(self._left.discard)
            await socket.close()
        return socket

    async def _end(self, id_: str, session: _Session, terminated: asyncio.Event) -> None:
        try:
            if session.goes_on:
                idle = asyncio.create_task(self._clock.sleep(_IDLE), name=f"{id_} idle")
                ended = asyncio.create_task(terminated.wait(), name=f"{id_} terminated")
                try:
                    await asyncio.wait({idle, ended}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    idle.cancel()
                    ended.cancel()
        finally:
            del self._terminated[id_]
            await session.close()


async def _admit(socket: web.WebSocketResponse, token: str) -> None:
    first = await socket.receive()
    given: Any = None
    with contextlib.suppress(ValueError):
        given = json.loads(first.data) if first.type is WSMsgType.TEXT else None
    shown = given.get("TokenValue", "") if isinstance(given, dict) else ""
    if not secrets.compare_digest(str(shown), token):
        raise PermissionError("the first message has no such token")


class _Session:
    """One client and one command."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        opening: Opening,
        id_: str,
        clock: Clock,
        terminated: asyncio.Event,
    ) -> None:
        self._socket = socket
        self._opening = opening
        self._id = id_
        self._clock = clock
        self._sent = 0
        self._expected = 0
        self._early: dict[int, Message] = {}
        self._ready = asyncio.Event()
        self._terminated = terminated
        self._over = False
        self._opened = asyncio.Event()
        self._channel: Channel | None = None
        self._size: Size | None = None

    async def run(self) -> None:
        """Handshake, then both directions until one of them ends."""
        action = {
            "ActionType": "SessionType",
            "ActionParameters": {"SessionType": "InteractiveCommands", "Properties": {}},
        }
        request = {"AgentVersion": AGENT, "RequestedClientActions": [action]}
        await self._send(Payload.HANDSHAKE_REQUEST, json.dumps(request).encode())
        receiving = asyncio.create_task(self._receive(), name=f"{self._id} in")
        writing = asyncio.create_task(self._command(), name=f"{self._id} out")
        ending = asyncio.create_task(self._terminated.wait(), name=f"{self._id} terminated")
        parts = {receiving, writing, ending}
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in parts:
                one.cancel()
            results = await asyncio.gather(*parts, return_exceptions=True)
        if self._terminated.is_set() and not self._over:
            self._over = True
            await self._close("")
        for result in results:
            if isinstance(result, Malformed):
                raise result
            if isinstance(result, Exception):
                _logger.warning("session %s ended early: %r", self._id, result)

    @property
    def goes_on(self) -> bool:
        """Whether its command runs on without a client."""
        return self._channel is not None and not self._over

    async def close(self) -> None:
        """Ends its command."""
        if self._channel is not None:
            await self._channel.close()

    async def _command(self) -> None:
        async with asyncio.timeout(_OPENING):
            await self._ready.wait()
        try:
            self._channel = await self._opening()
            if self._size is not None:
                await self._channel.resize(self._size)
            self._opened.set()
            while piece := (await self._channel.read())[1]:
                await self._send(Payload.OUTPUT, piece)
            self._over = True
            await self._close("")
        except BridgeError as error:
            self._over = True
            await self._close(error.message)

    async def _receive(self) -> None:
        async for frame in self._socket:
            if frame.type is not WSMsgType.BINARY:
                continue
            message = decode(frame.data)
            if message.type != INPUT:
                continue
            await self._acknowledge(message)
            if message.sequence >= self._expected:
                self._early[message.sequence] = message
            while (following := self._early.pop(self._expected, None)) is not None:
                self._expected += 1
                await self._take(following)
                if self._over:
                    return

    async def _take(self, message: Message) -> None:
        if message.kind == Payload.HANDSHAKE_RESPONSE:
            done = {"HandshakeTimeToComplete": 1_000_000, "CustomerMessage": ""}
            await self._send(Payload.HANDSHAKE_COMPLETE, json.dumps(done).encode())
            self._ready.set()
        elif message.kind == Payload.SIZE:
            given = json.loads(message.payload)
            self._size = Size(int(given["cols"]), int(given["rows"]))
            if self._channel is not None:
                await self._channel.resize(self._size)
        elif message.kind == Payload.FLAG:
            self._over = struct.unpack(">I", message.payload)[0] == TERMINATE
        elif message.kind == Payload.OUTPUT:
            # What is typed before the command runs is for it all the same.
            await self._opened.wait()
            assert self._channel is not None
            await self._channel.write(message.payload)

    async def _send(self, kind: Payload, payload: bytes) -> None:
        now = int(self._clock.now() * 1000)
        flags = 1 if self._sent == 0 else 0
        message = Message(OUTPUT, self._sent, payload, kind, now, flags)
        self._sent += 1
        await self._socket.send_bytes(encode(message))

    async def _acknowledge(self, message: Message) -> None:
        content = {
            "AcknowledgedMessageType": message.type,
            "AcknowledgedMessageId": str(message.id),
            "AcknowledgedMessageSequenceNumber": message.sequence,
            "IsSequentialMessage": True,
        }
        now = int(self._clock.now() * 1000)
        answer = Message(ACKNOWLEDGE, 0, json.dumps(content).encode(), 0, now, 3)
        await self._socket.send_bytes(encode(answer))

    async def _close(self, words: str) -> None:
        now = int(self._clock.now() * 1000)
        content = {
            "MessageId": uuid_id(),
            "CreatedDate": str(now),
            "SessionId": self._id,
            "MessageType": CLOSED,
            "SchemaVersion": 1,
            "Output": words,
        }
        message = Message(CLOSED, 0, json.dumps(content).encode(), 0, now, 3)
        await self._socket.send_bytes(encode(message))
