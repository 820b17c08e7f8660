"""Who else has to do with a running container: commands that were started in it, and attachments.

A provider sends one end of a socket pair to the keeper's control socket, with a request. What the
keeper has to say comes back over that pair, one JSON object a message:

    {"names": [...]} and the descriptors so named: "stdin", "stdout", "stderr", or "terminal"
    {"error": "..."}: it could not be started, or it was cut off
    {"exit": 137}

From the first message on the provider reads and writes the pipes (or the terminal) itself, so the
kernel holds back who writes too fast, and nothing here ever waits for data. The provider says that
its input has ended by any message; whatever it closes the pair for ends the command.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from . import child, stdio, system, terminal, tree, watch

if TYPE_CHECKING:
    from .child import Namespaces
    from .spec import Request, RunSpec

_NAMESPACES = (("mnt", system.CLONE_NEWNS), ("uts", system.CLONE_NEWUTS))
_CUT = "it took none of the container's output for {:g} s, and was cut off"

_LOST = "the container ended with more output than this attachment had room for"


def code_of(status: int) -> int:
    """The exit code that a wait status stands for: 128 + signal where that ended it."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


class _Guest:
    """One channel of a provider."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def _tell(self, message: dict[str, object], descriptors: Sequence[int] = ()) -> None:
        # A provider that has gone hears nothing: its end of the pair says so too.
        with contextlib.suppress(OSError):
            socket.send_fds(self._channel, [json.dumps(message).encode()], descriptors)


class _Command(_Guest):
    """A command that was started in the container for a channel."""

    def __init__(self, channel: socket.socket, watching: watch.Watch) -> None:
        super().__init__(channel)
        self._watch = watching
        self._status = -1
        self._ours: dict[str, int] = {}
        self.pid = 0

    def start(self, spec: RunSpec, request: Request, namespaces: Namespaces) -> None:
        """Forks. OSError."""
        with contextlib.ExitStack() as theirs:
            streams = self._streams(spec, request, theirs)
            self._status, status = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            theirs.callback(os.close, status)
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            try:
                self.pid = os.fork()
                if not self.pid:
                    child.join(spec, namespaces, request, streams, status)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._watch.add(self._status, self._started)
        self._watch.add(self._channel.fileno(), self._heard)

    def _streams(
        self, spec: RunSpec, request: Request, theirs: contextlib.ExitStack
    ) -> child.Streams:
        if request["tty"]:
            self._ours["terminal"], end = terminal.make(spec["user"])
            theirs.callback(os.close, end)
            return (end, end, end)
        if request["stdin"]:
            stdin, self._ours["stdin"] = os.pipe2(os.O_CLOEXEC)
        else:
            stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        theirs.callback(os.close, stdin)
        self._ours["stdout"], out = os.pipe2(os.O_CLOEXEC)
        theirs.callback(os.close, out)
        self._ours["stderr"], err = os.pipe2(os.O_CLOEXEC)
        theirs.callback(os.close, err)
        return (stdin, out, err)

    def _started(self) -> None:
        """It has become the command, or cannot."""
        if self._status < 0:
            return
        try:
            words = os.read(self._status, 65536)
        except BlockingIOError:
            return
        self._watch.drop(self._status)
        os.close(self._status)
        self._status = -1
        if words:
            self._tell({"error": words.decode("utf-8", "replace")})
        else:
            self._tell({"names": list(self._ours)}, list(self._ours.values()))
        self._let_go()

    def _let_go(self) -> None:
        # From here on the pipes end where the provider or the command ends.
        for descriptor in self._ours.values():
            os.close(descriptor)
        self._ours = {}

    def _heard(self) -> None:
        try:
            said = self._channel.recv(1)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._watch.drop(self._channel.fileno())
            tree.kill_session(self.pid)

    def ended(self, status: int) -> None:
        """It was waited for."""
        self._started()
        self._tell({"exit": code_of(status)})
        self.close()

    def close(self) -> None:
        """Lets go of all that is open for it."""
        if self._status >= 0:
            self._watch.drop(self._status)
            os.close(self._status)
            self._status = -1
        self._let_go()
        self._watch.drop(self._channel.fileno())
        self._channel.close()


class _Attachment(_Guest):
    """A channel that has joined the container's own streams."""

    def __init__(
        self,
        channel: socket.socket,
        watching: watch.Watch,
        streams: stdio.Stdio,
        request: Request,
        gone: Callable[[_Attachment], None],
    ) -> None:
        super().__init__(channel)
        self._watch = watching
        self._streams = streams
        self._request = request
        self._gone = gone
        self._has_input = request["stdin"] and streams.input >= 0
        self._taps = [(one, one.tap(request["patience"])) for one in streams.outputs]
        named = {source.name: tap.theirs for source, tap in self._taps}
        if streams.terminal >= 0:
            named["terminal"] = streams.terminal
        elif self._has_input:
            named["stdin"] = streams.input
        self._tell({"names": list(named), "input": self._has_input}, list(named.values()))
        for _, tap in self._taps:
            os.close(tap.theirs)
        watching.add(channel.fileno(), self._heard)

    def _heard(self) -> None:
        try:
            said = self._channel.recv(1)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said:
            self._input_is_over()
        else:
            self.close()

    def _input_is_over(self) -> None:
        if self._has_input:
            self._has_input = False
            self._streams.input_is_over()

    @property
    def cut_at(self) -> float | None:
        """When it is given up unless it takes something; None: it keeps up."""
        due = [tap.cut_at for _, tap in self._taps if tap.cut_at is not None]
        return min(due) if due else None

    def cut(self) -> None:
        """It holds up the container, and takes nothing."""
        self._tell({"error": _CUT.format(self._request["patience"])})
        self.close()

    def end(self, code: int) -> None:
        """The container has ended, and all that it wrote was passed on."""
        if any(tap.full for _, tap in self._taps):
            self._tell({"error": _LOST})
        else:
            self._tell({"exit": code})
        self.close()

    def close(self) -> None:
        """Leaves the container's streams."""
        self._input_is_over()
        for source, tap in self._taps:
            source.untap(tap)
        self._taps = []
        self._watch.drop(self._channel.fileno())
        self._channel.close()
        self._gone(self)


