"""When groups are looked at between two lists: every so often, and at once where somebody has heard
that one has changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod

from bridge.errors import BridgeError

_log = logging.getLogger(__name__)

_GATHER = 0.05
"""Seconds for which hints are gathered."""
_SLOWEST = 60.0
"""Seconds between looks while the cloud does not answer."""


class Looks(ABC):
    """The looks at the groups of one backend. A cloud says which are looked at, and how."""

    def __init__(self, every: float) -> None:
        """`every`: seconds between two looks, where nobody has heard anything."""
        self._every = every
        self._nudge = asyncio.Event()
        self.wanted: set[str] = set()
        """Marks of pods that somebody wants to be looked at now."""

    def look_at(self, mark: str) -> None:
        """That pod may have changed: look at once."""
        self.wanted.add(mark)
        self._nudge.set()

    async def run(self) -> None:
        """Looks, until cancelled."""
        pause = self._every
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._nudge.wait()
            # What comes at the same time is one look.
            await asyncio.sleep(_GATHER)
            self._nudge.clear()
            wanted, self.wanted = self.wanted, set()
            try:
                await self.look(wanted)
                pause = self._every
            except BridgeError as error:
                _log.info("%s", error)
                self.wanted |= wanted
                pause = min(pause * 2, _SLOWEST)
            except Exception:  # noqa: BLE001 - whoever looks must go on
                _log.exception("looking at groups")
                pause = min(pause * 2, _SLOWEST)

    @abstractmethod
    async def look(self, wanted: set[str]) -> None:
        """Looks at the pods of these marks, and at those that are about to change. Errors as of the
        cloud's calls: then these are wanted still."""
