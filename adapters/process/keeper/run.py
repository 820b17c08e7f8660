"""A keeper: the process that stands beside one run of one container, whoever else comes and goes.

It takes the run's lock, marks it as started, runs the command, writes the log, obeys stop requests,
serves whoever attaches or runs more commands there, ends what the command leaves behind, and
publishes the exit. Only then does it let the lock go.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import time
from typing import TYPE_CHECKING

from . import child, files, guests, output, stdio, system, tree, watch

if TYPE_CHECKING:
    from .spec import RunSpec

_GLANCE = 2.0
"""Seconds between looks at whether the run's directory is still there: somebody may have removed
it, and then nobody will ever ask for this container again."""
_MESSAGE = 4096
"""Bytes of a termination message: Kubernetes' MaxContainerTerminationMessageLength."""
_FALLBACK = (80, 2048)
"""Lines and bytes of a log that stands for one: MaxContainerTerminationMessageLog{Lines,Length}."""
_START_NOTICE = 0.1
"""Seconds that a provider is given to take a notice before it is left to its next look. Meanwhile
the container may wait for its output to be taken."""
_EXIT_NOTICE = 5.0
"""The same at the end, when nothing waits any more."""


class Keeper:
    """One run. Its lock is held by the caller."""

    def __init__(self, spec: RunSpec, directory: int) -> None:
        self._spec = spec
        self._directory = directory
        self._pid = 0
        self._status: int | None = None
        self._kill_at: float | None = None
        self._stopping = False
        self._started = time.time()
        self._hard_stop_at: float | None = None
        self._overdue = False
        self._failure = b""
        log = os.open(
            files.LOG, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._directory
        )
        self._log_file = log
        self._log = output.Log(log)
        self._watch = watch.Watch()
        self._streams = stdio.Stdio(spec, self._log, self._watch)
        self._guests = guests.Guests(spec, self._streams, self._watch)

    def prepare(self) -> None:
        """Makes all that a run needs, the mark on disk that it started last. OSError."""
        self._ends = self._streams.make()
        message = os.open(
            files.MESSAGE, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=self._directory
        )
        # The container may run as any user; the directory above keeps all others out.
        os.fchmod(message, 0o666)
        os.close(message)
        with contextlib.suppress(OSError):
            # A file system without fallocate: then only a full disk at the end can lose the exit.
            files.reserve(files.EXIT, self._directory)
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(files.CONTROL, dir_fd=self._directory)
        # What it is bound to has this mode from the start.
        os.fchmod(self._control.fileno(), 0o600)
        self._control.bind(f"/proc/self/fd/{self._directory}/{files.CONTROL}")
        self._started = time.time()
        mark = {"keeper": os.getpid(), "started_at": self._started, "boot": tree.boot()}
        files.publish(files.STARTED, self._directory, mark, sync=True)

    def start(self) -> None:
        """Starts the command's process."""
        system.adopt_orphans()
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        status, status_end = os.pipe2(os.O_CLOEXEC)
        gate, gate_end = os.pipe2(os.O_CLOEXEC)
        # A stop that comes before the command is there waits for it, instead of being ignored.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._pid = os.fork()
        if not self._pid:
            os.close(gate_end)
            # Nothing of the command may happen before its process is on record.
            if os.read(gate, 1):
                child.become(self._spec, self._ends, status_end)
            os._exit(128)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(status_end)
        os.close(gate)
        record = {
            "pid": self._pid,
            "start_time": tree.start_time(self._pid),
            "namespaces": self._spec["namespaces"],
        }
        files.publish(files.PROCESS, self._directory, record, sync=False)
        os.write(gate_end, b".")
        os.close(gate_end)
        if (limit := self._spec["hard_stop"]) is not None:
            self._hard_stop_at = time.monotonic() + limit
        self._wake, self._child_status = wake, status
        self._streams.watch(self._ends)
        os.set_blocking(status, False)
        self._watch.add(wake, self._wakened)
        self._watch.add(status, self._command_says)
        self._watch.add(self._control.fileno(), self._obey)

    def keep(self) -> None:
        """Stands by until the command's process has ended, and all that it left."""
        while self._status is None:
            self._watch.wait(self._patience())
            now = time.monotonic()
            if self._hard_stop_at is not None and now >= self._hard_stop_at:
                self._hard_stop_at = None
                self._overdue = not self._stopping
                self._end(self._spec["grace"])
            if self._kill_at is not None and now >= self._kill_at:
                tree.kill_descendants()
                self._kill_at = now + _GLANCE
            self._guests.look(now)
            if os.fstat(self._directory).st_nlink == 0:
                tree.kill_descendants()
        tree.kill_all(self._guests.ended)
        # Who comes now finds nobody, and looks at how it ended.
        self._control.close()
        self._streams.end()
        self._failure += _available(self._child_status)

    def _patience(self) -> float:
        times = (self._kill_at, self._hard_stop_at, self._guests.due)
        due = [at for at in times if at is not None]
        if not due:
            return _GLANCE
        return min(_GLANCE, max(0.0, min(due) - time.monotonic()) + 0.001)

    def _wakened(self) -> None:
        _available(self._wake)
        with contextlib.suppress(ChildProcessError):
            tree.reap(self._ended)

    def _ended(self, pid: int, status: int) -> None:
        if pid == self._pid:
            self._status = status
        else:
            self._guests.ended(pid, status)

    def _command_says(self) -> None:
        """Why it cannot run; or, by its end, that it does."""
        if data := _available(self._child_status):
            self._failure += data
            return
        self._watch.drop(self._child_status)
        if not self._failure:
            self._guests.ready(self._pid)

    def _obey(self) -> None:
        try:
            data, descriptors = _received(self._control)
            if descriptors:
                self._guests.welcome(descriptors)
                return
            grace = float(json.loads(data)["grace"])
        except (OSError, ValueError, KeyError, TypeError):
            # Not one of ours: only this user can send here, so it is an accident.
            return
        self._end(grace)

    def _end(self, grace: float) -> None:
        at = time.monotonic() + grace
        if grace > 0 and not self._stopping:
            self._signal(self._spec["stop_signal"])
        self._stopping = True
        self._kill_at = at if self._kill_at is None else min(at, self._kill_at)

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._pid, number)
        except ProcessLookupError:
            # It has not made its own group yet, or has just ended.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def result(self) -> files.Json:
        """How it ended, as it is published."""
        status = self._status or 0
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = guests.code_of(status)
        reason = "Error" if code else "Completed"
        if self._failure:
            code, number, reason = 128, 0, "StartError"
            message = self._failure.decode("utf-8", "replace")
        elif self._overdue:
            # It may answer the stop signal with 0, and has not come to its own end all the same.
            code = code or 128 + self._spec["stop_signal"]
            reason = "Error"
            message = f"the hard stop of {self._spec['hard_stop']:g} s was reached"
        else:
            message = self._message(code)
        return {
            "code": code,
            "signal": number,
            "reason": reason,
            "started_at": self._started,
            "finished_at": max(time.time(), self._started),
            "message": self._with_losses(message),
        }

    def _with_losses(self, message: str) -> str:
        """The message, and what of the log found no space: nobody should trust such a log."""
        if not self._log.lost:
            return message
        words = f"{self._log.lost} bytes of its log were lost: no space left"
        return f"{message} ({words})" if message else words

    def _message(self, code: int) -> str:
        data = b""
        if self._spec["namespaces"] and self._spec["message_path"]:
            with contextlib.suppress(OSError):
                data = _tail(files.MESSAGE, self._directory, _MESSAGE)
        if not data and code and self._spec["logs_as_message"]:
            return output.last_lines(self._log_file, *_FALLBACK)
        return data.decode("utf-8", "replace")

    def finish(self) -> None:
        """Publishes the exit."""
        result = self.result()
        self._publish(result)
        self._guests.end(result["code"])

    def _publish(self, result: files.Json) -> None:
        try:
            files.publish(files.EXIT, self._directory, result, sync=True)
        except FileNotFoundError:
            # The run's directory was removed: nobody wants to know.
            return
        except OSError:
            # A full disk: the code matters more than the words.
            short = {**result, "message": ""}
            with contextlib.suppress(OSError):
                files.publish(files.EXIT, self._directory, short, sync=False)


