"""Which part of a container's log is of which of its runs: a cloud keeps one for all of them.

Between two runs the helper writes a line that says which begins, sealed with the pod's key. Nobody
is shown those. Pure but for reading.
"""

from __future__ import annotations

import hmac
import math
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256

from bridge.adapter import LogOptions
from bridge.errors import NotFound
from bridge.workload import ContainerState, Identity, Waiting

_MARKER = b"podbridge-run/1 "
_MARK = re.compile(rb"(?:\S+ )?podbridge-run/1 ([0-9]{1,9}) ([0-9a-f]{32})\n")
_MARK_LENGTH = 128
"""Bytes of a mark, at most."""


@dataclass(frozen=True, slots=True)
class Window:
    """What one run wrote."""

    run: int
    since: float | None = None
    """From when (epoch seconds); None: from the beginning."""
    until: float | None = None
    """Before when; None: to the end of the run, which may be still to come. What is there by now is
    before the end of time."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What tells the marks of one container from what it wrote itself."""

    key: bytes
    """The pod's."""
    identity: Identity
    container: str

    def number(self, line: bytes) -> int | None:
        """Which run begins behind this line; None: it is no mark."""
        found = _MARK.fullmatch(line)
        if found is None:
            return None
        who = self.identity
        text = f"podbridge run 1\n{who.uid}\n{who.attempt}\n{self.container}\n{int(found[1])}\n"
        seal = hmac.new(self.key, text.encode(), sha256).hexdigest()[:32]
        return int(found[1]) if hmac.compare_digest(seal.encode(), found[2]) else None


_LINE = 1024 * 1024
"""Bytes of a line that are kept while its end is looked for."""


def window(state: ContainerState, *, previous: bool) -> Window:
    """When the run that is asked for wrote. Raises NotFound where there was none (as the kubelet's
    validateContainerLogStatus has it: what waits to run again shows the run that ended)."""
    started = None if isinstance(state.state, Waiting) else state.state.started_at
    if not previous and not isinstance(state.state, Waiting):
        return Window(state.restart, started if state.restart else None)
    last = state.previous
    if last is None:
        what = "previous run" if previous else "run"
        raise NotFound(f"no {what} of container {state.name}")
    if isinstance(state.state, Waiting) and state.state.reason == "CrashLoopBackOff":
        # Nothing else is written until the next run.
        return Window(state.restart, last.started_at, math.inf)
    # Its last words may have a later time than its end, and none of the next run an earlier one.
    return Window(
        state.restart - 1, last.started_at, last.finished_at if started is None else started
    )


async def within(
    read: Callable[[LogOptions], AsyncGenerator[bytes, None]],
    options: LogOptions,
    span: Window,
    marks: Marks,
) -> AsyncGenerator[bytes, None]:
    """What `read` gives for these options, of that run alone."""
    starts = [one for one in (options.since, span.since) if one is not None]
    options = replace(options, previous=False, since=max(starts, default=None))
    if span.until is None:
        async with aclosing(_own(read(options), options, span.run, marks)) as pieces:
            async for piece in pieces:
                yield piece
        return
    plain = replace(options, timestamps=True, follow=False, tail_lines=None, limit_bytes=None)
    kept: deque[bytes] = deque(maxlen=options.tail_lines)
    async with aclosing(_lines(_own(read(plain), plain, span.run, marks))) as lines:
        async for line in lines:
            stamp, _, rest = line.partition(b" ")
            if _time(stamp) >= span.until:
                break
            kept.append(line if options.timestamps else rest)
    left = options.limit_bytes
    for line in kept:
        piece = line if left is None else line[:left]
        if piece:
            yield piece
        left = None if left is None else left - len(piece)


async def _own(
    pieces: AsyncGenerator[bytes, None], options: LogOptions, run: int, marks: Marks
) -> AsyncGenerator[bytes, None]:
    """What comes before the mark of a later run, without the marks of this one and of earlier ones.
    Only what may be the beginning of a mark is held back."""
    rest = _Rest(run, marks, stamped=options.timestamps)
    async with aclosing(pieces):
        async for piece in pieces:
            if out := rest.take(piece):
                yield out
            if rest.is_over:
                return
    if rest.held:
        yield rest.held


class _Rest:
    """What is left of a log to look at, as it comes."""

    def __init__(self, run: int, marks: Marks, *, stamped: bool) -> None:
        self._run = run
        self._marks = marks
        self._stamped = stamped
        """A time stands before each line."""
        self._begins = True
        """What comes next begins a line."""
        self.held = b""
        self.is_over = False
        """A later run begins."""

    def take(self, piece: bytes) -> bytes:
        """What of it is known to be the run's."""
        data, self.held = self.held + piece, b""
        out = bytearray()
        while data:
            line, end, rest = data.partition(b"\n")
            if self._begins and not end and self._may_be_mark(line):
                self.held = data
                break
            number = self._marks.number(line + end) if self._begins and end else None
            if number is not None and number > self._run:
                self.is_over = True
                break
            if number is None:
                out += line + end
            data, self._begins = rest, bool(end)
            if self._begins and _MARKER not in data:
                # One may still begin in the last line.
                whole, newline, data = data.rpartition(b"\n")
                out += whole + newline
        return bytes(out)

    def _may_be_mark(self, line: bytes) -> bool:
        """Whether a line that has not come whole may be one."""
        if self._stamped:
            _, space, line = line.partition(b" ")
            if not space:
                return True
        return len(line) < _MARK_LENGTH and (line.startswith(_MARKER) or _MARKER.startswith(line))


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    held = b""
    async for piece in pieces:
        held += piece
        *whole, held = held.split(b"\n")
        for one in whole:
            yield one + b"\n"
        while len(held) > _LINE:
            yield held[:_LINE]
            held = held[_LINE:]
    if held:
        yield held


def _time(stamp: bytes) -> float:
    """Seconds of an RFC 3339 time with nanoseconds; what is none is before everything."""
    text = stamp.decode(errors="replace")
    try:
        whole, _, fraction = text.removesuffix("Z").partition(".")
        at = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()
        return at + (float(f"0.{fraction}") if fraction else 0.0)
    except ValueError:
        return float("-inf")
