"""The node's heartbeat, which is also the lock between replicas (`bridge.kubelet.lock`).

It runs on a thread of its own, over a connection of its own, by blocking calls: however busy the
event loop is with pods, the Lease is renewed in time. A second thread does nothing but notice the
moment at which this replica may no longer act, also while a call hangs.

That independence has an end: when the event loop has not turned for a minute, nobody looks after
the pods, and a heartbeat that goes on would keep every other replica from doing so. So the Lease is
no longer renewed then, and the node is not ready where no other replica takes over, which is true.
A minute is far more than any work that blocks the loop, and less than what makes pods be evicted.

The clock counts the time in which the machine sleeps (CLOCK_BOOTTIME): a holder that wakes up must
not believe that it still holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from bridge.errors import BridgeError, NotFound, Unavailable
from bridge.kubelet.blocking import Wire
from bridge.kubelet.client import Conflict
from bridge.kubelet.credentials import Credentials
from bridge.kubelet.lock import Call, LeaseLock
from bridge.pods import Manifest

TIMEOUT = 4.0
"""Seconds for each step of a call: a renewal that hangs leaves room for another one before the
holder has to stop."""
LONGEST_SLEEP = 1.0
"""Seconds between two looks of both threads: a machine that slept is noticed then."""
LOOP_LIMIT = 60.0
"""Seconds without a turn of the event loop after which the Lease is left to others."""

_log = logging.getLogger(__name__)


def boottime() -> float:
    """Seconds of a clock that only goes on, also while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _today() -> datetime:
    return datetime.now(UTC)


