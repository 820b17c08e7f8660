"""What is done to a container's process itself, where the engine is on this host and we may.

The engines' API has no way to end a command, and Podman's conmon looks at a terminal's new
size only after its output was taken. Where we may not, nothing happens.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bridge.adapter import Size

_TERMINALS = range(136, 144)
"""The major device numbers of pseudoterminals' slaves (devices.txt of the kernel)."""


def kill(pid: int, container_id: str) -> None:
    """Kills the process, and its group if it leads one."""
    with suppress(OSError), _held(pid, container_id) as handle:
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        signal.pidfd_send_signal(handle, signal.SIGKILL)


def resize(pid: int, container_id: str, size: Size) -> None:
    """Gives the process's terminal that size; the kernel tells its foreground processes."""
    with suppress(OSError), _held(pid, container_id):
        for stream in range(3):
            place = f"/proc/{pid}/fd/{stream}"
            # A container may have put anything there; what is opened here is a terminal.
            about = os.stat(place)
            if not stat.S_ISCHR(about.st_mode) or os.major(about.st_rdev) not in _TERMINALS:
                continue
            terminal = os.open(place, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                words = struct.pack("HHHH", size.height, size.width, 0, 0)
                fcntl.ioctl(terminal, termios.TIOCSWINSZ, words)
            finally:
                os.close(terminal)
            return


@contextmanager
def _held(pid: int, container_id: str) -> Iterator[int]:
    """A handle that means this very process, which is in that container. OSError: it is not."""
    if pid <= 1:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    handle = os.pidfd_open(pid)
    try:
        # From here on what is read of it is true of it. Every engine names its cgroup so.
        with open(f"/proc/{pid}/cgroup", encoding="ascii", errors="replace") as file:
            if container_id not in file.read():
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        yield handle
    finally:
        os.close(handle)
