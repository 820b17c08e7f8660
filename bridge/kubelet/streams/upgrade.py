"""From a request to its streams: which protocol it is to be, and who says no.

The answers are those of the kubelet (k8s.io/kubelet/pkg/cri/streaming, apimachinery's httpstream
and wsstream): 400 where a header is missing or wrong, 403 where no protocol is spoken by both ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from aiohttp import hdrs, web

from bridge.kubelet.streams import Forwarding, RemoteCommand, Wanted
from bridge.kubelet.streams import websocket as wire
from bridge.kubelet.streams.command import ChannelCommand, SpdyCommand
from bridge.kubelet.streams.forward import ChannelForwarding, SpdyForwarding, parse_port
from bridge.kubelet.streams.link import LINGER, Link, SocketLink, WebSocketLink

IDLE = 4 * 3600.0
"""Seconds without a byte after which a connection ends. The kubelet's
streamingConnectionIdleTimeout."""
CREATION = 30.0
"""Seconds for the client to open its streams (remotecommand.DefaultStreamCreationTimeout)."""
MAX_MESSAGE = 32 * 1024 * 1024
"""Bytes of a WebSocket message: client-go sends a whole buffer as one. The kubelet's limit
(golang.org/x/net/websocket, DefaultMaxPayloadBytes)."""
MAX_PORTS = 32
"""Ports of a port-forward over channels, whose numbers have one byte (or one character)."""

_SPDY = "SPDY/3.1"
_VERSION = "X-Stream-Protocol-Version"
_ACCEPTED = "X-Accepted-Stream-Protocol-Versions"
_COMMANDS = {
    "v4.channel.k8s.io": 4,
    "v3.channel.k8s.io": 3,
    "v2.channel.k8s.io": 2,
    "channel.k8s.io": 1,
}
_FORWARD = "portforward.k8s.io"
_TUNNEL = f"{_SPDY}+{_FORWARD}"


async def command(
    request: web.Request, wanted: Wanted, *, idle: float = IDLE, creation: float = CREATION
) -> RemoteCommand | web.StreamResponse:
    """The streams of an exec or attach; or, where there will be none, what the handler must
    return: a refusal, or the end of a connection whose client opened too few streams.
    ConnectionResetError: the client has gone."""
    if _is_websocket(request):
        protocol = _channels(request, wire.COMMAND)
        if isinstance(protocol, web.Response):
            return protocol
        accepted = await _accept(request, protocol.name, idle, text=protocol.base64)
        if isinstance(accepted, web.Response):
            return accepted
        over_channels = ChannelCommand(*accepted, wanted, protocol)
        over_channels.open()
        return over_channels
    name = _spdy_protocol(request, list(_COMMANDS))
    if isinstance(name, web.Response):
        return name
    response, link = await _hijack(request, name, idle)
    over_spdy = SpdyCommand(response, link, wanted, _COMMANDS[name])
    return over_spdy if await over_spdy.open(creation) else response


async def forward(
    request: web.Request, *, idle: float = IDLE, creation: float = CREATION
) -> Forwarding | web.StreamResponse:
    """The connections of a port-forward; or what the handler must return, as `command` has it."""
    if not _is_websocket(request):
        name = _spdy_protocol(request, [_FORWARD])
        if isinstance(name, web.Response):
            return name
        over_spdy = SpdyForwarding(*await _hijack(request, name, idle), creation)
        over_spdy.open()
        return over_spdy
    if _TUNNEL in _offered(request):
        accepted = await _accept(request, _TUNNEL, idle)
        if isinstance(accepted, web.Response):
            return accepted
        tunnelled = SpdyForwarding(*accepted, creation)
        tunnelled.open()
        return tunnelled
    return await _forward_channels(request, idle)


async def _forward_channels(request: web.Request, idle: float) -> Forwarding | web.StreamResponse:
    ports = _ports(request.query.getall("port", []))
    if isinstance(ports, str):
        return _refuse(400, ports)
    protocol = _channels(request, wire.FORWARD)
    if isinstance(protocol, web.Response):
        return protocol
    accepted = await _accept(request, protocol.name, idle, text=protocol.base64)
    if isinstance(accepted, web.Response):
        return accepted
    forwarding = ChannelForwarding(*accepted, protocol, ports)
    forwarding.open()
    return forwarding


async def _hijack(
    request: web.Request, protocol: str, idle: float
) -> tuple[web.StreamResponse, SocketLink]:
    transport = request.transport
    if not isinstance(transport, asyncio.Transport):
        raise ConnectionResetError("the other end has gone")
    headers = {hdrs.CONNECTION: "Upgrade", hdrs.UPGRADE: _SPDY, _VERSION: protocol}
    response = web.StreamResponse(status=101, reason="Switching Protocols", headers=headers)
    response.force_close()
    # Before the client may speak SPDY: aiohttp would read that as its next request.
    link = SocketLink(transport, idle)
    _abort_with(request, link)
    await response.prepare(request)
    return response, link


async def _accept(
    request: web.Request, protocol: str, idle: float, *, text: bool = False
) -> tuple[web.StreamResponse, WebSocketLink] | web.Response:
    if request.headers.get(hdrs.SEC_WEBSOCKET_VERSION) != "13":
        refusal = _refuse(
            426, "unable to upgrade: allowed is version 13 of WebSocket", upgrade=True
        )
        refusal.headers[hdrs.SEC_WEBSOCKET_VERSION] = "13"
        return refusal
    # No compression: it holds a window for each connection, and unpacks bombs.
    socket = web.WebSocketResponse(
        protocols=[protocol] if protocol else [],
        compress=False,
        max_msg_size=MAX_MESSAGE,
        timeout=LINGER,
    )
    try:
        await socket.prepare(request)
    except web.HTTPException as error:
        return _refuse(error.status, f"unable to upgrade: {error.text}")
    link = WebSocketLink(socket, request.transport, idle, text=text)
    _abort_with(request, link)
    return socket, link


def _abort_with(request: web.Request, link: Link) -> None:
    # Whoever answers the request may fail before it finishes the streams: nothing outlives it.
    request.task.add_done_callback(lambda _: link.abort())


def _is_upgrade(request: web.Request) -> bool:
    return any("upgrade" in value.lower() for value in request.headers.getall(hdrs.CONNECTION, []))


def _is_websocket(request: web.Request) -> bool:
    return _is_upgrade(request) and request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"


def _offered(request: web.Request) -> list[str]:
    return _listed(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, []))


def _listed(values: Iterable[str]) -> list[str]:
    return [name for value in values for part in value.split(",") if (name := part.strip())]


def _channels(
    request: web.Request, spoken: Sequence[wire.Protocol]
) -> wire.Protocol | web.Response:
    offered = _offered(request) or [""]
    by_name = {protocol.name: protocol for protocol in spoken}
    for name in offered:
        if name in by_name:
            return by_name[name]
    return _refuse(
        403,
        f"unable to upgrade: requested protocol(s) are not supported: {_quoted(offered)}; "
        f"supports {_quoted(by_name)}",
    )


def _spdy_protocol(request: web.Request, spoken: Sequence[str]) -> str | web.Response:
    """The protocol to speak over SPDY; the client's first that is spoken here."""
    if not _is_upgrade(request):
        return _refuse(400, "unable to upgrade: the request asks for no upgrade", upgrade=True)
    if _SPDY.lower() not in request.headers.get(hdrs.UPGRADE, "").lower():
        return _refuse(400, f"unable to upgrade: allowed are {_SPDY} and websocket", upgrade=True)
    if request.can_read_body:
        return _refuse(400, "unable to upgrade: the request has a body")
    if _VERSION not in request.headers:
        return _refuse(400, f"unable to upgrade: header {_VERSION} does not exist in request")
    offered = _listed(request.headers.getall(_VERSION))
    if not offered:
        return _refuse(400, f"unable to upgrade: header {_VERSION} names no protocol")
    for name in offered:
        if name in spoken:
            return name
    refusal = _refuse(
        403,
        "unable to upgrade: unable to negotiate protocol: client supports "
        f"{_quoted(offered)}, server accepts {_quoted(spoken)}",
    )
    for name in spoken:
        refusal.headers.add(_ACCEPTED, name)
    return refusal


def _ports(values: Sequence[str]) -> list[int] | str:
    """The ports of a query, or what is wrong with them."""
    if not values:
        return 'query parameter "port" is required'
    ports: list[int] = []
    for text in (part for value in values for part in value.split(",")):
        port = parse_port(text)
        if port is None:
            return f'unable to parse "{text[:32]}" as a port: allowed are 1 to 65535'
        ports.append(port)
    if len(ports) > MAX_PORTS:
        return f"{len(ports)} ports: allowed are {MAX_PORTS}"
    return ports


def _quoted(names: Iterable[str]) -> str:
    """A list of protocols for an answer; what a client sends may be long."""
    return "[" + " ".join(f'"{name[:64]}"' for name in list(names)[:16]) + "]"


def _refuse(status: int, text: str, *, upgrade: bool = False) -> web.Response:
    headers = {hdrs.UPGRADE: f"{_SPDY}, websocket"} if upgrade else None
    return web.Response(status=status, text=text + "\n", headers=headers)
