"""What is on disk about a run: names, marks, and how they are published.

Everything is written whole under another name and then renamed, so a reader sees all of it or
nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import Any

LOCK = "lock"
"""Held, by flock, for as long as anything of the run may live."""
STARTED = "started"
"""Written before the command is run: from then on the run may have had effects."""
PROCESS = "process"
"""The command's process, for whoever must end it after its keeper was killed."""
EXIT = "exit.json"
LOG = "log"
MESSAGE = "termination-log"
CONTROL = "control"
"""The keeper's datagram socket."""
DELETING = "deleting"
"""In the pod's directory: nothing of it starts any more."""
RESERVE = 8192
"""Bytes kept for `exit.json` from the start, so that a full disk cannot lose an exit: twice the
longest termination message."""

Json = dict[str, Any]


def exists(name: str, directory: int) -> bool:
    """Whether the directory has that entry."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def read(name: str, directory: int) -> Json | None:
    """What was published under that name; None: nothing was. ValueError: it is no JSON."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        found = json.loads(file.read())
    if not isinstance(found, dict):
        raise ValueError(f"{name} holds no object")
    return found


def publish(name: str, directory: int, content: Json, *, sync: bool) -> None:
    """Makes `content` appear under that name, all at once; on the disk itself where `sync`.

    Space that `reserve` has set aside for this name is used.
    """
    temporary = f".{name}"
    data = json.dumps(content, ensure_ascii=True).encode()
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.ftruncate(descriptor, len(data))
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    if sync:
        os.fsync(directory)


def reserve(name: str, directory: int) -> None:
    """Sets disk space aside for a later `publish` under that name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(f".{name}", flags, 0o600, dir_fd=directory)
    try:
        os.posix_fallocate(descriptor, 0, RESERVE)
    finally:
        os.close(descriptor)


def lock(directory: int, *, create: bool) -> int | None:
    """Takes the run's lock: a descriptor that holds it, or None where another has it.

    FileNotFoundError where there is no lock yet and `create` is false.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    descriptor = os.open(LOCK, flags, 0o600, dir_fd=directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
