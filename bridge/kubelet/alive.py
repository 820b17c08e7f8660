"""Whether a node is kept from this machine: what a liveness probe asks, without any network.

Of two replicas only one acts, and only that one's API is open. Both are alive: each holds a lock on
its name in its state folder, which ends with its process. One whose API is open and yet shakes no
hands hangs; its Lease is another replica's by then, and a new process mends the rest.
"""

from __future__ import annotations

import fcntl
import os
import socket
import ssl
from pathlib import Path

from bridge.errors import Unavailable
from bridge.kubelet.findings import Finding

PATIENCE = 5.0
"""Seconds that a handshake may take: less than the 10 that the probe has."""


def looked_at(folder: Path, node: str, port: int) -> Finding:
    """What is true of a node whose state is in this folder."""
    look = f"node {node}"
    if not is_kept(folder, node):
        words = f"no process keeps it from {folder}"
        return Finding(look, "problem", words, "podbridge up does")
    try:
        words = "kept" if answers(port) else "waits for its turn"
    except Unavailable as error:
        return Finding(look, "problem", error.message)
    return Finding(look, "ok", words)


def is_kept(folder: Path, node: str) -> bool:
    """Whether a living process has its name among the replicas in this state folder."""
    for file in folder.glob(f"*/{node}/replica"):
        try:
            handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            # Shared, and let go at once. Who starts in just this moment takes another name.
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
    return False


def answers(port: int, limit: float = PATIENCE) -> bool:
    """Whether a node's API on this machine is open: only the replica that acts has it so.
    Unavailable where it is and yet does not answer: its process hangs. Blocks for `limit` seconds
    at most."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # Nothing is sent: that somebody answers is all that is asked.
    context.verify_mode = ssl.CERT_NONE
    for address in ("127.0.0.1", "::1"):
        try:
            with (
                socket.create_connection((address, port), limit) as plain,
                context.wrap_socket(plain),
            ):
                return True
        except TimeoutError:
            words = f"{at(address, port)} is open and does not answer within {limit:.0f} seconds"
            raise Unavailable(words) from None
        except OSError:
            continue
    return False


def at(address: str, port: int) -> str:
    """An address and a port, as people write them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
