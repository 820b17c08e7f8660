"""What the watch has told and the pod loop has not taken yet."""

from __future__ import annotations

import asyncio

from bridge.agent.cluster import PodEvent
from bridge.errors import Unavailable


class Inbox:
    """What the loop has not taken yet: of each pod the newest, in the order of their first news."""

    def __init__(self) -> None:
        self._events: dict[str, PodEvent] = {}
        self._news = asyncio.Event()
        self._ended: asyncio.Task[None] | None = None

    def put(self, key: str, event: PodEvent) -> None:
        """Takes news in, in place of older news of the same key: a pod's UID, or one of its own."""
        self._events[key] = event
        self._news.set()

    def drop(self, uid: str) -> None:
        """The loop knows better by now. A deletion is never that."""
        event = self._events.get(uid)
        if event is not None and event.type != "DELETED":
            del self._events[uid]

    def end(self, task: asyncio.Task[None]) -> None:
        """No more will come: whoever takes is told what ended the watch."""
        self._ended = task
        self._news.set()

    async def take(self) -> PodEvent:
        """The next one. Raises what ended the watch: a defect, as a watch has no other end."""
        while not self._events:
            if self._ended is not None:
                if not self._ended.cancelled():
                    self._ended.result()
                raise Unavailable("the watch has ended")
            self._news.clear()
            await self._news.wait()
        return self._events.pop(next(iter(self._events)))
