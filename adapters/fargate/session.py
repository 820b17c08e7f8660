"""One session of Session Manager: a terminal at the other end of a WebSocket.

Each direction is a stream of numbered messages. The other side acknowledges each, in any order;
what stays unacknowledged is sent again, the oldest first. What comes twice is ignored, what comes
too early is kept. While nobody reads, nothing is taken from the socket, so that whoever writes has
to wait.

A session that breaks off is not resumed: nobody knows what of it was lost. It may go on at the
other end until it is terminated.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp

from adapters.fargate import messages
from adapters.fargate.messages import Content, Message
from bridge.adapter import Size
from bridge.errors import BridgeError, Unavailable, Unsupported
from bridge.groups.bell import Bell

VERSION = "1.2.0.0"
"""The version of the protocol's client: that of the plugin for the AWS CLI whose messages these
are. Agents look at it for forwarded ports alone."""
_CONNECT = 30.0
"""Seconds for the WebSocket."""
_PIECE = 1024
"""Bytes of input in a message: what the plugin sends at most."""
_WINDOW = 64
"""Messages of input on their way at once."""
_ROOM = 256 * 1024
"""Bytes of output that are kept for a reader."""
_AHEAD, _AHEAD_ROOM = 1024, 256 * 1024
"""Messages that are kept for the one before them, and bytes of them."""
_ROUND_TRIP, _LONGEST_TRIP, _TICK = 0.2, 1.0, 0.1
"""Seconds after which a message is sent again: until one was measured, at most, and between looks
(the plugin's own)."""
_PATIENCE = 300.0
"""Seconds in which a message must be acknowledged, and one that is missing come (the plugin's own):
an agent acknowledges nothing while a terminal takes no input."""
_PING = 30.0
"""Seconds between pings."""
_SILENCE = 3 * _PING
"""Seconds without a sign of life after which a connection is given up."""
_TYPES = ("InteractiveCommands", "Standard_Stream")
_THIS_HOST = ("127.0.0.1", "localhost", "::1")
_ENCRYPTED = (
    "the cluster has its ExecuteCommand sessions encrypted by a KMS key of its own, which is not"
    " supported: drop it from the cluster's configuration, or give the backend a tunnel"
)


@dataclass(slots=True)
class _Sent:
    """A message on its way."""

    data: bytes
    first: float
    last: float
    again: bool = False


class Session:
    """One session. Made by `connect`."""

    def __init__(
        self, http: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse
    ) -> None:
        self._http = http
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        self._bell = Bell()
        self._output: deque[bytes] = deque()
        self._waiting = 0
        self._expected = 0
        self._ahead: dict[int, Message] = {}
        self._kept = 0
        """Bytes of these."""
        self._moved = self._heard = self._loop.time()
        self._next = 0
        self._sent: dict[int, _Sent] = {}
        self._trip = _ROUND_TRIP
        self._ready = self._paused = False
        self._failure: BridgeError | None = None
        self._over = False
        self.words = ""
        """What the other side said as it ended the session."""
        self._tasks = [
            asyncio.create_task(self._receive(), name="session of ExecuteCommand"),
            asyncio.create_task(self._keep(), name="keeper of a session of ExecuteCommand"),
        ]

    async def read(self) -> bytes:
        """The next bytes of the terminal; b"": the other side has ended the session. Unavailable:
        it broke; Unsupported: it wants what we cannot do."""
        await self._bell.until(lambda: bool(self._output) or self._is_done)
        if self._output:
            data = self._output.popleft()
            self._waiting -= len(data)
            self._bell.ring()
            return data
        if self._failure is not None:
            raise self._failure
        return b""

    async def write(self, data: bytes) -> None:
        """What is typed at the terminal; returns when all of it is on its way, and not too much of
        it unacknowledged. Errors as of `read`; ended: dropped."""
        for start in range(0, len(data), _PIECE):
            await self._send(Content.OUTPUT, data[start : start + _PIECE])

    async def resize(self, size: Size) -> None:
        """The terminal's size. Errors as of `write`."""
        asked = {"cols": max(0, min(size.width, 65535)), "rows": max(0, min(size.height, 65535))}
        await self._send(Content.SIZE, json.dumps(asked).encode())

    async def ended(self, seconds: float) -> bool:
        """Whether the other side ends the session within that time; its output is dropped."""
        with suppress(TimeoutError, BridgeError):
            async with asyncio.timeout(seconds):
                while await self.read():
                    pass
                return True
        return False

    async def close(self) -> None:
        """Lets go of the connection. May be repeated."""
        self._end(Unavailable("the session was closed"))
        for one in self._tasks:
            one.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(TimeoutError, aiohttp.ClientError, OSError):
            async with asyncio.timeout(_LONGEST_TRIP):
                await self._socket.close()
        await self._http.close()

    # What goes there.

    @property
    def _is_done(self) -> bool:
        return self._over or self._failure is not None

    def _end(self, failure: BridgeError | None = None) -> None:
        if not self._is_done:
            self._failure, self._over = failure, failure is None
        self._bell.ring()

    async def _send(self, content: Content, payload: bytes, *, first: bool = False) -> None:
        """`first`: it is what makes the other side ready for all else."""

        def may() -> bool:
            is_open = first or (self._ready and not self._paused and len(self._sent) < _WINDOW)
            return self._is_done or is_open

        await self._bell.until(may)
        if self._failure is not None:
            raise self._failure
        if self._over:
            return
        message = Message(messages.INPUT, payload, content, self._next)
        now = self._loop.time()
        self._sent[self._next] = sent = _Sent(messages.encode(message), now, now)
        self._next += 1
        self._bell.ring()
        await self._put(sent.data)

    async def _put(self, data: bytes) -> None:
        try:
            await self._socket.send_bytes(data)
        except (aiohttp.ClientError, OSError, RuntimeError):
            self._end(Unavailable(_CUT))
            raise Unavailable(_CUT) from None

    async def _keep(self) -> None:
        """Sends again what is not acknowledged, and finds out when nobody is there any more."""
        pinged = self._loop.time()
        try:
            while not self._is_done:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PING):
                        await self._bell.until(lambda: bool(self._sent or self._ahead))
                await asyncio.sleep(_TICK)
                now = self._loop.time()
                if now >= pinged + _PING:
                    pinged = now
                    await self._socket.ping()
                if self._waiting >= _ROOM:
                    # Nothing is heard while nobody reads.
                    self._moved = self._heard = now
                    for one in self._sent.values():
                        one.first = now
                    continue
                self._look(now)
                if not self._paused and self._sent:
                    oldest = self._sent[min(self._sent)]
                    if now >= oldest.last + self._trip:
                        oldest.last, oldest.again = now, True
                        await self._put(oldest.data)
        except (aiohttp.ClientError, OSError, RuntimeError):
            self._end(Unavailable(_CUT))
        except BridgeError as error:
            self._end(error)

    def _look(self, now: float) -> None:
        if self._sent and now > self._sent[min(self._sent)].first + _PATIENCE:
            raise Unavailable("the container's agent acknowledges nothing")
        if self._ahead and now > self._moved + _PATIENCE:
            raise Unavailable("a part of the session's output was lost")
        if now > self._heard + _SILENCE:
            raise Unavailable("the session's connection is dead")

    # What comes from there.

    async def _receive(self) -> None:
        try:
            while not self._is_done:
                await self._bell.until(lambda: self._waiting < _ROOM or self._is_done)
                got = await self._socket.receive()
                self._heard = self._loop.time()
                if got.type is aiohttp.WSMsgType.PING:
                    await self._socket.pong(got.data)
                elif got.type is aiohttp.WSMsgType.BINARY:
                    await self._take(messages.decode(got.data))
                elif got.type not in (aiohttp.WSMsgType.PONG, aiohttp.WSMsgType.TEXT):
                    raise Unavailable(_CUT)
        except (aiohttp.ClientError, OSError, RuntimeError):
            self._end(Unavailable(_CUT))
        except BridgeError as error:
            self._end(error)
        finally:
            # Whatever has happened: nobody may wait for what no longer comes.
            self._end(Unavailable(_CUT))

    async def _take(self, message: Message) -> None:
        if message.kind == messages.OUTPUT:
            self._paused = False
            await self._numbered(message)
        elif message.kind == messages.ACKNOWLEDGE:
            self._paused = False
            self._acknowledged(messages.acknowledged(message))
        elif message.kind == messages.CLOSED:
            self.words = str(messages.said(message).get("Output") or "")
            self._end()
        elif message.kind in (messages.START, messages.PAUSE):
            self._paused = message.kind == messages.PAUSE
        self._bell.ring()

    def _acknowledged(self, number: int) -> None:
        sent = self._sent.pop(number, None)
        if sent is not None and not sent.again:
            took = self._loop.time() - sent.first
            self._trip = min(_LONGEST_TRIP, max(_ROUND_TRIP, 2 * took))

    async def _numbered(self, message: Message) -> None:
        is_known = message.sequence < self._expected or message.sequence in self._ahead
        if not is_known and not self._has_room(message):
            # It comes again, since it was not acknowledged.
            return
        await self._put(messages.encode(messages.acknowledgement(message)))
        if not is_known:
            if not self._ahead:
                self._moved = self._loop.time()
            self._ahead[message.sequence] = message
            self._kept += len(message.payload)
        while (following := self._ahead.pop(self._expected, None)) is not None:
            self._kept -= len(following.payload)
            self._expected += 1
            self._moved = self._loop.time()
            await self._handle(following)

    def _has_room(self, message: Message) -> bool:
        if message.sequence == self._expected:
            return True
        is_full = self._kept + len(message.payload) > _AHEAD_ROOM
        return not is_full and len(self._ahead) < _AHEAD

    async def _handle(self, message: Message) -> None:
        if message.content in (Content.OUTPUT, Content.STDERR, Content.ERROR):
            self._ready = True
            if message.payload:
                self._output.append(message.payload)
                self._waiting += len(message.payload)
        elif message.content == Content.HANDSHAKE_REQUEST:
            await self._shake(message)
        elif message.content == Content.HANDSHAKE_COMPLETE:
            self._ready = True
        elif message.content == Content.CHALLENGE:
            raise Unsupported(_ENCRYPTED)

    async def _shake(self, message: Message) -> None:
        """Says which of the agent's wishes are granted."""
        wishes = messages.said(message).get("RequestedClientActions") or ()
        done, problem = [], ""
        for wish in wishes if isinstance(wishes, list) else ():
            name, error = _wish(wish)
            problem = problem or error
            status = 2 if error else 1
            done.append(
                {"ActionType": name, "ActionStatus": status, "ActionResult": None, "Error": error}
            )
        answer = {
            "ClientVersion": VERSION,
            "ProcessedClientActions": done,
            "Errors": [problem] if problem else [],
        }
        await self._send(Content.HANDSHAKE_RESPONSE, json.dumps(answer).encode(), first=True)
        if problem:
            raise Unsupported(problem)


