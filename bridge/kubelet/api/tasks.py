"""The end of a request's helpers."""

from __future__ import annotations

import asyncio
from typing import Any


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancels them and returns once they are over. What calls off the caller meanwhile (the client
    has gone, and then the API stops) is raised only then: what they hold is let go in any case."""
    for task in tasks:
        task.cancel()
    called_off: asyncio.CancelledError | None = None
    while running := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(running)
        except asyncio.CancelledError as error:
            called_off = error
    for task in tasks:
        if not task.cancelled():
            # What went wrong in it was told where it mattered.
            task.exception()
    if called_off is not None:
        raise called_off
