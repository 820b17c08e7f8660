"""The SPDY frames: what is written is read, however it is cut; nonsense raises one error."""

from __future__ import annotations

import contextlib
import zlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.kubelet.streams import Malformed
from bridge.kubelet.streams.dictionary import HEADER_DICTIONARY
from bridge.kubelet.streams.spdy import (
    MAX_CONTROL,
    MAX_DATA,
    MAX_HEADERS,
    Data,
    Frame,
    FrameReader,
    FrameWriter,
    GoAway,
    Headers,
    Ping,
    RstStream,
    Settings,
    SynReply,
    SynStream,
    WindowUpdate,
)

few = settings(max_examples=40, deadline=None)
"""`make fuzz` does the rest."""

ids = st.integers(1, 2**31 - 1)
words = st.integers(1, 2**31 - 1)
names = st.text("abcdefghij-", min_size=1, max_size=12)
values = st.text(st.characters(max_codepoint=255), max_size=40)
headers = st.dictionaries(names, values, max_size=8)
frames = st.one_of(
    st.builds(
        SynStream, ids, headers, st.booleans(), st.booleans(), st.integers(0, 99), st.integers(0, 7)
    ),
    st.builds(SynReply, ids, headers, st.booleans()),
    st.builds(RstStream, ids, words),
    st.builds(
        Settings,
        st.lists(
            st.tuples(st.integers(0, 2**24 - 1), st.integers(0, 255), st.integers(0, 2**32 - 1)),
            max_size=4,
        ).map(tuple),
    ),
    st.builds(Ping, st.integers(1, 2**32 - 1)),
    st.builds(GoAway, st.integers(0, 2**31 - 1), st.integers(0, 3)),
    st.builds(Headers, ids, headers, st.booleans()),
    st.builds(WindowUpdate, ids, words),
    st.builds(Data, ids, st.binary(max_size=300), st.booleans()),
)


def written(parts: list[Frame]) -> bytes:
    writer = FrameWriter()
    return b"".join(map(writer.encode, parts))


def read(*pieces: bytes) -> list[Frame]:
    """All frames; pieces of the same data frame are joined."""
    reader = FrameReader()
    got: list[Frame] = []
    whole = True
    for piece in pieces:
        reader.feed(piece)
        while (frame := reader.next_frame()) is not None:
            last = got[-1] if got else None
            if isinstance(frame, Data) and isinstance(last, Data) and not whole:
                got[-1] = Data(frame.stream, last.content + frame.content, frame.fin)
            else:
                got.append(frame)
            whole = not reader._left
    return got


@few
@given(st.lists(frames, max_size=12))
def test_what_is_written_is_read(sent: list[Frame]) -> None:
    assert read(written(sent)) == sent


@few
@given(st.lists(frames, max_size=8), st.data())
def test_how_bytes_are_cut_changes_nothing(sent: list[Frame], data: st.DataObject) -> None:
    stream = written(sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20).map(sorted))
    pieces = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    assert read(*pieces) == sent


@few
@given(st.lists(frames, max_size=4))
def test_one_byte_at_a_time(sent: list[Frame]) -> None:
    stream = written(sent)
    assert read(*(stream[at : at + 1] for at in range(len(stream)))) == sent


def read_or_refuse(nonsense: bytes) -> None:
    """Any other error than the one leaves this, and fails the test."""
    with contextlib.suppress(Malformed):
        read(nonsense)


@few
@given(st.binary(max_size=400))
def test_nonsense_raises_one_error_or_waits_for_more(nonsense: bytes) -> None:
    read_or_refuse(nonsense)


@few
@given(st.lists(frames, min_size=1, max_size=4), st.data())
def test_damaged_frames_raise_one_error_or_none(sent: list[Frame], data: st.DataObject) -> None:
    stream = bytearray(written(sent))
    for _ in range(3):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    read_or_refuse(bytes(stream))


def control(kind: int, payload: bytes, flags: int = 0, version: int = 3) -> bytes:
    head = (0x8000 | version).to_bytes(2, "big") + kind.to_bytes(2, "big")
    return head + bytes([flags]) + len(payload).to_bytes(3, "big") + payload


def block(plain: bytes) -> bytes:
    deflate = zlib.compressobj(zdict=HEADER_DICTIONARY)
    return deflate.compress(plain) + deflate.flush(zlib.Z_SYNC_FLUSH)


def syn(plain: bytes) -> bytes:
    return control(1, (1).to_bytes(4, "big") + bytes(6) + block(plain))


def header(name: bytes, value: bytes = b"") -> bytes:
    return b"".join(len(text).to_bytes(4, "big") + text for text in (name, value))


ONE = (1).to_bytes(4, "big")
BROKEN = {
    "another version": (control(6, ONE, version=2), "version 2"),
    "an unknown type": (control(5, b""), "type 5"),
    "too long": (control(1, bytes(MAX_CONTROL + 1))[:8], "allowed are 65536"),
    "data for stream 0": (bytes(8), "stream 0"),
    "a stream 0": (control(3, bytes(8)), "stream 0"),
    "a reset without a status": (control(3, ONE + bytes(4)), "without a status"),
    "a ping without an id": (control(6, bytes(4)), "without an id"),
    "a short goaway": (control(7, bytes(4)), "instead of 8"),
    "flags on a ping": (control(6, ONE, flags=1), "flags 0x01"),
    "settings that say more": (control(4, ONE), "1 settings"),
    "a short stream": (control(1, bytes(4)), "only 4 bytes"),
    "no zlib": (control(1, ONE + bytes(6) + b"xxxx"), "zlib"),
    "an empty block": (control(2, ONE), "without its count"),
    "many headers": (syn((65).to_bytes(4, "big")), "65 headers"),
    "a header behind the end": (syn(ONE + header(b"a")[:-1]), "longer than its block"),
    "bytes behind the headers": (syn(bytes(4) + b"x"), "behind the last header"),
    "upper case": (syn(ONE + header(b"A")), "not lower case"),
    "the same name twice": (syn(b"\0\0\0\2" + 2 * header(b"a")), "there twice"),
    "a bomb": (syn(ONE + header(b"a", bytes(MAX_HEADERS * 100))), "more than 4096"),
    "an ended compression": (
        control(2, ONE + zlib.compress(bytes(4))),
        "compression of header blocks was ended",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_each_break_of_the_rules_has_its_words(case: str) -> None:
    stream, words_ = BROKEN[case]
    with pytest.raises(Malformed, match=words_):
        read(stream)


def test_a_large_data_frame_is_passed_on_in_pieces_and_never_held() -> None:
    reader = FrameReader()
    reader.feed((7).to_bytes(4, "big") + b"\1" + MAX_DATA.to_bytes(3, "big"))
    assert reader.next_frame() is None
    got = 0
    while got < MAX_DATA:
        size = min(100_000, MAX_DATA - got)
        reader.feed(bytes(size))
        piece = reader.next_frame()
        assert isinstance(piece, Data)
        got += len(piece.content)
        assert piece.fin == (got == MAX_DATA)
        assert not reader._buffer
    assert reader.next_frame() is None


def test_the_dictionary_is_that_of_the_draft() -> None:
    assert (len(HEADER_DICTIONARY), zlib.adler32(HEADER_DICTIONARY)) == (1423, 0xE3C6A7C2)
