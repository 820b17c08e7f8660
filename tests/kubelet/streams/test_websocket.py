"""The channel protocols' messages, and the terminal's sizes."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.kubelet.streams import FRAME, Malformed
from bridge.kubelet.streams.inbox import ALL_WINDOWS, WINDOW, Gate
from bridge.kubelet.streams.sizes import Sizes
from bridge.kubelet.streams.websocket import COMMAND, FORWARD, Piece, Protocol, decode, encode

PROTOCOLS = {protocol.name: protocol for protocol in COMMAND}
V5 = PROTOCOLS["v5.channel.k8s.io"]
BASE64 = PROTOCOLS["v4.base64.channel.k8s.io"]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(COMMAND + FORWARD), st.integers(0, 4), st.binary(max_size=200))
def test_what_is_encoded_is_decoded(protocol: Protocol, channel: int, content: bytes) -> None:
    assert decode(protocol, 5, encode(protocol, channel, content)) == Piece(channel, content)


@pytest.mark.parametrize(
    ("protocol", "message", "expected"),
    [
        (V5, b"", None),
        (V5, b"\0", Piece(0, b"")),
        (V5, b"\0abc", Piece(0, b"abc")),
        (V5, b"\xff\0", Piece(0, b"", end=True)),
        (V5, b"\5abc", None),
        (PROTOCOLS["v4.channel.k8s.io"], b"\xff\0", None),
        (BASE64, b"0Zm9v\nCg==", Piece(0, b"foo\n")),
        (BASE64, b"9Zm9v", None),
        (BASE64, b"\0Zm9v", None),
    ],
)
def test_messages(protocol: Protocol, message: bytes, expected: Piece | None) -> None:
    assert decode(protocol, 5, message) == expected


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (V5, b"\xff"),
        (V5, b"\xff\0\0"),
        (V5, b"\xff\5"),
        (BASE64, b"0Zm9"),
        (BASE64, b"0\xff\xff=="),
    ],
)
def test_malformed_messages(protocol: Protocol, message: bytes) -> None:
    with pytest.raises(Malformed):
        decode(protocol, 5, message)


async def sizes(*pieces: bytes) -> list[tuple[int, int]]:
    reader = Sizes()
    for piece in pieces:
        reader.put(piece)
    reader.end()
    got = []
    while (size := await reader.read()) is not None:
        got.append(size)
    return got


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b'{"Width":80,"Height":24}\n'], [(80, 24)]),
        ([b'{"Width":8', b'0,"Height":24}{"width":1,"height":2}'], [(80, 24), (1, 2)]),
        ([b'{"Width":80}'], [(80, 0)]),
        ([b'{"Width":1,"Height":2}', b'["x"}', b'{"Width":3,"Height":4}'], [(1, 2)]),
        ([b'{"Width":65536}'], []),
        ([b'{"Width":-1}'], []),
        ([b'{"Width":1.5}'], []),
        ([b'{"Width":true}'], []),
        ([b"[" * 5000, b"}"], []),
        ([b" " * 300, b'{"Width":1,"Height":2}'], []),
        ([b'{"Width":1,"Height":%d}' % row for row in range(40)], [(1, r) for r in range(24, 40)]),
    ],
)
async def test_sizes(pieces: list[bytes], expected: list[tuple[int, int]]) -> None:
    assert await sizes(*pieces) == expected


async def test_a_reader_of_sizes_waits_for_the_next() -> None:
    reader = Sizes()
    waiting = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    reader.put(b'{"Width":1,"Height":2}')
    assert await waiting == (1, 2)


class Tap:
    def __init__(self) -> None:
        self.held = False

    def hold(self) -> None:
        self.held = True

    def go_on(self) -> None:
        self.held = False


async def test_one_full_inbox_holds_and_reading_it_goes_on() -> None:
    tap = Tap()
    inbox = Gate(tap).inbox(1)
    inbox.put(bytes(WINDOW))
    assert not tap.held
    inbox.put(b"x")
    assert tap.held
    while tap.held:
        assert len(await inbox.read()) == FRAME
    inbox.put(bytes(WINDOW))
    assert tap.held
    inbox.drop()
    assert not tap.held


async def test_many_inboxes_that_are_not_full_hold_too() -> None:
    tap = Tap()
    gate = Gate(tap)
    inboxes = [gate.inbox(number) for number in range(ALL_WINDOWS // WINDOW + 1)]
    for inbox in inboxes:
        assert not tap.held
        inbox.put(bytes(WINDOW))
    assert tap.held
    for inbox in inboxes:
        inbox.drop()
    assert not tap.held


async def test_small_pieces_are_joined_and_the_order_stays() -> None:
    inbox = Gate(Tap()).inbox(1)
    sent = [bytes([n % 256]) * (n % 5) for n in range(2000)]
    sent[1000:1000] = [bytes(5000), bytes(70_000)]
    for piece in sent:
        inbox.put(piece)
    inbox.end()
    got = []
    while content := await inbox.read():
        got.append(content)
    assert b"".join(got) == b"".join(sent)
    assert len(got) < 10


async def test_an_error_comes_behind_what_was_received() -> None:
    inbox = Gate(Tap()).inbox(1)
    inbox.put(b"abc")
    inbox.end("cut off")
    inbox.put(b"more")
    assert await inbox.read() == b"abc"
    with pytest.raises(ConnectionResetError, match="cut off"):
        await inbox.read()
