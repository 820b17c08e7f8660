"""Messages of Session Manager's data channel, as the SSM agent and its plugin write them.

Source: `AgentMessage` in the sources of amazon-ssm-agent and session-manager-plugin: big endian;
the header ends where the payload's length stands.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from dataclasses import dataclass, field
from enum import IntEnum

HEADER = 116
"""Bytes before the payload's length."""
_FORMAT = ">I32sIQQQ16s32sI"
INPUT, OUTPUT = "input_stream_data", "output_stream_data"
ACKNOWLEDGE, CLOSED = "acknowledge", "channel_closed"


class Payload(IntEnum):
    """What a stream message carries."""

    NONE = 0
    OUTPUT = 1
    """Bytes of the terminal, in either direction."""
    ERROR = 2
    SIZE = 3
    HANDSHAKE_REQUEST = 5
    HANDSHAKE_RESPONSE = 6
    HANDSHAKE_COMPLETE = 7
    FLAG = 10


TERMINATE = 2
"""A flag's value: the client ends the session."""


class Malformed(ValueError):
    """Bytes that are no message."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `created` in milliseconds since the epoch; `flags`: 1 first, 2 last."""

    type: str
    sequence: int
    payload: bytes = field(repr=False)
    kind: int = Payload.NONE
    created: int = 0
    flags: int = 0
    id: uuid.UUID = field(default_factory=uuid.uuid4)


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    header = struct.pack(
        _FORMAT,
        HEADER,
        message.type.encode().ljust(32),
        1,
        message.created,
        message.sequence,
        message.flags,
        _swapped(message.id.bytes),
        hashlib.sha256(message.payload).digest(),
        message.kind,
    )
    return header + struct.pack(">I", len(message.payload)) + message.payload


def decode(data: bytes) -> Message:
    """The message of these bytes. Malformed."""
    try:
        length, name, _, created, sequence, flags, id_, digest, kind = struct.unpack_from(
            _FORMAT, data
        )
        (size,) = struct.unpack_from(">I", data, length)
    except struct.error as error:
        raise Malformed(str(error)) from None
    payload = data[length + 4 : length + 4 + size]
    if len(payload) != size or (size and hashlib.sha256(payload).digest() != digest):
        raise Malformed("the payload is not what its header says")
    return Message(
        name.rstrip(b" \0").decode("ascii", "replace"),
        sequence,
        payload,
        kind,
        created,
        flags,
        uuid.UUID(bytes=_swapped(id_)),
    )


def _swapped(id_: bytes) -> bytes:
    """The lower half of an ID stands first."""
    return id_[8:] + id_[:8]
