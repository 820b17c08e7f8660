"""Terminals for processes that want one."""

from __future__ import annotations

import fcntl
import functools
import os
import termios
from collections.abc import Mapping

from . import system


@functools.cache
def multiplexer() -> int:
    """The host's own /dev/ptmx, whose first caller is the zygote while it still sees that: the
    device makes no terminals where it was bound by itself, away from its /dev/pts. OSError."""
    return os.open("/dev/ptmx", os.O_PATH | os.O_CLOEXEC)


def make(owner: int | None) -> tuple[int, int]:
    """A new terminal: our end, which does not block, and the process's.

    `owner` is the user that the process will run as, who may want to open it again by its name.
    OSError.
    """
    how = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    ours = os.open(f"/proc/self/fd/{multiplexer()}", how | os.O_NONBLOCK)
    try:
        theirs = os.open(system.unlock_terminal(ours), how)
    except OSError:
        os.close(ours)
        raise
    if owner is not None:
        os.fchown(theirs, owner, -1)
    return ours, theirs


def control() -> None:
    """Makes the terminal at standard input the one that controls this session, which has none."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """With what a process at a terminal needs to know: container runtimes set it too."""
    return {"TERM": "xterm", **given}
