"""Which part of a container's log is of which of its runs: a cloud keeps one for all of them. Pure
but for reading."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime

from bridge.adapter import LogOptions
from bridge.errors import NotFound
from bridge.workload import ContainerState, Waiting

Window = tuple[float | None, float | None]
"""From when (epoch seconds; None: the beginning), and before when; None: to the end, and what is
still to come. What is there by now is before the end of time."""

_LINE = 1024 * 1024
"""Bytes of a line that are kept while its end is looked for."""


def window(state: ContainerState, *, previous: bool) -> Window:
    """When the run that is asked for wrote. Raises NotFound where there was none (as the kubelet's
    validateContainerLogStatus has it: what waits to run again shows the run that ended)."""
    started = None if isinstance(state.state, Waiting) else state.state.started_at
    if not previous and not isinstance(state.state, Waiting):
        return (started if state.restart else None, None)
    last = state.previous
    if last is None:
        what = "previous run" if previous else "run"
        raise NotFound(f"no {what} of container {state.name}")
    if isinstance(state.state, Waiting):
        # Between two runs nothing else is written; else the next one has begun already.
        between = state.state.reason == "CrashLoopBackOff"
        return (last.started_at, math.inf if between else last.finished_at)
    # Its last words may have a later time than its end, and none of the next run an earlier one.
    return (last.started_at, last.finished_at if started is None else started)


async def within(
    read: Callable[[LogOptions], AsyncGenerator[bytes, None]], options: LogOptions, span: Window
) -> AsyncGenerator[bytes, None]:
    """What `read` gives for these options, of that time alone."""
    since, until = span
    starts = [one for one in (options.since, since) if one is not None]
    options = replace(options, previous=False, since=max(starts, default=None))
    if until is None:
        async with aclosing(read(options)) as pieces:
            async for piece in pieces:
                yield piece
        return
    plain = replace(options, timestamps=True, follow=False, tail_lines=None, limit_bytes=None)
    kept: deque[bytes] = deque(maxlen=options.tail_lines)
    async with aclosing(_lines(read(plain))) as lines:
        async for line in lines:
            stamp, _, rest = line.partition(b" ")
            if _time(stamp) >= until:
                break
            kept.append(line if options.timestamps else rest)
    left = options.limit_bytes
    for line in kept:
        piece = line if left is None else line[:left]
        if piece:
            yield piece
        left = None if left is None else left - len(piece)


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
