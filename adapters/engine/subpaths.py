"""A part of a volume as a mount that nobody can turn aside any more.

A container that may write to a volume can put symbolic links into it, and swap them at any time:
a path in such a volume is no source of a mount. So, as the kubelet does it
(pkg/volume/util/subpath/subpath_linux.go), the path is opened part by part without following
links, and what was opened is bind-mounted to a place of our own, whose path is then the source.
That takes root on the engine's own host.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from bridge.errors import Invalid, Unavailable

PLACE = Path("/run/podbridge/engine")
"""Where the mounts are, in a folder for each pod. It is for root alone, and ends with the
machine's run, as mounts do."""
_BIND, _DETACH = 4096, 2
"""MS_BIND, MNT_DETACH."""
_OPEN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def allowed() -> bool:
    """Whether this process may mount."""
    return os.geteuid() == 0


def hold(pod: str, name: str, base: str, sub_path: str) -> str:
    """Mounts `sub_path` of `base` at a place of that name, and gives its path.

    What is missing is made as a folder, with the mode of `base`. The same name again replaces the
    mount. Invalid: it leads out of `base`, or is changed at the very time. Unavailable: it cannot
    be mounted.
    """
    try:
        opened = _open(os.path.realpath(base), sub_path)
    except OSError as error:
        raise Invalid(f'subPath "{sub_path}": {_words(error)}') from None
    try:
        return _mount(opened, pod, name)
    except OSError as error:
        raise Unavailable(f'subPath "{sub_path}" cannot be mounted: {_words(error)}') from None
    finally:
        os.close(opened)


def are_held(pod: str, names: Collection[str]) -> bool:
    """Whether all these mounts of a pod are there."""
    wanted = {str(PLACE / pod / name) for name in names}
    # Four other fields come before a mount's place; what is odd in a path is escaped, and
    # nothing is in these.
    lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    return wanted <= {line.split(" ", 5)[4] for line in lines}


def pods(prefix: str) -> list[str]:
    """The pods that have mounts here, or had them, with names that begin so."""
    if not PLACE.is_dir():
        return []
    return [one.name for one in PLACE.iterdir() if one.name.startswith(prefix)]


def release(pod: str) -> None:
    """Lets go of all of a pod's mounts. What runs keeps its own."""
    folder = PLACE / pod
    if not folder.is_dir():
        return
    for place in folder.iterdir():
        _remove(place)
    with suppress(OSError):
        folder.rmdir()


def _open(base: str, sub_path: str) -> int:
    """The file or folder, opened without following a link. OSError."""
    wanted = os.path.normpath(os.path.join(base, sub_path))
    _check_within(base, wanted)
    if not os.path.lexists(wanted):
        _make(base, wanted)
    # A link inside of the volume to something in it is allowed, as long as it stays so.
    real = os.path.realpath(wanted, strict=True)
    _check_within(base, real)
    current = os.open(base, _OPEN)
    for part in _parts(base, real):
        current = _step(current, part)
    return current


def _step(parent: int, part: str) -> int:
    try:
        opened = os.open(part, _OPEN, dir_fd=parent)
    finally:
        os.close(parent)
    if stat.S_ISLNK(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(f"{part} has become a symbolic link")
    return opened


def _make(base: str, wanted: str) -> None:
    """Makes the missing folders below what is there, which must lie within."""
    mode = stat.S_IMODE(os.stat(base).st_mode)
    existing = wanted
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    missing = _parts(existing, wanted)
    real = os.path.realpath(existing, strict=True)
    _check_within(base, real)
    current = os.open(base, _OPEN)
    for part in _parts(base, real):
        current = _step(current, part)
    for part in missing:
        try:
            os.mkdir(part, mode, dir_fd=current)
        except FileExistsError:
            pass  # Another container of the pod was faster; whatever it is, it is looked at next.
        except OSError:
            os.close(current)
            raise
        current = _step(current, part)
        # mkdir heeds the process's umask. Only what is still a folder is changed, not what it
        # may have been swapped for: the descriptor is of the thing itself.
        if stat.S_ISDIR(os.fstat(current).st_mode):
            os.chmod(f"/proc/self/fd/{current}", mode)
    os.close(current)


def _check_within(base: str, path: str) -> None:
    if path != base and not path.startswith(base.rstrip("/") + "/"):
        raise OSError("it leads out of the volume")


def _parts(base: str, path: str) -> list[str]:
    return [part for part in os.path.relpath(path, base).split("/") if part != "."]


def _mount(opened: int, pod: str, name: str) -> str:
    folder = PLACE / pod
    PLACE.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    place = folder / name
    _remove(place)
    if stat.S_ISDIR(os.fstat(opened).st_mode):
        place.mkdir(mode=0o700)
    else:
        place.touch(mode=0o600)
    libc = ctypes.CDLL(None, use_errno=True)
    source = f"/proc/self/fd/{opened}".encode()
    if libc.mount(source, os.fsencode(place), None, _BIND, None) != 0:
        code = ctypes.get_errno()
        _remove(place)
        raise OSError(code, os.strerror(code))
    return str(place)


def _remove(place: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    while libc.umount2(os.fsencode(place), _DETACH) == 0:
        pass
    with suppress(FileNotFoundError):
        if place.is_dir():
            place.rmdir()
        else:
            place.unlink()


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