def _available(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, output.CHUNK)
    except BlockingIOError:
        return b""


def _received(control: socket.socket) -> tuple[bytes, list[int]]:
    """A datagram, and the descriptors that came with it."""
    # Room for one more than is right, so that a wrong number of them is seen.
    room = socket.CMSG_SPACE(3 * struct.calcsize("i"))
    data, ancillary, _, _ = control.recvmsg(_MESSAGE, room, socket.MSG_CMSG_CLOEXEC)
    found: list[int] = []
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found += [one for (one,) in struct.iter_unpack("i", content[: len(content) // 4 * 4])]
    return data, found


def _tail(name: str, directory: int, limit: int) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, limit, max(0, size - limit))
    finally:
        os.close(descriptor)


def tell(notify: str, pod: str, patience: float) -> None:
    """Says to every provider that listens here that something of that pod has changed."""
    with contextlib.suppress(FileNotFoundError):
        directory = os.open(notify, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            # The kernel's own time limit: Python's would spin, because a socket that is not
            # connected always counts as ready to send.
            seconds, rest = divmod(patience, 1)
            limit = struct.pack("@ll", int(seconds), int(rest * 1_000_000))
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            for name in os.listdir(directory):
                with contextlib.suppress(OSError):
                    # A provider that has gone or is too busy: its next look finds it all.
                    sender.sendto(pod.encode(), f"/proc/self/fd/{directory}/{name}")
        os.close(directory)


def _claim(spec: RunSpec, answer: socket.socket) -> int | None:
    """The run's directory, its lock held; None (and why, in the answer) where there is no work."""
    try:
        directory = os.open(spec["run"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        _answer(answer, b"gone")
        return None
    if files.lock(directory, create=True) is None or files.exists(files.STARTED, directory):
        _answer(answer, b"exists")
        return None
    if files.exists(f"../../{files.DELETING}", directory) or not os.path.exists(spec["run"]):
        _answer(answer, b"gone")
        return None
    return directory


def _answer(answer: socket.socket, words: bytes) -> None:
    # Whoever asked may have been killed meanwhile: the run goes on all the same.
    with contextlib.suppress(OSError):
        answer.sendall(words)


def keep(spec: RunSpec, answer: socket.socket) -> None:
    """A keeper's life. `answer` is told as soon as the run is on record as started."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # It goes when its container has gone; a shutdown's signals reach the container too.
        signal.signal(number, signal.SIG_IGN)
    directory = _claim(spec, answer)
    if directory is None:
        return
    try:
        keeper = Keeper(spec, directory)
        keeper.prepare()
    except OSError as error:
        # Nothing has happened and nothing says so: whoever asked may ask again.
        _answer(answer, f"error: {error}".encode())
        return
    _answer(answer, b"started")
    answer.close()
    keeper.start()
    tell(spec["notify"], spec["pod"], _START_NOTICE)
    keeper.keep()
    keeper.finish()
    tell(spec["notify"], spec["pod"], _EXIT_NOTICE)
