from __future__ import annotations

import asyncio
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from commands_kit import home, invoke
from exec_kit import Machine, found, running

from bridge.cli.archive import Corrupted, Unpacker, pack
from bridge.cli.copying import Copy, Side, side_of
from bridge.errors import Invalid, NotFound

__all__ = ["home"]


# What was typed.


@pytest.mark.parametrize(
    ("text", "words", "path"),
    [
        ("web:/x", ("web",), "/x"),
        ("web:rel/x:y", ("web",), "rel/x:y"),
        ("words/web:/x", ("words", "web"), "/x"),
        ("pod/web:/x", ("pod/web",), "/x"),
        ("x", (), "x"),
        ("./a:b", (), "./a:b"),
        ("/a:b", (), "/a:b"),
    ],
)
def test_a_side_is_in_a_pod_or_here(text: str, words: tuple[str, ...], path: str) -> None:
    assert side_of(text) == Side(words, path)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cp", "a"], "DST"),
        (["cp", "a", "b"], "found two paths here"),
        (["cp", "a:/x", "b:/y"], "found two paths in pods"),
        (["cp", ":x", "y"], 'PATH: found ":x"'),
        (["cp", "a:", "y"], "allowed: [RUN/]POD:PATH"),
        (["cp", "a/b/c:/x", "y"], 'unknown kind "b"'),
        (["cp", "web:/x", "y"], 'no run, pod or job named "web"'),
        (["cp", "words/web:/x", "y"], 'no run named "words"'),
    ],
)
def test_what_is_typed_wrong_is_answered(words: list[str], said: str) -> None:
    code, out, error = invoke(*words)

    assert (code, out) == (2, "")
    assert said in error


# Archives.


