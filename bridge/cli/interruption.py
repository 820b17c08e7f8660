"""Commands that go on until somebody ends them: by a signal, as shells count its exit code."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_came: list[int] = []


def hold() -> None:
    """From now on a signal waits for whoever takes `held`: what has begun must not be left by a
    signal that comes before anybody can act on it. Handlers, unlike a mask, are no child's."""
    for number in _NUMBERS:
        signal.signal(number, lambda number, _: _came.append(number))


def held() -> list[int]:
    """The signals that have come since `hold`, in their order, each once."""
    came = list(_came)
    _came.clear()
    return came


async def until_interrupted(work: Coroutine[Any, Any, int]) -> int:
    """The exit code of `work`, or 128 + signal where one ended it. `work` is cancelled then, so
    that whatever it holds (a terminal's mode, a stream) is let go."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work, name="work")
    first: list[int] = []

    def stop(number: int) -> None:
        first.append(number)
        task.cancel()

    for number in _NUMBERS:
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not first:
            raise
        return 128 + first[0]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for number in _NUMBERS:
            loop.remove_signal_handler(number)
