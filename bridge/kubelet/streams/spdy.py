"""SPDY/3.1 frames: bytes in, frames out, and back. No I/O, no streams, no clock.

What is here is what Kubernetes speaks (moby/spdystream, SPDY draft 3.1): control frames with
version 3, header blocks in one zlib stream for each direction. Everything that is held is bounded:
a data frame's payload (up to 16 MiB, and clients do send that) is passed on in pieces as it
arrives, a control frame waits until it is whole and may have 64 KiB, a header block 4 KiB once
decompressed. Whatever breaks the rules raises `Malformed`, after which the connection is of no use:
a frame's end, or the state of the compression, is lost.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from bridge.kubelet.streams import Malformed
from bridge.kubelet.streams.dictionary import HEADER_DICTIONARY

VERSION = 3
MAX_CONTROL = 64 * 1024
"""Bytes of a control frame's payload. Those of Kubernetes have about a hundred."""
MAX_HEADERS = 4 * 1024
"""Bytes of a header block once decompressed; a bomb ends here."""
MAX_HEADER_COUNT = 64
"""Headers in one block. Kubernetes sends up to three."""
MAX_DATA = 2**24 - 1
"""Bytes in one data frame: the length field has 24 bits."""

FIN = 0x01
UNIDIRECTIONAL = 0x02

# Status codes of RST_STREAM (draft 3.1, section 2.6.3).
PROTOCOL_ERROR = 1
REFUSED_STREAM = 3
CANCEL = 5

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS = 1, 2, 3, 4
_PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE = 6, 7, 8, 9
_ID = 0x7FFFFFFF


@dataclass(frozen=True, slots=True)
class SynStream:
    """Opens a stream. Header names are lower case; several values are joined by NUL."""

    stream: int
    headers: Mapping[str, str] = field(default_factory=dict)
    fin: bool = False
    unidirectional: bool = False
    associated: int = 0
    priority: int = 0


@dataclass(frozen=True, slots=True)
class SynReply:
    """Accepts a stream."""

    stream: int
    headers: Mapping[str, str] = field(default_factory=dict)
    fin: bool = False


@dataclass(frozen=True, slots=True)
class RstStream:
    """Ends a stream both ways at once."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the other end, as (id, flags, value); none of them concerns us."""

    entries: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Ping:
    """Odd ids are a client's; whoever receives one of the other end's sends it back."""

    id: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """No stream will be opened any more."""

    last_stream: int = 0
    status: int = 0


@dataclass(frozen=True, slots=True)
class Headers:
    """More headers of a stream."""

    stream: int
    headers: Mapping[str, str] = field(default_factory=dict)
    fin: bool = False


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    """Credit for a stream, in bytes. spdystream sends none and heeds none."""

    stream: int
    delta: int


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a data frame: what has arrived of it. `fin` is only with a frame's last piece."""

    stream: int
    content: bytes
    fin: bool = False


Frame = SynStream | SynReply | RstStream | Settings | Ping | GoAway | Headers | WindowUpdate | Data