class Crate:
    """An archive as a container's tar could make it, and what was said of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []
        self._file = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w")

    def file(self, name: str, content: bytes = b"x", mode: int = 0o644) -> Crate:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), mode
        self._tar.addfile(member, io.BytesIO(content))
        return self

    def other(self, name: str, kind: bytes, link: str = "") -> Crate:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        self._tar.addfile(member)
        return self

    def bytes(self) -> bytes:
        self._tar.close()
        return self._file.getvalue()

    def unpack(self, source: str, destination: str = "to", *, modes: bool = True) -> int:
        target = self.folder / destination
        unpacker = Unpacker(source, target, modes, self.warnings.append)
        return unpacker.unpack(io.BytesIO(self.bytes()))


def _tree(folder: Path) -> dict[str, bytes]:
    return {
        str(one.relative_to(folder)): one.read_bytes() if one.is_file() else b""
        for one in sorted(folder.rglob("*"))
    }


def test_a_folder_comes_back_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "from"
    long = "n" * 120
    (source / "sub" / long).mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "sub" / long / ("m" * 120)).write_bytes(bytes(range(256)) * 5000)
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    os.link(source / "run.sh", source / "same")
    (source / "\N{SNOWMAN}").write_bytes(b"")
    out = io.BytesIO()
    pack(source, "data/from", out, pytest.fail)

    warnings: list[str] = []
    unpacker = Unpacker("/data/from", tmp_path / "to", True, warnings.append)
    out.seek(0)
    unpacker.unpack(out)

    assert _tree(tmp_path / "to") == _tree(source)
    assert (tmp_path / "to" / "run.sh").stat().st_mode & 0o777 == 0o755
    assert not (tmp_path / "to" / "same").samefile(tmp_path / "to" / "run.sh")
    assert warnings == []


def test_what_is_neither_file_nor_folder_is_left_out_with_a_word(tmp_path: Path) -> None:
    source = tmp_path / "from"
    source.mkdir()
    os.mkfifo(source / "pipe")
    (source / "link").symlink_to("/etc/passwd")
    out, warnings = io.BytesIO(), []

    pack(source, "from", out, warnings.append)

    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        members = {one.name: one.linkname for one in archive}
    assert members == {"from": "", "from/link": "/etc/passwd"}
    assert len(warnings) == 1
    assert "pipe" in warnings[0]


@pytest.mark.parametrize(
    "name",
    ["../evil", "data/../../evil", "/etc/evil", "other", "data-too/x", "data/x/../../../evil"],
)
def test_what_was_not_asked_for_is_no_part_of_the_copy(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    crate = Crate(inside).file(name)

    with pytest.raises(Corrupted, match="tar contents corrupted"):
        crate.unpack("/data")

    assert _tree(tmp_path) == {"inside": b""}


def test_everything_from_the_root_stays_below_the_destination(tmp_path: Path) -> None:
    crate = Crate(tmp_path).file("./etc/hosts").file("../evil")

    with pytest.raises(Corrupted):
        crate.unpack("/")

    assert _tree(tmp_path) == {"to": b"", "to/etc": b"", "to/etc/hosts": b"x"}


def test_links_are_skipped_as_kubectl_does(tmp_path: Path) -> None:
    crate = Crate(tmp_path)
    crate.other("d/link", tarfile.SYMTYPE, "/etc").file("d/link/passwd", b"mine")

    crate.unpack("d")

    assert crate.warnings == [f'warning: skipping symlink: "{tmp_path}/to/link" -> "/etc"']
    assert (tmp_path / "to" / "link" / "passwd").read_bytes() == b"mine"


def test_a_link_that_was_here_before_leads_nowhere_else(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "way").symlink_to(outside)
    (tmp_path / "to" / "file").symlink_to(outside / "kept")
    crate = Crate(tmp_path)
    crate.file("d/way/evil").file("d/file").other("d/way", tarfile.DIRTYPE).file("d/good")
    crate.other("d/stolen", tarfile.LNKTYPE, "d/file")

    crate.unpack("d")

    assert _tree(outside) == {"kept": b"kept"}
    assert (tmp_path / "to" / "good").exists()
    assert not (tmp_path / "to" / "stolen").exists()
    assert [one.partition(" is outside")[1] for one in crate.warnings[:3]] == [" is outside"] * 3
    assert "was not copied" in crate.warnings[3]


def test_pipes_and_devices_are_skipped(tmp_path: Path) -> None:
    crate = Crate(tmp_path).other("d/pipe", tarfile.FIFOTYPE).other("d/null", tarfile.CHRTYPE)

    crate.file("d/x").unpack("d")

    assert _tree(tmp_path / "to") == {"x": b"x"}
    assert len(crate.warnings) == 2


@pytest.mark.parametrize(
    ("mode", "modes", "expected"),
    [(0o4777, True, 0o755), (0o400, True, 0o600), (0o755, False, 0o644), (0o640, True, 0o640)],
)
def test_modes_never_let_others_write(
    tmp_path: Path, mode: int, modes: bool, expected: int
) -> None:
    before = os.umask(0o022)
    try:
        Crate(tmp_path).file("d/x", mode=mode).unpack("d", modes=modes)
    finally:
        os.umask(before)

    assert (tmp_path / "to" / "x").stat().st_mode & 0o7777 == expected


def test_a_file_becomes_the_destination_or_goes_into_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()

    Crate(tmp_path).file("d/x", b"1").unpack("/d/x", "new")
    Crate(tmp_path).file("d/x", b"2").unpack("/d/x", "folder")

    assert _tree(tmp_path) == {"folder": b"", "folder/x": b"2", "new": b"1"}


def test_half_an_archive_leaves_no_half_file(tmp_path: Path) -> None:
    crate = Crate(tmp_path).file("d/whole").file("d/half", bytes(100_000))
    content = crate.bytes()[:40_000]
    unpacker = Unpacker("d", tmp_path / "to", True, crate.warnings.append)

    with pytest.raises(Corrupted):
        unpacker.unpack(io.BytesIO(content))

    assert _tree(tmp_path / "to") == {"whole": b"x"}


# Whole copies, with this machine's own tar as the container's.


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The container's folder."""
    made = tmp_path / "there"
    made.mkdir()
    return made


def _copy(machine: Machine, *, preserve: bool = True) -> Copy:
    provider: Any = machine
    return Copy(provider, found(running()), "main", preserve)


