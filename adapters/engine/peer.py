"""What the process behind a local socket may do."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

_CREDENTIALS = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""
_SYS_RESOURCE = 1 << 24
"""CAP_SYS_RESOURCE, without which an oom_score_adj can only be raised."""
_PATIENCE = 5.0


def lowers_oom_scores(path: str) -> bool:
    """Whether the engine behind that socket may lower an oom_score_adj; False: unknown as well,
    since a container whose score is refused does not start at all."""
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.settimeout(_PATIENCE)
            made.connect(path)
            raw = made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, _, _ = _CREDENTIALS.unpack(raw)
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    for line in status.splitlines():
        key, _, value = line.partition(":")
        if key == "CapEff":
            return bool(int(value, 16) & _SYS_RESOURCE)
    return False
