"""Archives that a container made to do harm."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.cli.archive import HEADERS, Corrupted, Unpacker

MIB = 1024 * 1024
EXTENSIONS = [b"L", b"K", b"x", b"g", b"X"]


class Endless:
    """A stream that begins with these bytes and goes on with zeros; how much of it was read."""

    def __init__(self, start: bytes, length: int) -> None:
        self._start = io.BytesIO(start)
        self._left = length
        self.read_bytes = 0

    def read(self, size: int, /) -> bytes:
        data = self._start.read(size)
        if not data:
            data = bytes(min(size, self._left))
            self._left -= len(data)
        self.read_bytes += len(data)
        return data


def _header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def _pax(kind: bytes, **records: str) -> bytes:
    made = b""
    for key, value in records.items():
        rest = f" {key.replace('_', '.')}={value}\n".encode()
        length = len(rest) + 1
        while len(rest) + len(str(length)) != length:
            length = len(rest) + len(str(length))
        made += str(length).encode() + rest
    return _header("pax", kind, len(made)) + _padded(made)


def _file(name: str, content: bytes = b"x") -> bytes:
    return _header(name, size=len(content)) + _padded(content)


END = bytes(1024)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def unpacker(tmp_path: Path, warnings: list[str]) -> Unpacker:
    return Unpacker("d", tmp_path / "to", True, warnings.append)


@pytest.mark.parametrize("kind", EXTENSIONS)
def test_a_long_header_is_refused_unread(unpacker: Unpacker, kind: bytes) -> None:
    stream = Endless(_header("long", kind, 300 * MIB), 400 * MIB)

    with pytest.raises(Corrupted, match="headers of more than 1048576 bytes"):
        unpacker.unpack(stream)

    assert stream.read_bytes < MIB


@pytest.mark.parametrize(
    ("each", "between"),
    [
        pytest.param(_header("l", b"L", 400_000) + _padded(bytes(400_000)), b"", id="one member"),
        pytest.param(_pax(b"g", comment="c" * 400_000), _file("d/x"), id="all members share them"),
    ],
)
def test_many_headers_are_no_longer_than_one_may_be(
    unpacker: Unpacker, each: bytes, between: bytes
) -> None:
    with pytest.raises(Corrupted, match="headers of more than"):
        unpacker.unpack(io.BytesIO((each + between) * 3 + _file("d/y") + END))


def test_a_header_below_zero_makes_no_room_for_another(unpacker: Unpacker) -> None:
    start = _header("l", b"L", -300 * MIB) + _header("l", b"L", 300 * MIB)
    stream = Endless(start, 400 * MIB)

    with pytest.raises(Corrupted, match="has a size below zero"):
        unpacker.unpack(stream)

    assert stream.read_bytes < MIB


@pytest.mark.parametrize("kind", [b"x", b"g", b"X"])
def test_a_header_of_digits_takes_no_time(unpacker: Unpacker, kind: bytes) -> None:
    digits = _pax(kind, comment="1" * 900_000)

    with pytest.raises(Corrupted, match="a number of 512 digits"):
        unpacker.unpack(io.BytesIO(digits + _file("d/x") + END))


def test_headers_up_to_the_limit_are_read(tmp_path: Path, unpacker: Unpacker) -> None:
    name = "d/" + "n" * 200
    text = _padded(name.encode())
    most = _pax(b"x", comment="c" * (HEADERS - 1000))

    unpacker.unpack(
        io.BytesIO(
            (_header("l", b"L", len(name)) + text + _file("cut", b"1"))
            + (most + _file("d/a", b"2"))
            + (most + _file("d/b", b"3"))
            + END
        )
    )

    found = {one.name: one.read_bytes() for one in (tmp_path / "to").iterdir()}
    assert found == {"n" * 200: b"1", "a": b"2", "b": b"3"}


@pytest.mark.parametrize("kind", EXTENSIONS)
def test_a_chain_of_headers_is_corrupted(unpacker: Unpacker, kind: bytes) -> None:
    link = _header("l", kind, 0)

    with pytest.raises(Corrupted, match="tar contents corrupted"):
        unpacker.unpack(io.BytesIO(link * 2000 + _file("d/x") + END))


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(_pax(b"x", size="-1024") + _file("d/x"), id="size below zero"),
        pytest.param(_header("d/x", size=-4096), id="size below zero in the header"),
        pytest.param(_header("l", b"L", -4096), id="extension below zero"),
        pytest.param(_padded(b"not a header") + _file("d/x"), id="no header"),
        pytest.param(_file("d/x") + _padded(b"not a header") + END, id="no second header"),
        pytest.param(_file("d/x") + _file("d/y")[:300], id="half a second header"),
        pytest.param(_pax(b"x", hdrcharset="B")[:-512] + b"9 " + b"\xff" * 510, id="bytes"),
        pytest.param(_header("d/z", b"Z", 2**60), id="unknown kind that never ends"),
        pytest.param(_header("d/x", size=2**60), id="file that never ends"),
        pytest.param(_header("d/s", b"S", 512)[:482] + b"\1" + bytes(29), id="bad checksum"),
    ],
)
def test_broken_archives_are_corrupted(unpacker: Unpacker, broken: bytes) -> None:
    with pytest.raises(Corrupted, match="tar contents corrupted"):
        unpacker.unpack(io.BytesIO(broken))


@pytest.mark.parametrize("field", ["path", "linkpath"])
def test_names_with_a_nul_are_skipped(
    tmp_path: Path, unpacker: Unpacker, warnings: list[str], field: str
) -> None:
    header = _pax(b"x", **{field: "d/a\0b"}) + _header("d/a", tarfile.LNKTYPE)

    unpacker.unpack(io.BytesIO(header + _file("d/good") + END))

    assert [one.name for one in (tmp_path / "to").iterdir()] == ["good"]
    assert len(warnings) == 1
    assert "there is a NUL in its name" in warnings[0]


def _old_sparse(maps: int) -> bytes:
    """GNU's own form: 512 bytes of content, 200 MiB with its holes, and more blocks of its map."""
    header = bytearray(_header("d/holes", b"S", 512))
    header[386:410] = b"%011o\0%011o\0" % (0, 512)
    header[482] = bool(maps)
    header[483:495] = b"%011o\0" % (200 * MIB)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    blocks = [bytearray(b"00000001000\0" * 42 + bytes(8)) for _ in range(maps)]
    for block in blocks[:-1]:
        block[504] = 1
    return bytes(header) + b"".join(blocks) + b"c" * 512


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: _old_sparse(0), id="old"),
        pytest.param(lambda: _old_sparse(20_000), id="old, with a long map"),
        pytest.param(
            lambda: (
                _pax(b"x", GNU_sparse_size=str(200 * MIB), GNU_sparse_map="0,512")
                + _file("d/holes", b"c" * 512)
            ),
            id="0.1",
        ),
        pytest.param(
            lambda: (
                _pax(
                    b"x",
                    GNU_sparse_major="1",
                    GNU_sparse_minor="0",
                    GNU_sparse_realsize=str(200 * MIB),
                )
                + _file("d/holes", b"5000000\n" + b"0\n" * 5_000_000)
            ),
            id="1.0, with a long map",
        ),
    ],
)
def test_holes_take_neither_disk_nor_memory(
    tmp_path: Path, unpacker: Unpacker, warnings: list[str], make: Callable[[], bytes]
) -> None:
    stream = io.BytesIO(make() + _file("d/good") + END)
    tracemalloc.start()
    try:
        unpacker.unpack(stream)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert [one.name for one in (tmp_path / "to").iterdir()] == ["good"]
    assert warnings == [
        f'warning: skipping "{tmp_path}/to/holes": it was packed with holes (tar --sparse)'
    ]
    assert most < 4 * MIB


def test_members_that_have_passed_are_forgotten(unpacker: Unpacker) -> None:
    one = _header("d", tarfile.DIRTYPE)

    def most(count: int) -> int:
        stream = io.BytesIO(one * count + END)
        tracemalloc.start()
        try:
            unpacker.unpack(stream)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # The stream's own buffers are full with the first number already.
    assert most(4000) < most(1000) + 200_000