@pytest.mark.slow
async def test_files_and_folders_go_both_ways(tmp_path: Path, there: Path) -> None:
    here = tmp_path / "here"
    (here / "sub").mkdir(parents=True)
    (here / "sub" / "big").write_bytes(os.urandom(3_000_000))
    (here / "-dash").write_text("dash")

    async with asyncio.timeout(60):
        assert await _copy(Machine(there)).to_pod(str(here), "new") == 0
        assert await _copy(Machine(there)).to_pod(str(here), f"{there}/new") == 0
        assert await _copy(Machine(there)).to_pod(str(here / "-dash"), "./") == 0
        assert await _copy(Machine(there)).from_pod(f"{there}/new/here/", str(tmp_path / "x")) == 0
        assert await _copy(Machine(there)).from_pod("-dash", str(tmp_path)) == 0

    assert _tree(there / "new" / "here") == _tree(here) == _tree(tmp_path / "x")
    assert (there / "-dash").read_text() == (tmp_path / "-dash").read_text() == "dash"


@pytest.mark.slow
async def test_the_tar_is_asked_as_kubectl_asks_it(tmp_path: Path, there: Path) -> None:
    (tmp_path / "a").write_text("a")
    machine = Machine(there)

    await _copy(machine, preserve=False).to_pod(str(tmp_path / "a"), "sub/b")
    await _copy(machine).from_pod("/etc/hostname", str(tmp_path / "b"))

    assert machine.commands == [
        ["test", "-d", "sub/b"],
        ["tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-", "-C", "sub"],
        ["tar", "cf", "-", "-C", "/", "etc/hostname"],
    ]


@pytest.mark.slow
async def test_a_tar_that_fails_fails_the_copy_with_its_words(
    tmp_path: Path, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "big").write_bytes(bytes(5_000_000))

    async with asyncio.timeout(60):
        assert await _copy(Machine(there)).from_pod("nowhere", str(tmp_path / "x")) == 1
        assert await _copy(Machine(there)).to_pod(str(tmp_path / "big"), "no/where") == 1

    said = capsys.readouterr().err
    assert "nowhere: Cannot stat: No such file" in said
    assert said.count('error: tar in container "main" of pod "web" ended with exit code 2') == 2
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
async def test_a_container_without_tar_is_told_what_it_needs(
    tmp_path: Path, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = 'there is no tar in container "main" of pod "web"; cp needs one there'
    with pytest.raises(Invalid, match=words):
        await _copy(Machine(there, refuse='"tar" not found')).from_pod("x", str(tmp_path / "x"))

    # An engine starts something that then finds no tar.
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("tar", "test"):
        (programs / name).write_text("#!/bin/sh\nexit 127\n")
        (programs / name).chmod(0o755)
    async with asyncio.timeout(60):
        assert await _copy(Rewritten(there, path=str(programs))).from_pod("x", str(tmp_path)) == 1
    assert words in capsys.readouterr().err


class Rewritten(Machine):
    """Finds commands on its own path alone."""

    async def exec(self, requests: Any) -> Any:
        async def rewritten() -> Any:
            async for request in requests:
                if request.HasField("start"):
                    request.start.command[0] = f"{self.path}/{request.start.command[0]}"
                yield request

        async for response in super().exec(rewritten()):
            yield response


async def test_what_is_not_here_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with pytest.raises(NotFound, match="nowhere doesn't exist in local filesystem"):
        await _copy(machine).to_pod("nowhere", "/x")
    with pytest.raises(Invalid, match="allowed: a path without a leading"):
        await _copy(machine).from_pod("../x", "x")
    assert machine.commands == []


@pytest.mark.slow
async def test_a_copy_that_is_given_up_leaves_no_thread_waiting(
    tmp_path: Path, there: Path
) -> None:
    """The container's tar is stopped in the middle; the copy is cancelled."""
    (tmp_path / "big").write_bytes(bytes(5_000_000))
    (tmp_path / "tar").write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    (tmp_path / "test").write_text("#!/bin/sh\nexit 1\n")
    for name in ("tar", "test"):
        (tmp_path / name).chmod(0o755)
    machine = Rewritten(there, path=str(tmp_path))

    copying = asyncio.create_task(_copy(machine).to_pod(str(tmp_path / "big"), "x"))
    async with asyncio.timeout(60):
        while len(machine.commands) < 2:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying
        await asyncio.get_running_loop().shutdown_default_executor()
