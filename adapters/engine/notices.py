"""Who wants to know that a pod has changed, and which pods have."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from bridge.workload import Identity, Key


class Listener:
    """The pods that have changed since they were last taken, each once."""

    def __init__(self) -> None:
        self._changed: dict[Key, Identity] = {}
        self._all = False
        self._some = asyncio.Event()

    def add(self, identity: Identity) -> None:
        """That pod has changed."""
        self._changed[identity.key] = identity
        self._some.set()

    def add_all(self) -> None:
        """Any pod may have changed."""
        self._all = True
        self._some.set()

    async def take(self) -> list[Identity] | None:
        """Waits until there are some; None: any may have changed."""
        await self._some.wait()
        self._some.clear()
        changed, everything = list(self._changed.values()), self._all
        self._changed, self._all = {}, False
        return None if everything else changed


class Notices:
    """The listeners."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        """A listener while the block lasts."""
        listener = Listener()
        self._listeners.append(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)

    def tell(self, identity: Identity) -> None:
        """That pod has changed."""
        for one in self._listeners:
            one.add(identity)
