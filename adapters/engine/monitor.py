"""The monitor of a Podman container (conmon), as its host's process: it goes after the container
has ended and the last byte of its log was written.

Waiting for it costs nothing. Podman's own call for it looks at the container four times a second,
so that a hundred followed logs keep the engine busy.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path


def find(pid: int, container_id: str) -> int | None:
    """A descriptor of the process that monitors the container whose process is `pid`; None where
    there is none, or none that can be told from others. The caller closes it."""
    try:
        monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        descriptor = os.pidfd_open(monitor)
    except (OSError, ValueError, IndexError):
        return None
    # Looked at once it is held: the number cannot mean another process any more.
    try:
        words = Path(f"/proc/{monitor}/cmdline").read_bytes().split(b"\0")
    except OSError:
        words = [b""]
    if os.path.basename(words[0]) == b"conmon" and container_id.encode() in words:
        return descriptor
    os.close(descriptor)
    return None


async def gone(descriptor: int) -> None:
    """Returns once that process has ended."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
