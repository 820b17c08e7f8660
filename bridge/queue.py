"""A queue of keys: one worker for each key, the latest state wins, failures come back.

Level-triggered: what is queued is only *that* something changed; the handler looks at how things
are now. A first try is never delayed. A failed one comes back after a delay that doubles to five
minutes and never ends while somebody still wants the key.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from bridge.errors import BridgeError, Throttled

K = TypeVar("K", bound=Hashable)

FIRST_RETRY = 0.25
"""Seconds before the first retry."""
LONGEST_RETRY = 300.0
"""Seconds between retries at the most."""

_log = logging.getLogger(__name__)


class KeyedQueue(Generic[K]):
    """Calls `handle(key)` for each added key, never twice at once for the same key.

    `handle` returns the seconds after which it wants to look at the key again though nothing was
    added, or None. An error of `bridge.errors` is a failed try. Any other exception is a defect of
    ours: it is logged with its traceback and retried too, so that one bad pod stops no other.

    Keys of which `ahead` is true go before the others, and have as many workers again: what waits
    its turn for long holds up nothing of what is under way.
    """

    def __init__(
        self,
        handle: Callable[[K], Awaitable[float | None]],
        *,
        name: str,
        concurrency: int = 64,
        jitter: Callable[[], float] = random.random,
        ahead: Callable[[K], bool] = lambda _: False,
    ) -> None:
        self._handle = handle
        self._name = name
        self._concurrency = concurrency
        self._jitter = jitter
        self._is_ahead = ahead
        self._ready: dict[K, None] = {}
        self._ahead: dict[K, None] = {}
        self._active: dict[K, asyncio.Task[None]] = {}
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    def add(self, key: K) -> None:
        """Has the key looked at as soon as possible."""
        if self._closed:
            return
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._active:
            self._again.add(key)
            return
        if self._is_ahead(key):
            self._ready.pop(key, None)
            self._ahead[key] = None
        elif key not in self._ahead:
            self._ready[key] = None
        self._idle.clear()
        self._start()

    def add_after(self, key: K, seconds: float) -> None:
        """Has the key looked at after that time; a nearer time that is already set stays."""
        if self._closed or key in self._ready or key in self._ahead or key in self._again:
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(max(0.0, seconds), self._due, key)

    def forget(self, key: K) -> None:
        """Drops the key's timer and its count of failures: it is not wanted any more."""
        self._failures.pop(key, None)
        if timer := self._timers.pop(key, None):
            timer.cancel()

    async def settled(self) -> None:
        """Returns once no key is ready or being handled; timers may still be set."""
        await self._idle.wait()

    async def close(self) -> None:
        """Ends all handlers."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._ready.clear()
        self._ahead.clear()
        tasks = list(self._active.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _start(self) -> None:
        for ready, workers in (
            (self._ahead, 2 * self._concurrency),
            (self._ready, self._concurrency),
        ):
            while ready and len(self._active) < workers:
                key = next(iter(ready))
                del ready[key]
                self._active[key] = asyncio.create_task(self._work(key), name=f"{self._name} {key}")

    async def _work(self, key: K) -> None:
        try:
            wake = await self._handle(key)
            self._failures.pop(key, None)
            self._finished(key, wake)
        except asyncio.CancelledError:
            self._finished(key, None)
            raise
        except BridgeError as error:
            _log.debug("%s %s: %s", self._name, key, error)
            self._finished(key, self._retry_delay(key, error))
        except Exception as error:  # noqa: BLE001 - a defect with one key must not stop the others
            _log.exception("%s %s", self._name, key)
            self._finished(key, self._retry_delay(key, error))

    def _retry_delay(self, key: K, error: Exception) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(failures, 30))
        delay *= 0.75 + 0.5 * self._jitter()
        if isinstance(error, Throttled) and error.retry_after is not None:
            delay = max(delay, error.retry_after)
        return min(delay, LONGEST_RETRY)

    def _finished(self, key: K, wake: float | None) -> None:
        self._active.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        elif wake is not None:
            self.add_after(key, wake)
        self._start()
        if not self._ready and not self._ahead and not self._active:
            self._idle.set()
