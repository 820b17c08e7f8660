"""Files and folders as a tar stream, and back: what `cp` sends to a container's tar and reads from
it. What comes out of a container is not trusted: nothing is written outside the destination, and
neither memory nor disk is taken for what did not come over."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 256 * 1024
"""Bytes that a stream is read and written in: a multiple of tar's 512, and one stream's credit."""

HEADERS = 1024 * 1024
"""Bytes of extension headers (long names, pax) that may come before one member, and of those that
count for all members: tar holds them in memory. Paths end at 4096 here."""
_EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_PAX = _EXTENSIONS[2:]
_DIGITS = re.compile(rb"[0-9]{512}")
"""No file's name is that long. Before 3.11.10 (CVE-2024-6232) tarfile's time for such a run is its
square, and nothing else of the process goes on meanwhile."""
_BROKEN: tuple[type[tarfile.TarError], ...] = (
    tarfile.InvalidHeaderError,  # type: ignore[attr-defined]
    tarfile.TruncatedHeaderError,  # type: ignore[attr-defined]
)


class Corrupted(Exception):
    """What came is no archive of what was asked for, or it is not whole."""


class Sink(Protocol):
    """Where an archive goes."""

    def write(self, data: bytes, /) -> int:
        """Takes all of it."""


class Source(Protocol):
    """Where an archive comes from."""

    def read(self, size: int, /) -> bytes:
        """Some bytes, at most `size`; none at the end."""


def pack(source: Path, name: str, sink: Sink, warn: Callable[[str], None]) -> None:
    """Writes a file, or a folder with all that is in it, as an archive in which it has that name.

    Links stay links. Sockets, pipes and devices are left out with a warning. OSError.
    """
    # GNU's long names are what every tar reads, busybox's too; it skips those of pax.
    form = tarfile.GNU_FORMAT
    stream = cast("IO[bytes]", sink)
    with _Archive.open(fileobj=stream, mode="w|", bufsize=BLOCK, format=form) as archive:
        for path, inside in _walk(source, name):
            mode = os.lstat(path).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
                warn(f"warning: skipping {path}: it is neither a file nor a folder nor a link")
                continue
            member = archive.gettarinfo(path, inside)
            if member.isreg():
                with open(path, "rb") as content:
                    archive.addfile(member, content)
            else:
                archive.addfile(member)
            archive.forget()


def _walk(source: Path, name: str) -> Iterator[tuple[str, str]]:
    yield str(source), name
    if source.is_dir() and not source.is_symlink():
        with os.scandir(source) as entries:
            names = sorted(one.name for one in entries)
        for each in names:
            yield from _walk(source / each, posixpath.join(name, each))


@dataclass(frozen=True, slots=True)
class Unpacker:
    """Writes what is at `source` in a container to `destination` here.

    A folder's content goes into the destination, a file becomes it, or goes into it where it is a
    folder that exists. Links are skipped with a warning, and so is what would end outside.
    """

    source: str
    """The path of which the archive was made."""
    destination: Path
    modes: bool
    """Whether files keep their permissions, without those of others to write and set-uid."""
    warn: Callable[[str], None]

    def unpack(self, stream: Source) -> int:
        """Reads an archive to its end; how many files and folders were written. Corrupted,
        OSError."""
        written = 0
        source = cast("IO[bytes]", _Whole(stream))
        try:
            with _Archive.open(fileobj=source, mode="r|", bufsize=BLOCK) as archive:
                while (member := archive.next()) is not None:
                    written += self._one(archive, member)
                    archive.forget()
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise Corrupted(f"tar contents corrupted: {error}") from None
        return written

    def _one(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bool:
        if "\0" in member.name + member.linkname:
            self.warn(f'warning: skipping "{member.name}": there is a NUL in its name')
            return False
        target = self._target(member.name, folder=member.isdir())
        if member.issym():
            self.warn(f'warning: skipping symlink: "{target}" -> "{member.linkname}"')
            return False
        if not (member.isdir() or member.isreg() or member.islnk()):
            self.warn(f'warning: skipping "{target}": it is neither a file nor a folder')
            return False
        if member.issparse():
            self.warn(f'warning: skipping "{target}": it was packed with holes (tar --sparse)')
            return False
        if not self._inside(target):
            self.warn(f'warning: file "{target}" is outside target destination, skipping')
            return False
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            return True
        target.parent.mkdir(parents=True, exist_ok=True)
        if member.islnk():
            return self._copy(member, target)
        content = archive.extractfile(member)
        assert content is not None
        self._write(content, target, member.mode)
        return True

    def _write(self, content: IO[bytes], target: Path, mode: int) -> None:
        try:
            with target.open("wb") as out:
                shutil.copyfileobj(content, out, BLOCK)
                if self.modes:
                    os.fchmod(out.fileno(), (mode & 0o755) | stat.S_IRUSR | stat.S_IWUSR)
        except BaseException:
            # Half a file looks like a whole one.
            if target.is_file():
                target.unlink()
            raise

    def _copy(self, member: tarfile.TarInfo, target: Path) -> bool:
        """Another name of a file that came before: it becomes a file of its own here."""
        first = self._target(member.linkname, folder=False)
        if not self._inside(first) or not first.is_file():
            self.warn(f'warning: skipping "{target}": what it is a link to was not copied')
            return False
        if first != target:
            shutil.copyfile(first, target)
            shutil.copymode(first, target)
        return True

    def _target(self, name: str, *, folder: bool) -> Path:
        """Where a member goes. Corrupted where it is not of what was asked for."""
        root = posixpath.normpath(self.source.lstrip("/") or ".")
        clean = posixpath.normpath(name.lstrip("/"))
        if root == ".":
            below = "" if clean == "." else clean
        elif clean == root:
            below = ""
        elif clean.startswith(f"{root}/"):
            below = clean[len(root) + 1 :]
        else:
            raise Corrupted(f'tar contents corrupted: "{name}" is not in "{self.source}"')
        if below == ".." or below.startswith("../"):
            raise Corrupted(f'tar contents corrupted: "{name}" is not in "{self.source}"')
        if not below and not folder and self.destination.is_dir():
            return self.destination / posixpath.basename(root)
        return self.destination / below if below else self.destination

    def _inside(self, target: Path) -> bool:
        # A link that was here before may lead anywhere: only where it leads counts. The
        # destination itself was named by whoever typed it.
        if target == self.destination:
            return True
        root = os.path.realpath(self.destination)
        return os.path.commonpath([root, os.path.realpath(target)]) == root


# Reading what is not trusted.


class _Whole:
    """A source of which nothing is wanted after its end: tarfile would skip what a header promises
    for as long as it promises it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._ended = False

    def read(self, size: int, /) -> bytes:
        if self._ended:
            raise Corrupted("tar contents corrupted: unexpected end of data")
        data = self._source.read(size)
        self._ended = not data
        return data


