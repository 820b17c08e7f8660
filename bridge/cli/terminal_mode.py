"""The terminal that a command was typed in: its raw mode and its size."""

from __future__ import annotations

import asyncio
import os
import signal
import termios
import tty
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from bridge.adapter import Size


@contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Each key goes to whoever reads, Ctrl-C too; however it is left, the mode from before is back.

    Nothing that was typed ahead is lost by the change.
    """
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor, termios.TCSANOW)
    try:
        yield
    finally:
        # The terminal may have gone: then there is nothing to restore.
        with suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)


def size_of(descriptor: int) -> Size | None:
    """A terminal's size; None where it has none to tell."""
    try:
        columns, rows = os.get_terminal_size(descriptor)
    except OSError:
        return None
    return Size(columns, rows) if columns and rows else None


@contextmanager
def resized(descriptor: int, tell: Callable[[Size], Awaitable[None]]) -> Iterator[None]:
    """Tells the size at once and after each change, the newest one alone where many come."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    changed.set()

    async def follow() -> None:
        while True:
            await changed.wait()
            changed.clear()
            if size := size_of(descriptor):
                await tell(size)

    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    following = loop.create_task(follow(), name="terminal size")
    try:
        yield
    finally:
        following.cancel()
        loop.remove_signal_handler(signal.SIGWINCH)
