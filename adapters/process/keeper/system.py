"""The system calls that Python's standard library does not have.

Everything raises OSError with the call's name in place of a file's.
"""

from __future__ import annotations

import ctypes
import os
import platform

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_RELATIME = 1 << 21

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWUSER = 0x10000000

MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 1
_SYS_MOUNT_SETATTR = 442
"""The same on every architecture that has it."""
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _checked(result: int, call: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), call)


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        os.fsencode(source) if source is not None else None,
        os.fsencode(target),
        kind.encode() if kind is not None else None,
        flags,
        data.encode() or None,
    )
    _checked(result, f"mount {target}")


def detach(target: str) -> None:
    """Takes the mount at `target` away, with all that is below it."""
    _checked(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def set_namespace(descriptor: int, kind: int) -> None:
    """setns(2): enters the namespace of that kind (CLONE_NEW...) that the descriptor names."""
    _checked(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    number = _SYS_PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(38, "not known on this architecture", "pivot_root")
    result = _libc.syscall(
        ctypes.c_long(number), ctypes.c_char_p(os.fsencode(new)), ctypes.c_char_p(os.fsencode(old))
    )
    _checked(result, "pivot_root")


def set_read_only(path: str, read_only: bool, *, recursive: bool) -> None:
    """Makes the mount at `path` read-only or writable, and those below it where `recursive`."""
    attr = _MountAttr()
    if read_only:
        attr.attr_set = _MOUNT_ATTR_RDONLY
    else:
        attr.attr_clr = _MOUNT_ATTR_RDONLY
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.c_uint(_AT_RECURSIVE if recursive else 0),
        ctypes.byref(attr),
        ctypes.c_size_t(ctypes.sizeof(attr)),
    )
    _checked(result, f"mount_setattr {path}")


def unlock_terminal(descriptor: int) -> str:
    """Lets the other end of a new terminal be opened: its path (unlockpt(3), ptsname_r(3))."""
    _checked(_libc.unlockpt(ctypes.c_int(descriptor)), "unlockpt")
    name = ctypes.create_string_buffer(64)
    number = _libc.ptsname_r(ctypes.c_int(descriptor), name, ctypes.c_size_t(len(name)))
    if number:
        raise OSError(number, os.strerror(number), "ptsname_r")
    return name.value.decode()


def _prctl(option: int, value: int, call: str) -> None:
    zero = ctypes.c_ulong(0)
    _checked(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero), call)


def die_with_parent(number: int) -> None:
    """This process gets that signal when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, number, "prctl PR_SET_PDEATHSIG")


def adopt_orphans() -> None:
    """Descendants whose parent has ended become children of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, "prctl PR_SET_CHILD_SUBREAPER")


def forbid_new_privileges() -> None:
    """No program run from here on gains privileges by being run."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, "prctl PR_SET_NO_NEW_PRIVS")


def drop_capability(number: int) -> None:
    """No program run from here on has that capability."""
    _prctl(_PR_CAPBSET_DROP, number, "prctl PR_CAPBSET_DROP")
