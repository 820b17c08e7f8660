"""Waiting until something is true of a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Signal:
    """Told whenever anything of the task may have changed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def fire(self) -> None:
        """Something has changed."""
        self._event.set()
        self._event = asyncio.Event()

    async def until(self, true: Callable[[], bool], seconds: float | None = None) -> bool:
        """Waits until that is true; False where it is not after so many real seconds."""
        try:
            async with asyncio.timeout(seconds):
                while not true():
                    await self._event.wait()
        except TimeoutError:
            return true()
        return True
