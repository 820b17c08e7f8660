"""Questions to somebody far away, whose answers hold for a while.

Each question is on its way once, however many wait for its answer; as many different ones as
`AT_ONCE`, and what is remembered is bounded too: who asks may be anybody.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from bridge.errors import Throttled, Unavailable

AT_ONCE = 64
"""Questions on their way at once."""
PATIENCE = 10.0
"""Seconds for one answer."""
KEPT = 4096
"""Answers remembered; of more, those that were not asked for longest are forgotten."""

Answer = TypeVar("Answer")


class Lookups(Generic[Answer]):
    """`holds` says for how many seconds an answer holds. Errors are never remembered."""

    def __init__(
        self,
        holds: Callable[[Answer], float],
        *,
        kept: int = KEPT,
        at_once: int = AT_ONCE,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._holds = holds
        self._kept = kept
        self._at_once = at_once
        self._patience = patience
        self._clock = clock
        self._known: OrderedDict[Hashable, tuple[float, Answer]] = OrderedDict()
        self._asking: dict[Hashable, asyncio.Task[Answer]] = {}

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer to `key`, by `ask` where it is not known. Throttled: too many questions are
        on their way. Unavailable: it took too long. Else what `ask` raises."""
        if (known := self._known.get(key)) is not None:
            until, answer = known
            if self._clock() < until:
                self._known.move_to_end(key)
                return answer
            del self._known[key]
        task = self._asking.get(key)
        if task is None:
            if len(self._asking) >= self._at_once:
                raise Throttled("too many reviews are on their way", retry_after=1.0)
            task = asyncio.create_task(self._ask(key, ask), name="review")
            self._asking[key] = task
            task.add_done_callback(lambda done: self._answered(key, done))
        # Whoever goes away takes the answer from nobody else.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Gives up what is on its way."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, key: Hashable, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            async with asyncio.timeout(self._patience):
                answer = await ask()
        except TimeoutError:
            raise Unavailable(f"no answer within {self._patience:g} seconds") from None
        self._known[key] = self._clock() + self._holds(answer), answer
        while len(self._known) > self._kept:
            self._known.popitem(last=False)
        return answer

    def _answered(self, key: Hashable, task: asyncio.Task[Answer]) -> None:
        del self._asking[key]
        if not task.cancelled():
            # Where nobody waits any more, nobody else looks at the error.
            task.exception()
