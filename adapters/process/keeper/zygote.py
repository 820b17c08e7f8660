"""The zygote: forks a keeper for each start, so that a start costs a fork and not a new Python.

One for each provider, with an environment and memory of its own: nothing of the provider's reaches
a keeper but the run's own specification. It ends when the provider does; its keepers go on.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import struct
import sys
import traceback
from typing import TYPE_CHECKING

from . import mounts, run, system, terminal

if TYPE_CHECKING:
    from .spec import RunSpec

_MESSAGE_PATH = "/dev/termination-log"
"""Kubernetes' default terminationMessagePath: made once here, because /dev has many entries."""


def main() -> None:
    """Serves the provider at the other end of the socket whose number is the second argument."""
    control = socket.socket(fileno=int(sys.argv[2]))
    control.set_inheritable(False)
    os.umask(0o022)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        # Without it whoever wants a terminal is told.
        terminal.multiplexer()
    kind, why = _isolate()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        # The provider has gone without a word.
        control.sendall(json.dumps({"namespaces": kind, "why": why}).encode())
        gc.collect()
        gc.freeze()
        while descriptors := socket.recv_fds(control, 1, 1)[1]:
            _fork(control, descriptors[0])


def _fork(control: socket.socket, descriptor: int) -> None:
    try:
        pid = os.fork()
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(descriptor, f"error: {error.strerror}".encode())
        pid = -1
    if pid == 0:
        control.close()
        _keep(descriptor)
    os.close(descriptor)


def _keep(descriptor: int) -> None:
    """The rest of this process is one keeper."""
    try:
        os.setsid()
        answer = socket.socket(fileno=descriptor)
        spec = _receive(answer)
        if spec is not None:
            run.keep(spec, answer)
    except BaseException:  # noqa: BLE001
        # The outermost frame of a process that has nobody to raise to: what it leaves is a run
        # without an exit and without a lock, which every provider can read.
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(0)


def _receive(answer: socket.socket) -> RunSpec | None:
    """The specification; None where the provider went away before it was complete."""
    with answer.makefile("rb") as stream:
        header = stream.read(4)
        if len(header) < 4:
            return None
        (length,) = struct.unpack("!I", header)
        data = stream.read(length)
    if len(data) < length:
        return None
    spec: RunSpec = json.loads(data)
    return spec


def _isolate() -> tuple[str, str]:
    """Enters a mount namespace: its kind ("mount", "user", "": none), and why there is none."""
    why = ""
    for kind in ("mount", "user"):
        failure = _try(kind)
        if not failure:
            _enter(kind)
            return kind, ""
        why = why or failure
    return "", why


def _try(kind: str) -> str:
    """Why a container could not be isolated in that way; empty: it could."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _enter(kind)
            system.unshare(system.CLONE_NEWNS | system.CLONE_NEWUTS)
            system.mount(None, "/", None, system.MS_REC | system.MS_PRIVATE)
            mounts.View().cover("/")
        except OSError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as stream:
        return stream.read()


def _enter(kind: str) -> None:
    flags = system.CLONE_NEWNS
    if kind == "user":
        flags |= system.CLONE_NEWUSER
    user, group = os.geteuid(), os.getegid()
    system.unshare(flags)
    if kind == "user":
        _write("setgroups", "deny")
        _write("uid_map", f"{user} {user} 1")
        _write("gid_map", f"{group} {group} 1")
    # What is mounted on the host from now on appears here too, and never the other way round.
    system.mount(None, "/", None, system.MS_REC | system.MS_SLAVE)
    mounts.View().file(_MESSAGE_PATH)


def _write(name: str, text: str) -> None:
    with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
        file.write(text)
