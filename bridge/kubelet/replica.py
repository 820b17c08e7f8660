"""Who this process is among its replicas: a name that it keeps while its state folder lives."""

from __future__ import annotations

import fcntl
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Names this start of this machine's kernel."""


@dataclass(slots=True)
class Replica:
    """This process among those that could act for a node."""

    identity: str
    """`NODE_UUID`: what it calls itself in the Lease."""
    returning: bool = False
    """Whether the name is from before, and whoever had it is dead."""
    _lock: int | None = field(default=None, repr=False)

    def close(self) -> None:
        """Lets another process have the name."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def replica(folder: Path, node: str) -> Replica:
    """The name of this replica, kept in the node's state folder: whoever restarts there after a
    crash has its Lease back at once. A lock on the file, which ends with its process, says that
    nobody else uses the name. Where it is taken, where nothing can be kept, and where the name is
    from another machine or another boot (whose locks we might not see), the name is a new one."""
    fresh = Replica(f"{node}_{uuid.uuid4()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / "replica", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return fresh
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        boot = BOOT_ID.read_text("ascii").strip()
        name, _, where = os.read(handle, 400).decode("ascii", "replace").strip().partition(" ")
        if where == boot and name.startswith(f"{node}_") and _is_uuid(name[len(node) + 1 :]):
            return Replica(name, True, handle)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{fresh.identity} {boot}".encode(), 0)
    except OSError:
        os.close(handle)
        return fresh
    fresh._lock = handle
    return fresh


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
