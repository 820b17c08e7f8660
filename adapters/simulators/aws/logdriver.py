"""The awslogs driver: from what a container writes to CloudWatch Logs.

`blocking` waits where the service takes nothing just now; `non-blocking`, AWS's default since June
2025, drops new lines once its buffer is full, as Docker's driver does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from adapters.simulators.aws.errors import ApiError
from adapters.simulators.common import timestamps

Event = tuple[int, str]
"""Milliseconds since the epoch, message."""
Sink = Callable[[str, str, Sequence[Event]], Awaitable[None]]
"""PutLogEvents: group, stream, events. ApiError."""

MAX_EVENT = 256 * 1024 - 26
"""Bytes of a message: longer lines are split (PutLogEvents, less its overhead)."""
BATCH = 1000
DEFAULT_BUFFER = 10 * 1024 * 1024
"""Bytes: max-buffer-size where it is not given (the model's prose of LogConfiguration)."""
_RETRY = 0.1
"""Real seconds between attempts at a service that takes nothing."""
_UNITS = {"k": 1024, "m": 1024**2, "g": 1024**3}


def buffer_size(text: str) -> int:
    """`25m` in bytes."""
    text = text.strip().lower().removesuffix("b")
    unit = _UNITS.get(text[-1:], 1)
    return int(text.rstrip("kmg")) * unit


@dataclass(frozen=True, slots=True)
class Options:
    """Where to, and what to do where that takes nothing."""

    group: str
    stream: str
    blocking: bool = False
    buffer: int = DEFAULT_BUFFER


class Driver:
    """One container's log on its way."""

    def __init__(self, options: Options, sink: Sink) -> None:
        self._options = options
        self._sink = sink
        self._queue: deque[Event] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._closed = False
        self.dropped = 0
        """Lines that found the buffer full."""

    async def run(self, pieces: AsyncIterator[bytes]) -> None:
        """Takes all that comes (timestamped lines) and returns once the service has it."""
        sending = asyncio.create_task(self._send(), name=f"awslogs {self._options.stream}")
        try:
            rest = b""
            async for piece in pieces:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    await self._add(line)
            if rest:
                await self._add(rest)
            self._closed = True
            self._changed.set()
            await sending
        finally:
            sending.cancel()

    async def _add(self, line: bytes) -> None:
        moment, _, content = line.partition(b" ")
        at = int(timestamps.parse(_to_microseconds(moment.decode())) * 1000)
        # An empty line is no event: a message has at least one character.
        for start in range(0, len(content), MAX_EVENT):
            message = content[start : start + MAX_EVENT].decode("utf-8", "replace")
            await self._put((at, message))

    async def _put(self, event: Event) -> None:
        while self._queue and self._size + len(event[1]) > self._options.buffer:
            if not self._options.blocking:
                self.dropped += 1
                return
            self._changed.clear()
            await self._changed.wait()
        self._queue.append(event)
        self._size += len(event[1])
        self._changed.set()

    async def _send(self) -> None:
        while True:
            while not self._queue:
                if self._closed:
                    return
                self._changed.clear()
                await self._changed.wait()
            batch = [self._queue[at] for at in range(min(BATCH, len(self._queue)))]
            try:
                await self._sink(self._options.group, self._options.stream, batch)
            except ApiError:
                await asyncio.sleep(_RETRY)
                continue
            for _ in batch:
                self._size -= len(self._queue.popleft()[1])
            self._changed.set()


def _to_microseconds(moment: str) -> str:
    """RFC 3339 with nanoseconds in a form that Python reads."""
    whole, dot, fraction = moment.partition(".")
    digits = fraction.rstrip("Z")
    return f"{whole}.{digits[:6]}Z" if dot else moment