_CUT = "the session's connection was cut"


def _wish(wish: object) -> tuple[str, str]:
    """Its name, and why it is not granted; empty: it is."""
    said = wish if isinstance(wish, dict) else {}
    name, given = str(said.get("ActionType")), said.get("ActionParameters")
    if name == "KMSEncryption":
        return name, _ENCRYPTED
    kind = given.get("SessionType") if isinstance(given, dict) else None
    if name == "SessionType" and kind in _TYPES:
        return name, ""
    return name, f"the container's agent wants what is not known here: {name} {kind or ''}".strip()


async def _stay(*_: object) -> None:
    """Nobody but the one whom AWS has named is given the token."""
    raise Unavailable("the session cannot be opened: its address leads to another one")


async def connect(url: str, token: str) -> Session:
    """Opens the session that an answer of AWS names. Unavailable. The token is shown to nobody."""
    parts = urlsplit(url)
    if parts.scheme != "wss" and (parts.scheme != "ws" or parts.hostname not in _THIS_HOST):
        raise Unavailable("the session's address is not one of wss")
    tracing = aiohttp.TraceConfig()
    tracing.on_request_redirect.append(_stay)
    http = aiohttp.ClientSession(trust_env=parts.scheme == "wss", trace_configs=[tracing])
    try:
        async with asyncio.timeout(_CONNECT):
            socket = await http.ws_connect(url, autoping=False, max_msg_size=messages.LONGEST)
            await socket.send_str(
                json.dumps(
                    {
                        "MessageSchemaVersion": "1.0",
                        "RequestId": str(uuid4()),
                        "TokenValue": token,
                        "ClientId": str(uuid4()),
                        "ClientVersion": VERSION,
                    }
                )
            )
        return Session(http, socket)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        await http.close()
        # The address may have a signature: it is not told.
        raise Unavailable(f"the session cannot be opened: {type(error).__name__}") from None
    except BaseException:
        await http.close()
        raise
