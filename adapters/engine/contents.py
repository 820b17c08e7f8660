"""The files of volumes as tar archives, in the layout of the kubelet's atomic writer. Pure.

<volume>/..<revision>/a/b     the files
<volume>/..data -> ..<revision>
<volume>/a -> ..data/a        what people see, one link for each top-level name

With an fsGroup everything is that group's, and readable to it (SetVolumeOwnership).
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import time
from collections.abc import Iterable, Sequence

from bridge.errors import Invalid
from bridge.workload import EmptyDir, File, Files

DATA = "..data"
FRESH = "..data_tmp"
"""The link that is renamed to `..data`, and the name that everything stale gets in the end."""
_OPEN = 0o777
"""A volume's root, as the kubelet makes it: a container may run as any user."""
_REVISION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")


class Archive:
    """A tar that is written entry by entry; what is in it belongs to root."""

    def __init__(self, group: int | None) -> None:
        self._group = group
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)
        self._now = time.time() // 1

    def folder(self, path: str, mode: int = 0o755, *, writable: bool = False) -> None:
        """A folder; `writable` by the group as well."""
        if self._group is not None:
            mode |= 0o2770 if writable else 0o2550
        self._add(path, tarfile.DIRTYPE, mode)

    def file(self, path: str, content: bytes, mode: int) -> None:
        """A file."""
        if self._group is not None:
            mode |= 0o440
        self._add(path, tarfile.REGTYPE, mode, content=content)

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._add(path, tarfile.SYMTYPE, 0o777, target=target)

    def _add(
        self, path: str, kind: bytes, mode: int, *, content: bytes = b"", target: str = ""
    ) -> None:
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode, entry.linkname = kind, mode, target
        entry.size, entry.mtime, entry.gid = len(content), self._now, self._group or 0
        self._tar.addfile(entry, io.BytesIO(content))

    def done(self) -> bytes:
        """The archive."""
        self._tar.close()
        return self._buffer.getvalue()


def folder_of(volume: Files) -> str:
    """The name of the folder that holds this revision of the files."""
    if _REVISION.fullmatch(volume.revision):
        return f"..{volume.revision}"
    digest = hashlib.sha256()
    for file in sorted(volume.files, key=lambda one: one.path):
        digest.update(f"{file.path}\0{file.mode}\0{len(file.content)}\0".encode())
        digest.update(file.content)
    return f"..{digest.hexdigest()[:32]}"


def names(volume: Files) -> set[str]:
    """The top-level names that people see."""
    return {file.path.split("/", 1)[0] for file in volume.files}


def first(archive: Archive, volume: Files, nested: Iterable[str] = ()) -> None:
    """Adds a volume as it is before any container has it; `nested` are folders in it that other
    volumes will be mounted at."""
    archive.folder(volume.name, _OPEN, writable=False)
    _revision(archive, volume)
    archive.link(f"{volume.name}/{DATA}", folder_of(volume))
    _links(archive, volume, names(volume))
    taken = names(volume)
    for path in sorted(nested):
        if path.split("/", 1)[0] not in taken:
            for folder in _parents(f"{path}/."):
                archive.folder(f"{volume.name}/{folder}")


def empty(archive: Archive, volume: EmptyDir) -> None:
    """Adds an emptyDir's root."""
    archive.folder(volume.name, _OPEN, writable=True)


def next_one(archive: Archive, volume: Files, shown: set[str], *, at_once: bool) -> None:
    """Adds another revision beside the one in force. `at_once`: with the link that has yet to be
    renamed; otherwise it is in force as soon as this is unpacked."""
    _revision(archive, volume)
    _links(archive, volume, names(volume) - shown)
    archive.link(f"{volume.name}/{FRESH if at_once else DATA}", folder_of(volume))


def _revision(archive: Archive, volume: Files) -> None:
    base = f"{volume.name}/{folder_of(volume)}"
    archive.folder(base)
    made: set[str] = set()
    for file in volume.files:
        _check(volume.name, file)
        for folder in _parents(file.path):
            if folder not in made:
                archive.folder(f"{base}/{folder}")
                made.add(folder)
        archive.file(f"{base}/{file.path}", file.content, file.mode)


def _links(archive: Archive, volume: Files, wanted: set[str]) -> None:
    for name in sorted(wanted):
        archive.link(f"{volume.name}/{name}", f"{DATA}/{name}")


def _parents(path: str) -> Sequence[str]:
    """The folders above a path, outermost first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _check(volume: str, file: File) -> None:
    parts = file.path.split("/")
    if any(part in ("", ".", "..") for part in parts) or parts[0].startswith(".."):
        raise Invalid(f"volume {volume}: a file has the path {file.path!r}: it must lie within")


def seen(archive: bytes, volume: str) -> tuple[str, set[str]]:
    """What a volume holds by its own archive: the revision in force (empty: none) and the
    top-level names that lead into it."""
    current, shown = "", set()
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for entry in tar:
            path = entry.name.removeprefix("./").strip("/").removeprefix(f"{volume}/")
            if "/" in path or not entry.issym():
                continue
            if path == DATA:
                current = entry.linkname
            elif entry.linkname.startswith(f"{DATA}/"):
                shown.add(path)
    return current, shown
