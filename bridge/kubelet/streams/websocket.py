"""Kubernetes' channel protocols: WebSocket messages in, (channel, bytes) out, and back. No I/O.

Each message carries a channel's number and bytes of it: the number as a byte in front of the bytes
(`channel.k8s.io`), or as a digit in front of their base64 (`base64.channel.k8s.io`). Version 5 adds
the end of a channel: the byte 255 and the channel's number. From wsstream of apimachinery.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from bridge.kubelet.streams import Malformed

_CLOSE = 255


@dataclass(frozen=True, slots=True)
class Protocol:
    """One of the channel protocols."""

    name: str
    """What WebSocket negotiates; empty where the client asks for nothing."""
    base64: bool = False
    status: bool = False
    """How it ended is told as a Status in JSON: since version 4. Before, only a failure's text."""
    closes: bool = False
    """One channel can end before the others: since version 5."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a channel, or its end."""

    channel: int
    content: bytes
    end: bool = False


COMMAND = (
    Protocol("v5.channel.k8s.io", status=True, closes=True),
    Protocol("v4.channel.k8s.io", status=True),
    Protocol("v4.base64.channel.k8s.io", base64=True, status=True),
    Protocol("channel.k8s.io"),
    Protocol("base64.channel.k8s.io", base64=True),
    Protocol(""),
)
"""Those of exec and attach."""

FORWARD = (
    Protocol("v4.channel.k8s.io"),
    Protocol("v4.base64.channel.k8s.io", base64=True),
    Protocol(""),
)
"""Those of port-forward."""


def decode(protocol: Protocol, channels: int, message: bytes) -> Piece | None:
    """What a message carries; None: nothing that concerns anybody (as the kubelet has it, an empty
    message, or a channel that is not there). Malformed: close the connection."""
    if not message:
        return None
    if protocol.closes and message[0] == _CLOSE:
        if len(message) != 2 or message[1] >= channels:
            raise Malformed("a channel's end that names no channel")
        return Piece(message[1], b"", end=True)
    channel = message[0] - ord("0") if protocol.base64 else message[0]
    if not 0 <= channel < channels:
        return None
    return Piece(channel, _unpack(message[1:]) if protocol.base64 else message[1:])


def encode(protocol: Protocol, channel: int, content: bytes) -> bytes:
    """The message that carries a channel's bytes (ASCII text in the base64 protocols)."""
    if protocol.base64:
        return bytes([ord("0") + channel]) + base64.b64encode(content)
    return bytes([channel]) + content


def _unpack(text: bytes) -> bytes:
    try:
        return base64.b64decode(text.replace(b"\n", b"").replace(b"\r", b""), validate=True)
    except binascii.Error:
        raise Malformed("a message that is not base64") from None
