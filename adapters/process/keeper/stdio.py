"""A container's own streams: its input, its output, its log, and who is attached to them.

An attached provider reads a pipe of its own into which the keeper copies. A reader that falls
behind slows the container down, as a slow terminal would; one that takes nothing at all for its
patience is cut off, and then container, log and the others go on. So an attachment never holds
more than its pipe and one piece of output, and never stops a container for good.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

from . import output, terminal, watch

if TYPE_CHECKING:
    from .child import Streams
    from .spec import RunSpec

_PIPE = 256 * 1024
"""Bytes that an attachment's pipe holds."""
_LAST = 1024 * 1024
"""The same when nothing more will come: room for all that the keeper still has, so that it need
not wait for the reader. The kernel gives no more to who is not root (pipe(7))."""


class Tap:
    """One attachment's copy of one stream."""

    def __init__(self, patience: float) -> None:
        self.theirs, self._ours = os.pipe2(os.O_CLOEXEC)
        """The end that the provider reads."""
        os.set_blocking(self._ours, False)
        self._held = b""
        self._patience = patience
        self.cut_at: float | None = None
        """When its reader is given up unless it takes something; None: it keeps up."""
        self.grow(_PIPE)

    @property
    def descriptor(self) -> int:
        """The end that is written to; negative: closed."""
        return self._ours

    @property
    def full(self) -> bool:
        """Whether something waits for room."""
        return bool(self._held)

    def grow(self, size: int) -> None:
        """Makes room, where the kernel still lets this user, and uses it."""
        if self._ours >= 0:
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._ours, fcntl.F_SETPIPE_SZ, size)
            if self._held:
                self.put(b"")

    def put(self, data: bytes) -> None:
        """Passes on what has room; holds the rest."""
        if self._ours < 0:
            return
        self._held += data
        try:
            taken = os.write(self._ours, self._held)
        except BlockingIOError:
            taken = 0
        except OSError:
            # Nobody reads any more.
            self.close()
            return
        self._held = self._held[taken:]
        if not self._held:
            self.cut_at = None
        elif taken or self.cut_at is None:
            self.cut_at = time.monotonic() + self._patience

    def close(self) -> None:
        """Its reader comes to the end of what is in the pipe."""
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1
        self._held, self.cut_at = b"", None


class Source:
    """One stream that the container writes: into its log, and to all taps."""

    def __init__(self, name: str, descriptor: int, log: output.Log, watching: watch.Watch) -> None:
        self.name = name
        self._descriptor = descriptor
        self._stream = output.Stream(name, log)
        self._watch = watching
        self._taps: list[Tap] = []
        self._over = False
        os.set_blocking(descriptor, False)
        watching.add(descriptor, self._serve)

    def tap(self, patience: float) -> Tap:
        """A copy of what comes from now on."""
        tap = Tap(patience)
        self._taps.append(tap)
        return tap

    def untap(self, tap: Tap) -> None:
        """Nobody wants that copy any more."""
        self._taps.remove(tap)
        if tap.descriptor >= 0:
            self._watch.drop(tap.descriptor)
        tap.close()
        self._go_on()

    def _serve(self) -> None:
        if not self._read():
            self._over = True
            self._watch.drop(self._descriptor)

    def _read(self) -> bool:
        """Takes what is there; False at the end."""
        try:
            data = os.read(self._descriptor, output.CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            # EIO: nobody has the terminal open any more.
            return False
        self._take(data)
        return bool(data)

    def _take(self, data: bytes) -> None:
        if not data:
            return
        self._stream.feed(data)
        for tap in self._taps:
            tap.put(data)
            if tap.full:
                self._watch.drop(self._descriptor)
                self._watch.add(tap.descriptor, self._drain, watch.WRITE)

    def _drain(self) -> None:
        for tap in self._taps:
            if tap.full:
                before = tap.descriptor
                tap.put(b"")
                if not tap.full:
                    self._watch.drop(before)
        self._go_on()

    def _go_on(self) -> None:
        if not self._over and not any(tap.full for tap in self._taps):
            self._watch.add(self._descriptor, self._serve)

    def end(self) -> None:
        """Nobody writes any more: takes all that is left."""
        self._watch.drop(self._descriptor)
        for tap in self._taps:
            self._watch.drop(tap.descriptor)
            tap.grow(_LAST)
        with contextlib.suppress(OSError):
            while data := os.read(self._descriptor, output.CHUNK):
                self._stream.feed(data)
                for tap in self._taps:
                    tap.put(data)
        self._over = True
        self._stream.end()


class Stdio:
    """All three, or the terminal that stands for them."""

    def __init__(self, spec: RunSpec, log: output.Log, watching: watch.Watch) -> None:
        self._spec = spec
        self._log = log
        self._watch = watching
        self._input = -1
        self.terminal = -1
        """Our end of the terminal; negative: there is none."""
        self._sources: tuple[tuple[str, int], ...] = ()
        self.outputs: list[Source] = []

    def make(self) -> Streams:
        """The container's ends."""
        if self._spec["tty"]:
            self.terminal, theirs = terminal.make(self._spec["user"])
            self._sources = (("stdout", self.terminal),)
            return (theirs, theirs, theirs)
        if self._spec["stdin"]:
            stdin, self._input = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._input, False)
        else:
            stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        out, out_end = os.pipe2(os.O_CLOEXEC)
        err, err_end = os.pipe2(os.O_CLOEXEC)
        self._sources = (("stdout", out), ("stderr", err))
        return (stdin, out_end, err_end)

    def watch(self, theirs: Streams) -> None:
        """The container has its ends: from here on its output is read."""
        if self.terminal < 0:
            for descriptor in theirs:
                os.close(descriptor)
        # The terminal's other end stays open, so that a container may let go of its terminal and
        # open it again without an end being seen in between.
        self.outputs = [
            Source(name, descriptor, self._log, self._watch) for name, descriptor in self._sources
        ]

    @property
    def input(self) -> int:
        """Where its input is written to; negative: it has none, or none any more."""
        if not self._spec["stdin"]:
            return -1
        return self.terminal if self._spec["tty"] else self._input

    def input_is_over(self) -> None:
        """An attachment with its input has ended."""
        if self._spec["stdin_once"] and self._input >= 0:
            os.close(self._input)
            self._input = -1

    def end(self) -> None:
        """Everybody who wrote has ended: takes all that is left."""
        for source in self.outputs:
            source.end()
