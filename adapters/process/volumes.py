"""The volumes' directories. Files change all at once, in the layout of the kubelet's atomic writer.

<volume>/..<revision>/a/b     the files
<volume>/..data -> ..<revision>
<volume>/a -> ..data/a        what people see, one link for each top-level name
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from adapters.process import hostpaths
from bridge.errors import Invalid
from bridge.workload import EmptyDir, Files, HostPath, Volume, Workload

_DATA = "..data"
_OPEN = 0o777
"""An emptyDir's mode, as the kubelet has it: a container may run as any user."""


def group_of(workload: Workload) -> int | None:
    """The pod's fsGroup."""
    groups = (one.security.fs_group for one in workload.containers)
    return next((one for one in groups if one is not None), None)


def make(folder: Path, volume: Volume, group: int | None) -> None:
    """Makes a volume's directory, which does not exist yet; what is the host's stays where it is.
    Unavailable."""
    if isinstance(volume, HostPath):
        hostpaths.make(volume)
        return
    folder.mkdir()
    if isinstance(volume, EmptyDir):
        folder.chmod(_OPEN if group is None else _OPEN | 0o2000)
        if group is not None:
            os.chown(folder, -1, group)
            folder.chmod(_OPEN | 0o2000)
    elif isinstance(volume, Files):
        folder.chmod(0o755)
        replace(folder, volume, group)


def replace(folder: Path, volume: Files, group: int | None) -> None:
    """Replaces the files of a volume, all at once for whoever looks."""
    fresh = folder / f"..{secrets.token_hex(8)}"
    fresh.mkdir(0o755)
    for file in volume.files:
        _write(fresh, file.path, file.content, file.mode, group)
    fresh.chmod(0o755)
    old = folder / _DATA
    before = os.readlink(old) if old.is_symlink() else ""
    link = folder / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.rename(old)
    _show(folder, {one.name for one in fresh.iterdir()})
    if before:
        shutil.rmtree(folder / before, ignore_errors=True)


def _show(folder: Path, names: set[str]) -> None:
    for name in names:
        seen = folder / name
        if not seen.is_symlink():
            seen.symlink_to(f"{_DATA}/{name}")
    for seen in folder.iterdir():
        if not seen.name.startswith("..") and seen.name not in names:
            seen.unlink()


def _write(base: Path, path: str, content: bytes, mode: int, group: int | None) -> None:
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or not path:
        raise Invalid(f"a volume's file has the path {path!r}: it must lie in the volume")
    place = base.joinpath(*parts)
    for parent in reversed(place.parents):
        if base in parent.parents and not parent.exists():
            parent.mkdir()
            parent.chmod(0o755)
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        if group is not None:
            os.fchown(descriptor, -1, group)
            # As the kubelet does for volumes that a container may only read.
            mode |= 0o440
        os.fchmod(descriptor, mode)