class Guests:
    """All of them. Until the container's own command runs they wait."""

    def __init__(self, spec: RunSpec, streams: stdio.Stdio, watching: watch.Watch) -> None:
        self._spec = spec
        self._streams = streams
        self._watch = watching
        self._pid = 0
        self._waiting: list[tuple[socket.socket, Request]] = []
        self._commands: dict[int, _Command] = {}
        self._attached: set[_Attachment] = set()

    def welcome(self, descriptors: Sequence[int]) -> None:
        """Somebody has sent a channel and a request. What is not ours is closed without a word."""
        with contextlib.ExitStack() as open_:
            for descriptor in descriptors:
                open_.callback(os.close, descriptor)
            if len(descriptors) != 2:
                return
            with contextlib.suppress(OSError, ValueError):
                channel = socket.socket(fileno=os.dup(descriptors[0]))
                channel.setblocking(False)
                if _is_ours(channel):
                    size = os.fstat(descriptors[1]).st_size
                    request: Request = json.loads(os.pread(descriptors[1], size, 0))
                    self._waiting.append((channel, request))
        self._admit()

    def ready(self, pid: int) -> None:
        """The container's own command runs, as that process."""
        self._pid = pid
        self._admit()

    def _admit(self) -> None:
        if not self._pid:
            return
        for channel, request in self._waiting:
            if request["command"]:
                self._start(channel, request)
            else:
                one = _Attachment(
                    channel, self._watch, self._streams, request, self._attached.discard
                )
                self._attached.add(one)
        self._waiting = []

    def _start(self, channel: socket.socket, request: Request) -> None:
        with contextlib.ExitStack() as opened:
            command = _Command(channel, self._watch)
            try:
                command.start(self._spec, request, tuple(self._namespaces(opened)))
            except OSError:
                # No memory, no processes, no terminals left; or the container has just ended.
                command.close()
                return
        self._commands[command.pid] = command

    def _namespaces(self, opened: contextlib.ExitStack) -> Iterable[tuple[int, int]]:
        # The container's process was not waited for yet: its number is nobody else's.
        for name, kind in _NAMESPACES if self._spec["namespaces"] else ():
            place = f"/proc/{self._pid}/ns/{name}"
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            yield descriptor, kind

    def ended(self, pid: int, status: int) -> None:
        """A child of the keeper was waited for: perhaps one of theirs."""
        command = self._commands.pop(pid, None)
        if command is not None:
            command.ended(status)

    @property
    def due(self) -> float | None:
        """When somebody has to be looked at (of the monotonic clock)."""
        due = [one.cut_at for one in self._attached if one.cut_at is not None]
        return min(due) if due else None

    def look(self, now: float) -> None:
        """Cuts off who holds up the container and takes nothing."""
        for one in list(self._attached):
            if one.cut_at is not None and now >= one.cut_at:
                one.cut()

    def end(self, code: int) -> None:
        """The container has ended."""
        for channel, _ in self._waiting:
            channel.close()
        for one in list(self._attached):
            one.end(code)
        # What could not be killed and waited for.
        for command in self._commands.values():
            command.close()


def _is_ours(channel: socket.socket) -> bool:
    """Whether this user made that pair of sockets: the directory keeps all others out already."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack(
        "3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return bool(user == os.geteuid())
