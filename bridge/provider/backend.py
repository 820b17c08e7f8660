"""One configured backend at work: its adapter, budgets and limits, and the loop that sees it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from bridge import adapter as seam
from bridge.bucket import Budgets
from bridge.errors import BridgeError, Throttled, Unauthorized, Unavailable
from bridge.provider.placement import Place, asked
from bridge.workload import Identity, Observed, Resources, Workload

LIST_EVERY = 10.0
"""Seconds between lists of a quiet backend. Events make news sooner; the list is the truth."""
RETRY_FIRST, RETRY_LONGEST = 0.5, 60.0
"""Seconds before a failed list is tried again: doubling from the first to the longest."""

_log = logging.getLogger(__name__)


class Backend:
    """An adapter, with what the provider adds to every one of them.

    `limits` is what the operator lets it hold, by resource name (pods, cpu in millicores, memory in
    bytes). `on_list` gets each complete list with the time at which it was asked for, `on_event`
    each hint; both on the event loop.
    """

    def __init__(
        self,
        adapter: seam.Adapter,
        limits: Mapping[str, int],
        *,
        list_every: float = LIST_EVERY,
    ) -> None:
        self.adapter = adapter
        self.name = adapter.name
        self.limits = dict(limits)
        self.used: dict[str, int] = dict.fromkeys(self.limits, 0)
        self.synced = asyncio.Event()
        self.problem: BridgeError | None = None
        self.on_list: Callable[[Backend, Sequence[Observed], float], None] = lambda *_: None
        self.on_event: Callable[[Backend, Observed, float], None] = lambda *_: None
        self._budgets = Budgets(adapter.rates)
        self._list_every = list_every
        self._refresh = asyncio.Event()
        self._opened = False
        self.containers = adapter if isinstance(adapter, seam.Containers) else None
        """The adapter, where it starts each container by itself."""
        self.tells_soon = isinstance(adapter, seam.Events) and self.containers is None
        """Whether an event follows each launch, so that nothing need be told before it."""

    def refresh(self) -> None:
        """Has it listed now rather than at the next turn."""
        self._refresh.set()

    async def watch(self) -> None:
        """Opens the adapter and keeps seeing what it has, until cancelled."""
        failures = 0
        while True:
            try:
                await self._see()
                failures = 0
                if self.problem is not None:
                    _log.warning("backend %s: it answers again", self.name)
                self.problem = None
                wait = self._list_every
            except BridgeError as error:
                if self.problem is None:
                    _log.warning("backend %s: %s", self.name, error)
                self.problem = error
                wait = min(RETRY_LONGEST, RETRY_FIRST * 2.0 ** min(failures, 10))
                if isinstance(error, Throttled) and error.retry_after is not None:
                    wait = max(wait, error.retry_after)
                failures += 1
            except Exception as error:  # noqa: BLE001 - a backend that breaks must end no other
                _log.exception("backend %s", self.name)
                self.problem = Unavailable(f"it answers what cannot be understood: {error!r}")
                wait = min(RETRY_LONGEST, RETRY_FIRST * 2.0 ** min(failures, 10))
                failures += 1
            try:
                async with asyncio.timeout(wait):
                    await self._refresh.wait()
            except TimeoutError:
                continue

    async def hints(self) -> None:
        """Passes on the adapter's events, until cancelled."""
        adapter = self.adapter
        if not isinstance(adapter, seam.Events):
            return
        while True:
            await self.synced.wait()
            try:
                async for observed in adapter.events():
                    self.on_event(self, observed, asyncio.get_running_loop().time())
            except BridgeError as error:
                _log.warning("backend %s: events: %s", self.name, error)
            except Exception:  # noqa: BLE001 - as in `watch`
                _log.exception("backend %s: events", self.name)
            # Without events the list still comes: no hurry, and no spinning.
            await asyncio.sleep(RETRY_FIRST)

    async def close(self) -> None:
        """Lets go of the adapter; what runs goes on running."""
        if self._opened:
            await self.adapter.close()

    async def _see(self) -> None:
        if not self._opened:
            await self.adapter.open()
            self._opened = True
        self._refresh.clear()
        asked_at = asyncio.get_running_loop().time()
        found = await self._budgets.call(self.adapter.list, "list")
        self.on_list(self, found, asked_at)
        self.synced.set()

    async def run(self, workload: Workload, wanted: Callable[[], bool]) -> bool:
        """`Adapter.run`, within the budget. False: by its turn nobody wanted it any more, and
        nothing was asked for."""

        async def make() -> bool:
            if wanted():
                await self.adapter.run(workload)
                return True
            return False

        return await self._budgets.call(make, "run")

    async def stop(self, identity: Identity, grace: float) -> None:
        """`Adapter.stop`, within the budget."""
        await self._budgets.call(lambda: self.adapter.stop(identity, grace), "stop")

    async def stop_sandbox(self, identity: Identity) -> None:
        """`Sandboxes.stop_sandbox`, where the adapter has it, within the budget."""
        adapter = self.adapter
        if isinstance(adapter, seam.Sandboxes):
            await self._budgets.call(lambda: adapter.stop_sandbox(identity), "stop")

    async def delete(self, identity: Identity) -> None:
        """`Adapter.delete`, within the budget."""
        await self._budgets.call(lambda: self.adapter.delete(identity), "delete")

    @property
    def place(self) -> Place:
        """The backend as placement sees it."""
        return Place(
            self.name, self.adapter.type, self.limits, self.used, simulated=self.adapter.simulated
        )

    def take(self, size: Resources) -> None:
        """Counts a pod in."""
        for name in self.used:
            self.used[name] += asked(size, name)

    def release(self, size: Resources) -> None:
        """Counts a pod out; once for each `take`."""
        for name in self.used:
            self.used[name] -= asked(size, name)

    def status(self) -> tuple[bool, str]:
        """Whether it can take pods now, and why not."""
        if self.problem is not None:
            hint = " (credentials)" if isinstance(self.problem, Unauthorized) else ""
            return False, f"{self.problem}{hint}"
        return self.synced.is_set(), "" if self.synced.is_set() else "not listed yet"
