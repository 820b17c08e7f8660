"""The messages of Session Manager's data channel, as bytes. Pure.

Written from what AWS publishes of them in its agent and its plugin for the AWS CLI. All numbers are
big-endian:

    4  length of the header: of all before the payload's length    8  sequence number
   32  type, filled up with spaces (or NULs)                       8  flags: 1 first, 2 last
    4  version of the schema                                      16  UUID, its halves swapped
    8  created: milliseconds since the epoch                      32  SHA-256 of the payload
    4  type of the payload          4  length of the payload       n  the payload
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any
from uuid import UUID, uuid4

from bridge.errors import Unavailable

INPUT, OUTPUT, ACKNOWLEDGE = "input_stream_data", "output_stream_data", "acknowledge"
CLOSED, START, PAUSE = "channel_closed", "start_publication", "pause_publication"

_HEADER = struct.Struct(">I32sIQqQ16s32sI")
_LENGTH = struct.Struct(">I")
LONGEST = 64 * 1024
"""Bytes of a message that are taken; an agent's have about 1,200."""
_ALONE = 3
"""The flags of a message that is no part of a stream."""


class Content(IntEnum):
    """What a payload is."""

    OUTPUT = 1
    """Bytes of the terminal, in either direction."""
    ERROR = 2
    SIZE = 3
    HANDSHAKE_REQUEST = 5
    HANDSHAKE_RESPONSE = 6
    HANDSHAKE_COMPLETE = 7
    CHALLENGE = 8
    """The agent wants what it says encrypted."""
    STDERR = 11


@dataclass(frozen=True, slots=True)
class Message:
    """One message."""

    kind: str
    payload: bytes = b""
    content: int = 0
    sequence: int = 0
    flags: int = 0
    id: UUID = field(default_factory=uuid4)
    created: int = field(default_factory=lambda: int(time.time() * 1000))
    schema: int = 1


def encode(message: Message) -> bytes:
    """Its bytes."""
    head = _HEADER.pack(
        _HEADER.size,
        message.kind.encode().ljust(32),
        message.schema,
        message.created,
        message.sequence,
        message.flags,
        message.id.bytes[8:] + message.id.bytes[:8],
        hashlib.sha256(message.payload).digest(),
        message.content,
    )
    return head + _LENGTH.pack(len(message.payload)) + message.payload


def decode(data: bytes) -> Message:
    """The message in these bytes. Unavailable: they are none, or not all of one."""
    if len(data) < _HEADER.size + _LENGTH.size:
        raise Unavailable(f"a message of the session has {len(data)} bytes: it was torn")
    size, kind, schema, created, sequence, flags, swapped, digest, content = _HEADER.unpack_from(
        data
    )
    # Whoever comes after us may add fields at the header's end.
    begin = size + _LENGTH.size
    (length,) = _LENGTH.unpack_from(data, _HEADER.size)
    if size < _HEADER.size or begin + length != len(data):
        raise Unavailable("a message of the session has other lengths than it says")
    payload = data[begin:]
    if payload and hashlib.sha256(payload).digest() != digest:
        raise Unavailable("a message of the session has another content than it says")
    try:
        name = kind.strip(b" \0").decode("ascii")
    except UnicodeDecodeError:
        raise Unavailable("a message of the session is of no type") from None
    identifier = UUID(bytes=swapped[8:] + swapped[:8])
    return Message(name, payload, content, sequence, flags, identifier, created, schema)


def acknowledgement(of: Message) -> Message:
    """What its sender waits for."""
    said = {
        "AcknowledgedMessageType": of.kind,
        "AcknowledgedMessageId": str(of.id),
        "AcknowledgedMessageSequenceNumber": of.sequence,
        "IsSequentialMessage": True,
    }
    return Message(ACKNOWLEDGE, json.dumps(said).encode(), flags=_ALONE)


def acknowledged(message: Message) -> int:
    """The sequence number that an acknowledgement is about. Unavailable: it says none."""
    found = said(message).get("AcknowledgedMessageSequenceNumber")
    if not isinstance(found, int):
        raise Unavailable("an acknowledgement of the session names no message")
    return found


def said(message: Message) -> Mapping[str, Any]:
    """A payload that is an object of JSON. Unavailable: it is none."""
    try:
        found = json.loads(message.payload)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Unavailable(f"a message of the session ({message.kind}) makes no sense")
    return found
