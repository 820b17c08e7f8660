"""Ends containers: the stop signal at once, and the kill when the grace is over.

An engine's own `stop` blocks for the whole grace, and cannot be brought forward. The kill is ours,
so it comes only while the provider lives; a provider that starts again orders the end again.
"""

from __future__ import annotations

import asyncio

from adapters.engine.client import Conflict, Engine, Refused, part
from bridge.errors import BridgeError, NotFound

_ENDED = "container state improper"
_AGAIN = 1.0
"""Seconds until a kill that the engine did not take is tried again."""


class Stops:
    """What is being ended, by container ID."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._due: dict[str, float] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def order(self, container: str, signal: str, grace: float) -> None:
        """Begins to end it, or brings the kill forward; returns at once. No signal: none before
        the kill. Errors as of a call."""
        due = asyncio.get_running_loop().time() + grace
        known = self._due.get(container)
        if grace <= 0:
            await self._signal(container, "SIGKILL")
            return
        if known is None and signal:
            await self._signal(container, signal)
        if known is None or due < known:
            self._due[container] = due
            old = self._tasks.pop(container, None)
            if old is not None:
                old.cancel()
            self._tasks[container] = asyncio.create_task(
                self._kill(container, due), name=f"kill {container[:12]}"
            )

    def ended(self, container: str) -> None:
        """It has ended by itself."""
        self._due.pop(container, None)
        task = self._tasks.pop(container, None)
        if task is not None:
            task.cancel()

    def pending(self) -> list[str]:
        """The containers whose kill is still to come."""
        return list(self._due)

    async def close(self) -> None:
        """Kills nothing more."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self._due.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _kill(self, container: str, due: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(due - loop.time())
        while True:
            try:
                await self._signal(container, "SIGKILL")
            except BridgeError:
                await asyncio.sleep(_AGAIN)
            else:
                break
        self._due.pop(container, None)
        self._tasks.pop(container, None)

    async def _signal(self, container: str, signal: str) -> None:
        try:
            await self._engine.call(
                "POST", f"containers/{part(container)}/kill", params={"signal": signal}
            )
        except (NotFound, Conflict):
            return  # It has ended.
        except Refused as error:
            # Podman, of one that has ended and was not seen to yet.
            if _ENDED not in error.message:
                raise