class _Member(tarfile.TarInfo):
    """A member whose headers are weighed before they are read."""

    __slots__ = ()

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """The next member. tarfile.TarError, also for what tarfile takes for an archive's end."""
        try:
            return super().fromtarfile(archive)
        except _BROKEN as error:
            raise tarfile.ReadError(str(error)) from None

    def _proc_member(self, archive: _Archive) -> tarfile.TarInfo:
        # Where tarfile's own comment lets a subclass in: the 512 bytes are read, what they
        # announce is not.
        if self.size < 0:
            raise tarfile.ReadError(f'"{self.name}" has a size below zero')
        if self.type in _EXTENSIONS:
            archive.weigh(self)
        if self.type in _PAX:
            self._look_ahead(archive.fileobj)
        proceed = super()._proc_member  # type: ignore[misc]
        return cast("tarfile.TarInfo", proceed(archive))

    def _look_ahead(self, stream: Any) -> None:
        """Corrupted where tarfile could not parse these records in time; puts them back."""
        records = stream.read(-(-self.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
        if _DIGITS.search(records):
            raise Corrupted("tar contents corrupted: a header has a number of 512 digits")
        stream.buf = records + stream.buf
        stream.pos -= len(records)

    def _proc_sparse(self, archive: _Archive) -> tarfile.TarInfo:
        """Goes past the map of holes, which may be of any length, and keeps nothing of it."""
        self.sparse = b""
        stream = archive.fileobj
        assert stream is not None
        _, more, _ = self._sparse_structs  # type: ignore[attr-defined]
        while more:
            block = stream.read(tarfile.BLOCKSIZE)
            if len(block) < tarfile.BLOCKSIZE:
                raise tarfile.ReadError("unexpected end of data")
            more = block[504]
        proceed = super()._proc_builtin  # type: ignore[misc]
        return cast("tarfile.TarInfo", proceed(archive))

    def _proc_gnusparse_10(self, following: _Member, _headers: object, _archive: object) -> None:
        # This map is a part of the content, which is skipped as a whole.
        following.sparse = b""


class _Archive(tarfile.TarFile):
    """Keeps nothing of members that have passed, and little of their headers."""

    tarinfo = _Member
    _ahead = 0
    _shared = 0

    def next(self) -> tarfile.TarInfo | None:
        """The next member. Corrupted, ValueError, RecursionError, tarfile.TarError."""
        self._ahead = 0
        return super().next()

    def forget(self) -> None:
        """Forgets all members so far, which only whoever lists an archive wants."""
        self.members.clear()  # type: ignore[attr-defined]

    def weigh(self, header: tarfile.TarInfo) -> None:
        """Corrupted where a header with those before it is longer than any name needs."""
        self._ahead += header.size
        if header.type == tarfile.XGLTYPE:
            self._shared += header.size
        if max(self._ahead, self._shared) > HEADERS:
            raise Corrupted(f"tar contents corrupted: headers of more than {HEADERS} bytes")
