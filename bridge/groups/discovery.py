"""When all that a backend has in its cloud is looked through, for what nobody here knows of."""

from __future__ import annotations

import asyncio
import math
import time
from abc import ABC, abstractmethod

from bridge.adapter import Rate
from bridge.bucket import Bucket

_SEARCHES = Rate(0.5, 5, share=1.0)
"""How often there may be a search that cannot wait: pods that nobody here knows of, such as those
that were refused, may be deleted by the second, and looks at the others have the same budget."""


class Discovery(ABC):
    """The searches of one backend. A cloud says how it is searched."""

    def __init__(self, every: float) -> None:
        """`every`: seconds between two searches that nobody waits for."""
        self._every = every
        self._discovered_at = -math.inf
        self._discovering = asyncio.Lock()
        self._searches = Bucket(_SEARCHES)

    async def discover(self, *, now: bool = False) -> None:
        """Finds what nobody here knows of, where that was not done a short while ago. Errors as of
        the cloud's calls."""
        asked = time.monotonic()
        async with self._discovering:
            if asked < self._discovered_at + (0.0 if now else self._every):
                # While others wait for one, one for all of them begins.
                return
            if now:
                await self._searches.take()
            began_at = time.monotonic()
            await self.search()
            self._discovered_at = began_at

    @abstractmethod
    async def search(self) -> None:
        """Takes in all that the cloud has of this owner, and forgets what it no longer has."""
