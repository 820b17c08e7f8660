"""`fargate`: the messages of a session as bytes, and a command as ECS takes it. No simulator."""

from __future__ import annotations

import hashlib
import shlex
import struct
from contextlib import suppress
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.fargate.command import quoted
from adapters.fargate.messages import (
    INPUT,
    OUTPUT,
    Message,
    acknowledged,
    acknowledgement,
    decode,
    encode,
    said,
)
from bridge.errors import Unavailable
from bridge.groups.wrapper import wrapped

WORD = "0123456789abcdef"
WHOLE = st.builds(
    Message,
    kind=st.sampled_from([INPUT, OUTPUT, "acknowledge", "channel_closed"]),
    payload=st.binary(max_size=2000),
    content=st.integers(0, 2**32 - 1),
    sequence=st.integers(-(2**63), 2**63 - 1),
    flags=st.integers(0, 2**64 - 1),
    id=st.uuids(),
    created=st.integers(0, 2**64 - 1),
    schema=st.integers(0, 2**32 - 1),
)


@given(WHOLE)
def test_a_message_survives_the_wire(message: Message) -> None:
    assert decode(encode(message)) == message


def test_the_fields_are_where_the_agent_has_them() -> None:
    id_ = UUID("00112233-4455-6677-8899-aabbccddeeff")
    data = encode(Message(INPUT, b"ls\n", 1, 7, 3, id_, 1_700_000_000_000))
    assert data[:4] == struct.pack(">I", 116)
    assert data[4:36] == b"input_stream_data               "
    assert struct.unpack(">IQqQ", data[36:64]) == (1, 1_700_000_000_000, 7, 3)
    assert data[64:80].hex() == "8899aabbccddeeff0011223344556677"
    assert data[80:112] == hashlib.sha256(b"ls\n").digest()
    assert struct.unpack(">II", data[112:120]) == (1, 3)
    assert data[120:] == b"ls\n"


@given(WHOLE, st.data())
def test_a_torn_message_is_none(message: Message, draw: st.DataObject) -> None:
    data = encode(message)
    cut = draw.draw(st.integers(0, len(data) - 1))
    with pytest.raises(Unavailable):
        decode(data[:cut])
    with pytest.raises(Unavailable):
        decode(data + b"x")


@given(WHOLE.filter(lambda one: bool(one.payload)), st.data())
def test_another_payload_is_noticed(message: Message, draw: st.DataObject) -> None:
    data = bytearray(encode(message))
    at = draw.draw(st.integers(120, len(data) - 1))
    data[at] ^= draw.draw(st.integers(1, 255))
    with pytest.raises(Unavailable):
        decode(bytes(data))


@given(st.binary(max_size=400))
def test_garbage_is_a_clear_error(data: bytes) -> None:
    with pytest.raises(Unavailable, match="a message of the session"):
        decode(data)


@given(st.binary(max_size=200))
def test_a_payload_that_is_no_object(data: bytes) -> None:
    with suppress(Unavailable):
        assert isinstance(said(Message("channel_closed", data)), dict)


def test_acknowledgements() -> None:
    message = Message(OUTPUT, b"x", 1, 9)
    answer = acknowledgement(message)
    assert (acknowledged(answer), answer.flags, answer.kind) == (9, 3, "acknowledge")
    assert said(answer)["AcknowledgedMessageId"] == str(message.id)
    for payload in (b"", b"[]", b"{}", b'{"AcknowledgedMessageSequenceNumber": "1"}', b"\xff"):
        with pytest.raises(Unavailable):
            acknowledged(Message("acknowledge", payload))


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"))
        | st.text("{}'\"\\ #$`\n", max_size=12),
        max_size=5,
    )
)
def test_arguments_arrive_as_they_are(rest: list[str]) -> None:
    asked = quoted(wrapped(["ls", *rest], WORD, stdin=False, tty=False))
    # What Systems Manager takes for a parameter's name.
    assert "{{" not in asked
    words = shlex.split(asked)
    assert words[:2] == ["sh", "-c"]
    assert words[3:] == ["podbridge", "ls", *rest]
