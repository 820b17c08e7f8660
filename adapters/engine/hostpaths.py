"""Files and folders of the engine's host as volumes, where that host is this one.

Rules and modes are the kubelet's (pkg/volume/hostpath). What is made stays: it is the host's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping

from bridge.errors import Unavailable
from bridge.workload import HostPath

_TYPES: Mapping[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "FileOrCreate": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}
_MADE = ("", "DirectoryOrCreate", "FileOrCreate")
"""Types for which something is made where nothing is; the runtime does it for the empty one."""


def problem(volume: HostPath) -> str:
    """Why it cannot be mounted as things are; empty: it can, perhaps once `make` has made it."""
    if not volume.path.startswith("/"):
        return f'found "{volume.path}"; allowed: an absolute path'
    if volume.type and volume.type not in _TYPES:
        return f'found type "{volume.type}"; allowed: {", ".join(_TYPES)}'
    try:
        mode = os.stat(volume.path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        if volume.type in _MADE:
            return ""
        what = _TYPES[volume.type][1]
        return f'found nothing at "{volume.path}"; allowed by type {volume.type}: {what}'
    except OSError:
        return ""  # The engine may see what we may not.
    if volume.type and not _TYPES[volume.type][0](mode):
        what = _TYPES[volume.type][1]
        return f'"{volume.path}" is something else; allowed by type {volume.type}: {what}'
    return ""


def make(volume: HostPath) -> None:
    """Makes what is missing and may be made. Unavailable where the host does not fit."""
    if words := problem(volume):
        raise Unavailable(f"volume {volume.name}: {words}")
    if volume.type not in _MADE or os.path.lexists(volume.path):
        return
    try:
        if volume.type == "FileOrCreate":
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(volume.path, flags, 0o644)
            os.fchmod(descriptor, 0o644)
            os.close(descriptor)
        else:
            _make_directories(volume.path)
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise Unavailable(f"volume {volume.name}: cannot make {volume.path}: {words}") from None


def _make_directories(path: str) -> None:
    place = ""
    for part in os.path.normpath(path).strip("/").split("/"):
        place = f"{place}/{part}"
        if not os.path.isdir(place):
            os.mkdir(place)
            os.chmod(place, 0o755)  # noqa: S103 - what the kubelet makes has this mode
