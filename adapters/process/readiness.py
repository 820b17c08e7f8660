"""Waiting for descriptors that do not block, until they are ready or nobody cares any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable


class Readiness:
    """The waits of one channel. Whoever closes a descriptor wakes them all before."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], Callable[[], None]] = {}

    async def wait(self, *, readable: Iterable[int] = (), writable: Iterable[int] = ()) -> None:
        """Returns when one of them is ready or broken, or `wake` was called."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        reading, writing = list(readable), list(writable)

        def forget() -> None:
            for descriptor in reading:
                loop.remove_reader(descriptor)
            for descriptor in writing:
                loop.remove_writer(descriptor)

        self._waiting[done] = forget
        try:
            for descriptor in reading:
                loop.add_reader(descriptor, _set, done)
            for descriptor in writing:
                loop.add_writer(descriptor, _set, done)
            await done
        finally:
            # Not after `wake`: the numbers may be somebody else's by now.
            if self._waiting.pop(done, None) is not None:
                forget()

    def wake(self) -> None:
        """Ends all waits; who waited looks anew at what is true."""
        waiting, self._waiting = self._waiting, {}
        for done, forget in waiting.items():
            forget()
            _set(done)


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
