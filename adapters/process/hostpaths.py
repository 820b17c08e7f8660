"""Files and folders of the host as volumes: what must be there, and what is made, by their type.

The rules and modes are the kubelet's. What is made stays: it is the host's, not the pod's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping

from bridge.errors import Unavailable
from bridge.workload import HostPath

_TYPES: Mapping[str, tuple[Callable[[int], bool], str]] = {
    "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
    "Directory": (stat.S_ISDIR, "a directory"),
    "FileOrCreate": (stat.S_ISREG, "a file"),
    "File": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISREG, "a file"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISFIFO, "a pipe"),
)
_MADE_IF_MISSING = ("", "DirectoryOrCreate", "FileOrCreate")
"""The kubelet does not look at an empty type, and container runtimes make a directory for it."""


def problem(volume: HostPath) -> str:
    """Why it cannot be mounted as things are; empty: it can, perhaps once `make` has made it."""
    path = volume.path
    if not path.startswith("/"):
        return f'found "{path}"; allowed: an absolute path'
    if volume.type and volume.type not in _TYPES:
        return f'found type "{volume.type}"; allowed: {", ".join(_TYPES)}'
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return _missing(volume)
    except OSError as error:
        return f'found "{path}", which cannot be looked at: {_words(error)}'
    if not volume.type:
        return ""
    fits, allowed = _TYPES[volume.type]
    if fits(mode):
        return ""
    return f'found "{path}", {kind(mode)}; allowed by type {volume.type}: {allowed}'


def _missing(volume: HostPath) -> str:
    path = volume.path
    if volume.type not in _MADE_IF_MISSING:
        allowed = _TYPES[volume.type][1]
        return f'found "{path}", which does not exist; allowed by type {volume.type}: {allowed}'
    parent = os.path.dirname(path.rstrip("/"))
    if volume.type != "FileOrCreate":
        while not os.path.lexists(parent):
            parent = os.path.dirname(parent)
    if not os.path.isdir(parent):
        return f'found "{path}", which cannot be made: {parent} is no directory'
    if not os.access(parent, os.W_OK | os.X_OK):
        return f'found "{path}", which cannot be made: no permission to write to {parent}'
    return ""


def kind(mode: int) -> str:
    """What a mode says that something is, in words."""
    return next((words for fits, words in _KINDS if fits(mode)), "something else")


def is_file(volume: HostPath) -> bool:
    """Whether it is, or will be made, something other than a directory."""
    if os.path.exists(volume.path):
        return not os.path.isdir(volume.path)
    return volume.type == "FileOrCreate"


def make(volume: HostPath) -> None:
    """Makes what is missing and may be made. Unavailable where the host does not fit (any more)."""
    if words := problem(volume):
        raise Unavailable(f"volume {volume.name}: {words}")
    if volume.type == "FileOrCreate":
        try:
            descriptor = os.open(volume.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
        except FileExistsError:
            return
        os.fchmod(descriptor, 0o644)
        os.close(descriptor)
    elif volume.type in _MADE_IF_MISSING and not os.path.exists(volume.path):
        _make_directories(volume.path)


def _make_directories(path: str) -> None:
    place = ""
    for part in os.path.normpath(path).strip("/").split("/"):
        place = f"{place}/{part}"
        try:
            os.mkdir(place)
        except FileExistsError:
            continue
        os.chmod(place, 0o755)  # noqa: S103 - what the kubelet makes has this mode


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
