"""One run's directory: what is true of it, and asking its keeper to end it."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from array import array
from collections.abc import Sequence
from pathlib import Path

from adapters.process.keeper import files, tree
from bridge.workload import Exit, Running

_logger = logging.getLogger(__name__)

_PATIENCE = 100
"""Looks, 10 ms apart, at whether what a dead keeper left has ended, before the next list."""


class Run:
    """One run's directory."""

    def __init__(self, pod: Path, container: str, restart: int) -> None:
        self.container = container
        self.restart = restart
        self.path = pod / "containers" / f"{container}.{restart}"
        self.id = f"process://{pod.name}/{self.path.name}"

    def state(self) -> Running | Exit | None:
        """What is true of it now; None: it has not started. Blocks while it buries a dead one."""
        try:
            directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return self._exit(directory) or self._running(directory)
        finally:
            os.close(directory)

    def _exit(self, directory: int) -> Exit | None:
        try:
            found = files.read(files.EXIT, directory)
            return _exit_of(found, self.id) if found is not None else None
        except (ValueError, KeyError, TypeError):
            return _unknown(self.id, None, os.stat(files.EXIT, dir_fd=directory).st_mtime)

    def _running(self, directory: int) -> Running | Exit | None:
        try:
            mark = files.read(files.STARTED, directory)
            if mark is None:
                return None
            started = float(mark["started_at"])
            here = mark.get("boot") == tree.boot()
        except (ValueError, KeyError, TypeError):
            started, here = os.stat(files.STARTED, dir_fd=directory).st_mtime, False
        held = files.lock(directory, create=True)
        if held is None:
            return Running(started)
        try:
            # It may have ended between the two looks.
            return self._exit(directory) or self._bury(directory, started, here)
        finally:
            os.close(held)

    def _bury(self, directory: int, started: float, here: bool) -> Running | Exit:
        """Its keeper is dead: ends what is left, and records that nobody knows its end."""
        if here and not self._end_orphans(directory):
            return Running(started)
        now = time.time()
        end = _unknown(self.id, started, now)
        record = {"code": end.code, "signal": 0, "reason": end.reason, "message": end.message}
        record |= {"started_at": started, "finished_at": now}
        try:
            files.publish(files.EXIT, directory, record, sync=True)
        except OSError as error:
            _logger.warning("cannot record the end of %s: %s", self.id, error.strerror)
        return end

    def _end_orphans(self, directory: int) -> bool:
        try:
            process = files.read(files.PROCESS, directory)
        except ValueError:
            process = None
        if process is None:
            return True
        marker = f"/{'/'.join(self.path.parts[-4:])}/{files.MESSAGE}"
        marker = marker if process.get("namespaces") else ""
        for _ in range(_PATIENCE):
            if tree.kill_orphans(int(process["pid"]), int(process["start_time"]), marker):
                return True
            time.sleep(0.01)
        return False

    def ask_to_end(self, grace: float) -> bool:
        """Asks its keeper to end it; False where no keeper listens (yet, or any more)."""
        try:
            directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            # Where it has several such requests waiting, this one adds nothing now.
            _send(directory, json.dumps({"grace": grace}).encode(), ())
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        finally:
            os.close(directory)
        return True

    def pass_on(self, descriptors: Sequence[int]) -> bool | None:
        """Hands descriptors to its keeper; False where no keeper listens, None where it has no
        room for them just now."""
        try:
            directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return True if _send(directory, b"{}", descriptors) else None
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        finally:
            os.close(directory)

    def has_started(self) -> bool:
        """Whether its command was, or may have been, run."""
        return (self.path / files.STARTED).exists() or (self.path / files.EXIT).exists()

    def keeper(self) -> int | None:
        """The pid of its keeper, which has all its processes below it; None: it does not run."""
        if not isinstance(self.state(), Running):
            return None
        try:
            return int(json.loads((self.path / files.STARTED).read_bytes())["keeper"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def is_free(self) -> bool:
        """Whether no keeper has it."""
        try:
            directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            held = files.lock(directory, create=True)
            if held is not None:
                os.close(held)
            return held is not None
        finally:
            os.close(directory)


def _send(directory: int, data: bytes, descriptors: Sequence[int]) -> bool:
    """Whether the keeper's socket had room. FileNotFoundError, ConnectionRefusedError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))]
        place = f"/proc/self/fd/{directory}/{files.CONTROL}"
        try:
            sender.sendmsg([data], rights if descriptors else (), 0, place)
        except BlockingIOError:
            return False
    return True


def _exit_of(found: files.Json, container_id: str) -> Exit:
    return Exit(
        code=int(found["code"]),
        finished_at=float(found["finished_at"]),
        reason=str(found["reason"]),
        signal=int(found["signal"]),
        message=str(found["message"]),
        started_at=float(found["started_at"]),
        container_id=container_id,
    )


def _unknown(container_id: str, started: float | None, now: float) -> Exit:
    return Exit(
        code=137,
        finished_at=now,
        reason="ContainerStatusUnknown",
        message="the process that kept this container is gone: how it ended is not known",
        started_at=started,
        container_id=container_id,
    )