class FrameReader:
    """Bytes in, frames out::

        reader.feed(received)
        while (frame := reader.next_frame()) is not None:
            ...

    Frames are made one at a time, so that a bomb of small frames never stands in memory unpacked.
    How the bytes were cut changes nothing but the cuts between pieces of the same data frame.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=HEADER_DICTIONARY)
        self._stream = 0
        self._left = 0
        self._fin = False

    def feed(self, received: bytes) -> None:
        """Takes what was received. All frames should be taken before more is fed."""
        self._buffer += received

    def next_frame(self) -> Frame | None:
        """The next frame; None: more bytes are needed. Malformed: close the connection."""
        if self._left:
            return self._piece()
        if len(self._buffer) < 8:
            return None
        first, second = struct.unpack_from(">II", self._buffer)
        flags, length = second >> 24, second & 0xFFFFFF
        if first & ~_ID:
            return self._control(first, flags, length)
        if first == 0:
            raise Malformed("a data frame for stream 0")
        del self._buffer[:8]
        self._stream, self._left, self._fin = first, length, bool(flags & FIN)
        return self._piece() if length else Data(first, b"", self._fin)

    def _piece(self) -> Data | None:
        size = min(self._left, len(self._buffer))
        if not size:
            return None
        content = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        self._left -= size
        return Data(self._stream, content, self._fin and not self._left)

    def _control(self, first: int, flags: int, length: int) -> Frame | None:
        version, kind = (first >> 16) & 0x7FFF, first & 0xFFFF
        if version != VERSION:
            raise Malformed(f"a control frame of version {version}: allowed is {VERSION}")
        if length > MAX_CONTROL:
            raise Malformed(f"a control frame of {length} bytes: allowed are {MAX_CONTROL}")
        if len(self._buffer) < 8 + length:
            return None
        payload = bytes(memoryview(self._buffer)[8 : 8 + length])
        del self._buffer[: 8 + length]
        if kind in {_SYN_STREAM, _SYN_REPLY, _HEADERS}:
            return self._with_headers(kind, flags, payload)
        return _plain(kind, flags, payload)

    def _with_headers(self, kind: int, flags: int, payload: bytes) -> Frame:
        fixed = 10 if kind == _SYN_STREAM else 4
        if len(payload) < fixed:
            raise Malformed(f"a control frame of type {kind} has only {len(payload)} bytes")
        stream = _stream_id(payload)
        headers = _parse_headers(self._decompress(payload[fixed:]))
        fin = bool(flags & FIN)
        if kind == _SYN_REPLY:
            return SynReply(stream, headers, fin)
        if kind == _HEADERS:
            return Headers(stream, headers, fin)
        _, associated, priority = struct.unpack_from(">IIB", payload)
        one_way = bool(flags & UNIDIRECTIONAL)
        return SynStream(stream, headers, fin, one_way, associated & _ID, priority >> 5)

    def _decompress(self, block: bytes) -> bytes:
        try:
            plain = self._inflate.decompress(block, MAX_HEADERS + 1)
        except zlib.error:
            # zlib's own words quote nothing of the block, and help nobody either.
            raise Malformed("a header block that zlib cannot read") from None
        if len(plain) > MAX_HEADERS or self._inflate.unconsumed_tail:
            raise Malformed(f"a header block of more than {MAX_HEADERS} bytes")
        if self._inflate.eof:
            raise Malformed("the compression of header blocks was ended")
        return plain


class FrameWriter:
    """Frames in, bytes out. One for each connection: header blocks share their compression."""

    def __init__(self) -> None:
        # A window of 2 KiB holds the dictionary, and what is sent is a few bytes each: zlib's own
        # choice would cost each connection a quarter of a megabyte.
        self._deflate = zlib.compressobj(9, zlib.DEFLATED, 11, 1, zdict=HEADER_DICTIONARY)

    def encode(self, frame: Frame) -> bytes:
        """The bytes of a frame. Header blocks must be sent in the order they were encoded in."""
        match frame:
            case Data(stream, content, fin):
                return (
                    struct.pack(">II", stream, (FIN if fin else 0) << 24 | len(content)) + content
                )
            case SynStream(stream, headers, fin, one_way, associated, priority):
                flags = (FIN if fin else 0) | (UNIDIRECTIONAL if one_way else 0)
                fixed = struct.pack(">IIBB", stream, associated, priority << 5, 0)
                return _frame(_SYN_STREAM, flags, fixed + self._compress(headers))
            case SynReply(stream, headers, fin):
                block = stream.to_bytes(4, "big") + self._compress(headers)
                return _frame(_SYN_REPLY, FIN if fin else 0, block)
            case Headers(stream, headers, fin):
                block = stream.to_bytes(4, "big") + self._compress(headers)
                return _frame(_HEADERS, FIN if fin else 0, block)
            case RstStream(stream, status):
                return _frame(_RST_STREAM, 0, struct.pack(">II", stream, status))
            case Ping(number):
                return _frame(_PING, 0, number.to_bytes(4, "big"))
            case GoAway(last, status):
                return _frame(_GOAWAY, 0, struct.pack(">II", last, status))
            case WindowUpdate(stream, delta):
                return _frame(_WINDOW_UPDATE, 0, struct.pack(">II", stream, delta))
            case Settings(entries):
                words = [
                    struct.pack(">II", flags << 24 | key, value) for key, flags, value in entries
                ]
                return _frame(_SETTINGS, 0, len(entries).to_bytes(4, "big") + b"".join(words))

    def _compress(self, headers: Mapping[str, str]) -> bytes:
        block = bytearray(len(headers).to_bytes(4, "big"))
        for name, value in headers.items():
            for text in (name.encode("latin-1"), value.encode("latin-1")):
                block += len(text).to_bytes(4, "big") + text
        return self._deflate.compress(bytes(block)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def _frame(kind: int, flags: int, payload: bytes) -> bytes:
    head = struct.pack(">HHI", 0x8000 | VERSION, kind, flags << 24 | len(payload))
    return head + payload


def _stream_id(payload: bytes) -> int:
    stream = int.from_bytes(payload[:4], "big") & _ID
    if stream == 0:
        raise Malformed("a control frame for stream 0")
    return stream


def _plain(kind: int, flags: int, payload: bytes) -> Frame:
    if kind == _SETTINGS:
        return _settings(payload)
    size = {_RST_STREAM: 8, _PING: 4, _GOAWAY: 8, _WINDOW_UPDATE: 8}.get(kind)
    if size is None:
        raise Malformed(f"a control frame of type {kind}")
    if len(payload) != size:
        raise Malformed(
            f"a control frame of type {kind} has {len(payload)} bytes instead of {size}"
        )
    if flags:
        raise Malformed(f"a control frame of type {kind} with flags {flags:#04x}")
    first = int.from_bytes(payload[:4], "big")
    second = int.from_bytes(payload[4:], "big")
    if kind == _PING:
        if first == 0:
            raise Malformed("a ping without an id")
        return Ping(first)
    if kind == _GOAWAY:
        return GoAway(first & _ID, second)
    stream = _stream_id(payload)
    if kind == _RST_STREAM:
        if second == 0:
            raise Malformed("a reset without a status")
        return RstStream(stream, second)
    return WindowUpdate(stream, second & _ID)


def _settings(payload: bytes) -> Settings:
    count = int.from_bytes(payload[:4], "big")
    if len(payload) < 4 or len(payload) != 4 + 8 * count:
        raise Malformed(f"{count} settings in {len(payload)} bytes")
    words = struct.iter_unpack(">II", payload[4:])
    return Settings(tuple((key & 0xFFFFFF, key >> 24, value) for key, value in words))


def _parse_headers(block: bytes) -> dict[str, str]:
    if len(block) < 4:
        raise Malformed("a header block without its count")
    count = int.from_bytes(block[:4], "big")
    if count > MAX_HEADER_COUNT:
        raise Malformed(f"{count} headers in one block: allowed are {MAX_HEADER_COUNT}")
    headers: dict[str, str] = {}
    at = 4
    for _ in range(count):
        name, at = _text(block, at)
        value, at = _text(block, at)
        if not name or name != name.lower() or name in headers:
            raise Malformed("a header's name that is empty, not lower case, or there twice")
        headers[name] = value
    if at != len(block):
        raise Malformed(f"{len(block) - at} bytes behind the last header")
    return headers


def _text(block: bytes, at: int) -> tuple[str, int]:
    end = at + 4 + int.from_bytes(block[at : at + 4], "big")
    if at + 4 > len(block) or end > len(block):
        raise Malformed("a header that is longer than its block")
    return block[at + 4 : end].decode("latin-1"), end
