"""What a keeper waits for: descriptors, and what is to be done when one of them is ready."""

from __future__ import annotations

import select
from collections.abc import Callable

READ = select.POLLIN
WRITE = select.POLLOUT


class Watch:
    """A poll whose descriptors know who serves them."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._serve: dict[int, Callable[[], None]] = {}

    def add(self, descriptor: int, serve: Callable[[], None], event: int = READ) -> None:
        """Calls `serve` whenever the descriptor is ready, or broken."""
        self._serve[descriptor] = serve
        self._poll.register(descriptor, event)

    def drop(self, descriptor: int) -> None:
        """Watches it no more; nothing to do where it was not watched. Before it is closed."""
        if self._serve.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def wait(self, seconds: float) -> None:
        """Waits for the next one, and serves all that are ready.

        One that an earlier one of them has dropped is passed over; if its number was taken again
        in between, whoever has it now is called without need, and has to bear that.
        """
        for descriptor, _ in self._poll.poll(seconds * 1000):
            serve = self._serve.get(descriptor)
            if serve is not None:
                serve()