class LoopBeat:
    """Whether an event loop still turns. Asked from another thread, each second or so."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit: float = LOOP_LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop, self._limit, self._clock = loop, limit, clock
        self._asked: float | None = None

    def __call__(self) -> bool:
        """False: it has not turned for the limit, or is closed."""
        asked = self._asked
        if asked is None:
            self._asked = self._clock()
            try:
                self._loop.call_soon_threadsafe(self._turned)
            except RuntimeError:
                # It is closed. What was asked before stays unanswered, as it should.
                return False
            return True
        return self._clock() - asked < self._limit

    def _turned(self) -> None:
        self._asked = None


class Lease:
    """Holds, or waits for, one node's Lease from `start` to `close`."""

    def __init__(
        self,
        credentials: Credentials,
        node: str,
        identity: str,
        *,
        returning: bool = False,
        changed: Callable[[bool], None] = lambda _: None,
        alive: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = boottime,
    ) -> None:
        """`identity` names this replica; `returning` as for `LeaseLock`.

        `changed` is called with True when this replica may act and False when it must stop, in
        turns, on a thread of ours: it must not block. `alive` says whether there is anybody to
        act; see `LoopBeat`.
        """
        self._lock = LeaseLock(node, identity, returning=returning)
        self._changed, self._alive, self._clock = changed, alive, clock
        self._wire = Wire(credentials, TIMEOUT)
        self._state = threading.Condition()
        self._stopping = False
        self._over = False
        self._told = False
        self._problem = ""
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event, bool]] = set()
        self._caller = threading.Thread(target=self._call_on, name=f"lease {node}", daemon=True)
        self._guard = threading.Thread(target=self._watch, name=f"lease guard {node}", daemon=True)

    def start(self) -> None:
        """Begins. Once only."""
        self._guard.start()
        self._caller.start()

    @property
    def held(self) -> bool:
        """Whether this replica may act now, by the clock: true to the moment, also where `changed`
        has not come through yet."""
        with self._state:
            return self._lock.holds(self._clock())

    @property
    def holder(self) -> str:
        """Who has the Lease, as far as was seen; empty: nobody, or nothing was seen yet."""
        with self._state:
            return self._lock.holder

    @property
    def problem(self) -> str:
        """Why the API server does not answer us; empty: it does."""
        with self._state:
            return self._problem

    def own(self, node_uid: str) -> None:
        """The Node that the Lease belongs to: written with the next renewal."""
        with self._state:
            self._lock.owner = node_uid

    async def wait_for(self, held: bool) -> None:
        """Until this replica may act, or may not."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        entry = (loop, event, held)
        with self._state:
            if self._told == held:
                return
            self._waiting.add(entry)
        try:
            await event.wait()
        finally:
            with self._state:
                self._waiting.discard(entry)

    async def aclose(self) -> None:
        """`close`, without blocking the loop."""
        await asyncio.to_thread(self.close)

    def close(self, limit: float = 2 * TIMEOUT) -> bool:
        """Hands the Lease over and ends both threads; `changed(False)` was called then.

        Whatever acts must have stopped before: another replica may begin at once. False where the
        API server could not be told within `limit` seconds: others take over after their time.
        """
        with self._state:
            self._stopping = True
            self._lock.release(self._clock())
            self._state.notify_all()
        if self._caller.ident is not None:
            self._caller.join(limit)
            if self._caller.is_alive():
                with self._state:
                    self._lock.released = True
                    self._state.notify_all()
                self._wire.abort()
                self._caller.join(TIMEOUT)
            released = not self._caller.is_alive() and self._lock.holder != self._lock.identity
        else:
            released = True
        with self._state:
            self._over = True
            self._state.notify_all()
        if self._guard.ident is not None:
            self._guard.join(TIMEOUT)
        return released

    # The thread that calls.

    def _call_on(self) -> None:
        try:
            with asyncio.Runner() as runner:
                while (call := self._due()) is not None:
                    answer: Manifest | BridgeError
                    try:
                        answer = self._wire.call(call, runner)
                    except BridgeError as error:
                        answer = error
                    except Exception as error:  # noqa: BLE001 - a defect must not end heartbeats
                        _log.exception("the lease of node %s", self._lock.node)
                        answer = Unavailable(f"an unexpected {type(error).__name__}")
                    with self._state:
                        self._lock.answered(call, self._clock(), answer)
                        self._note(answer)
                        self._state.notify_all()
        finally:
            self._wire.close()

    def _due(self) -> Call | None:
        """The next call, once it is due; None: there will be none."""
        with self._state:
            while True:
                if self._stopping and self._lock.released:
                    return None
                if not self._stopping and not self._alive():
                    self._state.wait(LONGEST_SLEEP)
                    continue
                now = self._clock()
                due = self._lock.next(now, _today())
                if isinstance(due, Call):
                    return due
                if not self._lock.released:
                    self._state.wait(max(0.0, min(due - now, LONGEST_SLEEP)))

    def _note(self, answer: Manifest | BridgeError) -> None:
        bad = isinstance(answer, BridgeError) and not isinstance(answer, (NotFound, Conflict))
        if bad and not self._problem:
            _log.warning("the lease of node %s: %s", self._lock.node, answer)
        elif not bad and self._problem:
            _log.warning("the lease of node %s: the API server answers again", self._lock.node)
        self._problem = str(answer) if bad else ""

    # The thread that watches the clock.

    def _watch(self) -> None:
        while True:
            with self._state:
                now = self._clock()
                held = self._lock.holds(now)
                if held == self._told:
                    if self._over:
                        return
                    edge = self._lock.until if held else self._lock.act_from
                    left = edge - now if edge > now else LONGEST_SLEEP
                    self._state.wait(min(left, LONGEST_SLEEP))
                    continue
                self._told = held
                waiting = [one for one in self._waiting if one[2] == held]
            # That it ends when it was told to is no news.
            level = logging.INFO if held or self._stopping else logging.WARNING
            words = "acts for it now" if held else "does not act for it any more"
            _log.log(level, "node %s: this replica %s", self._lock.node, words)
            for loop, event, _ in waiting:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(event.set)
            self._changed(held)
