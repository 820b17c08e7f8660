"""Whom the kernel has killed for want of memory, from its own log.

Podman on cgroup v1 tells an OOM kill as plain exit code 137, and the container's counters are gone
with its cgroup by then. The kernel's log names the cgroup of what it killed, and both engines put
a container's ID into that name. It is read where the engine is on this host and we may.
"""

from __future__ import annotations

import os
import re

_DEVICE = "/dev/kmsg"
_LONGEST = 8192
"""Bytes: no record is longer."""
_KILLED = re.compile(rb"oom-kill:.*\btask_memcg=(\S*?),task=")
_ID = re.compile(rb"[0-9a-f]{64}")


def killed(record: bytes) -> str:
    """The container's ID in a record that tells of an OOM kill, else empty."""
    found = _KILLED.search(record)
    ids = _ID.findall(found[1]) if found else []
    return ids[-1].decode("ascii") if ids else ""


class KernelLog:
    """Reads the log from its beginning, and later only what has come since."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._killed: set[str] = set()

    def open(self) -> None:
        """Opens it; where that is not allowed nothing is ever known."""
        try:
            self._descriptor = os.open(_DEVICE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._descriptor = -1

    def close(self) -> None:
        """Closes it. May be repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def has_killed(self, container: str) -> bool:
        """Whether something of the container with that ID was killed for want of memory."""
        while self._descriptor >= 0:
            try:
                record = os.read(self._descriptor, _LONGEST)
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue  # Records were overwritten before they were read: go on at the next.
            except OSError:
                self.close()
                break
            if name := killed(record):
                self._killed.add(name)
        return container in self._killed

    def keep(self, containers: set[str]) -> None:
        """Forgets all others."""
        self._killed &= containers
