"""Virtual time: an event loop whose clock jumps to the next timer when nothing else is to do."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH = 1_800_000_000.0
"""Where virtual time starts, in seconds since the epoch."""


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout is None or timeout <= 0:
            return ready or (super().select(timeout) if timeout is None else ready)
        self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time starts at 0 and never waits."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def clock() -> float:
    """Seconds since the epoch in virtual time."""
    return EPOCH + asyncio.get_running_loop().time()


def run(coroutine: Coroutine[Any, Any, T], limit: float = 100_000.0) -> T:
    """Runs a coroutine in virtual time, at most `limit` virtual seconds."""

    async def bounded() -> T:
        return await asyncio.wait_for(coroutine, limit)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(bounded())
