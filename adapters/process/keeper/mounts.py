"""A container's own view of the host's file system, made without touching the host.

A mount needs something to be mounted on. Where the path does not exist, the nearest directory
above it that does is covered: an empty tmpfs is mounted over it, everything that was in it is bound
back, and what is missing is made in the tmpfs. The root cannot be covered, so there a new root is
built in the same way and entered by pivot_root. All of it is private to the mount namespace and
goes with it.
"""

from __future__ import annotations

import errno
import os
import stat

from . import system

_NEW_ROOT = "/tmp"  # noqa: S108 - a mount point only: it exists everywhere, and is restored
_KEPT = (
    (os.ST_NOSUID, system.MS_NOSUID),
    (os.ST_NODEV, system.MS_NODEV),
    (os.ST_NOEXEC, system.MS_NOEXEC),
    (os.ST_NOATIME, system.MS_NOATIME),
    (os.ST_NODIRATIME, system.MS_NODIRATIME),
    (os.ST_RELATIME, system.MS_RELATIME),
)


def bind(source: str, target: str) -> None:
    """Makes `source`, with the mounts below it, appear at `target`, which exists."""
    system.mount(source, target, None, system.MS_BIND | system.MS_REC)


def make_read_only(target: str) -> None:
    """Makes the bind mount at `target` read-only; its other flags stay, as the kernel demands."""
    had = os.statvfs(target).f_flag
    flags = system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY
    for theirs, ours in _KEPT:
        if had & theirs:
            flags |= ours
    system.mount(None, target, None, flags)


class View:
    """The mount namespace that the calling process is in, and will change."""

    def __init__(self) -> None:
        self._ours: dict[str, bool] = {"/": False}
        """Whether things may be made in what is mounted at a path: it is the pod's own, or ours."""

    def own(self, path: str, writable: bool) -> None:
        """Tells that the pod's own files are mounted at `path`, resolved."""
        self._ours[path] = writable

    def _may_make_in(self, path: str) -> bool:
        while path not in self._ours:
            path = os.path.dirname(path)
        return self._ours[path]

    def directory(self, path: str, mode: int = 0o755) -> str:
        """`path` resolved, as a directory that exists in this view."""
        path = os.path.realpath(path)
        if not os.path.isdir(path):
            parent = self._parent(path)
            _make_directories(parent, path, mode)
        return path

    def file(self, path: str) -> str:
        """`path` resolved, as something that is no directory and exists in this view."""
        path = os.path.realpath(path)
        if not os.path.lexists(path):
            parent = self._parent(path)
            _make_directories(parent, os.path.dirname(path), 0o755)
            _make_file(path)
        elif os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return path

    def _parent(self, path: str) -> str:
        parent = os.path.dirname(path)
        while not os.path.lexists(parent):
            parent = os.path.dirname(parent)
        if not os.path.isdir(parent):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), parent)
        if not self._may_make_in(parent):
            self.cover(parent)
        return parent

    def cover(self, path: str) -> None:
        """Makes `path` a directory that can be added to without touching the host."""
        self._ours[path] = True
        if path == "/":
            self._new_root()
        else:
            below = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _fresh(path, os.fstat(below))
                self._restored(path, _restore(f"/proc/self/fd/{below}", path, skip=""))
            finally:
                os.close(below)

    def _restored(self, path: str, names: list[str]) -> None:
        # They are the host's own again, although they lie in something of ours.
        self._ours.update({f"{path.rstrip('/')}/{name}": False for name in names})

    def _new_root(self) -> None:
        # It is built on a directory that exists, whose own content is reached by a descriptor.
        below = os.open(_NEW_ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _fresh(_NEW_ROOT, os.stat("/"))
            # What is bound back lies around it, and must not bring it along.
            system.mount(None, _NEW_ROOT, None, system.MS_UNBINDABLE)
            names = _restore("", _NEW_ROOT, skip=_NEW_ROOT[1:])
            self._restored("/", [*names, _NEW_ROOT[1:]])
            inner = _NEW_ROOT + _NEW_ROOT
            found = os.fstat(below)
            os.mkdir(inner)
            _same_owner(inner, found)
            bind(f"/proc/self/fd/{below}", inner)
        finally:
            os.close(below)
        os.chdir(_NEW_ROOT)
        system.pivot_root(".", ".")
        # The old root now lies over the new one at the same place.
        system.detach(".")
        os.chdir("/")
        system.mount(None, "/", None, system.MS_PRIVATE)


def _fresh(path: str, like: os.stat_result) -> None:
    system.mount("podbridge", path, "tmpfs", system.MS_NOSUID, f"mode={like.st_mode & 0o7777:o}")
    _same_owner(path, like)


def _same_owner(path: str, like: os.stat_result) -> None:
    os.chmod(path, like.st_mode & 0o7777)
    try:
        os.chown(path, like.st_uid, like.st_gid)
    except OSError:
        # An owner that this user's namespace cannot name: it stays ours.
        return


def _restore(source: str, target: str, skip: str) -> list[str]:
    """Makes every entry of `source` but one appear in `target`, which is empty: their names."""
    names = []
    for entry in os.scandir(source or "/"):
        if entry.name == skip:
            continue
        made = f"{target}/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(f"{source}/{entry.name}"), made)
            continue
        if entry.name == "ptmx" and os.access(f"{source}/pts/ptmx", os.R_OK | os.W_OK):
            # Bound by itself it would make no terminals: the kernel looks for pts beside it.
            os.symlink("pts/ptmx", made)
            continue
        try:
            if entry.is_dir():
                os.mkdir(made)
            else:
                _make_file(made)
            bind(f"{source}/{entry.name}", made)
            names.append(entry.name)
        except FileNotFoundError:
            # It was removed meanwhile: it is not there for this container either.
            _remove(made)
    return names


def _remove(path: str) -> None:
    if os.path.isdir(path):
        os.rmdir(path)
    else:
        os.unlink(path)


def _make_file(path: str) -> None:
    os.mknod(path, stat.S_IFREG | 0o644)


def _make_directories(parent: str, path: str, mode: int) -> None:
    for part in os.path.relpath(path, parent).split("/"):
        parent = f"{parent.rstrip('/')}/{part}"
        if not os.path.isdir(parent):
            os.mkdir(parent, mode)
