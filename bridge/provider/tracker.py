"""Keeps every pod on its way: launch, restart, end, removal. Level-triggered, one step at a time.

A step looks at one pod's record (what is wanted, what was last seen) and does what is due. It is
repeated whenever either changes and may be repeated at any time: every call that it makes to an
adapter is idempotent. What the backend shows always wins over what we remember of our own calls.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bridge.errors import BridgeError, SandboxFailed
from bridge.pods.lifecycle import Stop, plan
from bridge.provider.backend import Backend
from bridge.provider.driver import Driver, is_news, resend_at, sooner
from bridge.provider.journal import Journal, new_epoch
from bridge.provider.placement import no_room
from bridge.provider.record import Record
from bridge.provider.update import put_in_force
from bridge.queue import KeyedQueue
from bridge.workload import Exit, Observed, Waiting

Key = tuple[str, str]
"""(cluster, uid)."""

MISSES = 2
"""Complete lists in a row without a pod before it counts as lost."""
STALE = 60.0
"""Seconds for which news of a pod that is gone is taken for old: what a backend tells was looked at
a while before, and such a pod would be lost next."""
MISSES_APART = 2.0
"""Seconds between two lists that both count: a cloud may be behind with what it has."""
STARTING = 5.0
"""Seconds after which a start that a list does not show is taken for one that did not happen."""

_log = logging.getLogger(__name__)


class Tracker:
    """The records of all pods, the steps that move them, and the journals that tell of them.

    `clock` gives seconds since the epoch. With `read_only` it looks and tells, and never calls an
    adapter to change anything.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        *,
        clock: Callable[[], float] = time.time,
        read_only: bool = False,
    ) -> None:
        self.backends: Mapping[str, Backend] = {one.name: one for one in backends}
        self.records: dict[Key, Record] = {}
        self.clock = clock
        self.queue: KeyedQueue[Key] = KeyedQueue(self._step, name="pod", ahead=self._is_under_way)
        self.epoch = new_epoch()
        self._began = clock()
        self.read_only = read_only
        self._journals: dict[tuple[str, str], Journal] = {}
        self._waiting: dict[Key, None] = {}
        self._forgotten: dict[Key, float] = {}
        """When pods that are gone were forgotten, by the event loop's clock."""
        self._driver = Driver(clock, self.queue.add, read_only=read_only)
        for one in backends:
            one.on_list = self._listed
            one.on_event = self._seen

    def journal(self, cluster: str, node: str) -> Journal:
        """The journal of one cluster's node; a new one starts with what has synced."""
        key = (cluster, node)
        if key not in self._journals:
            journal = self._journals[key] = Journal(self.epoch, self.backends)
            for one in self.backends.values():
                if one.synced.is_set():
                    journal.synced(one.name)
        return self._journals[key]

    async def run(self) -> None:
        """Sees to all backends and pods until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for one in self.backends.values():
                    tasks.create_task(one.watch(), name=f"watch {one.name}")
                    tasks.create_task(one.hints(), name=f"events {one.name}")
        finally:
            await self.queue.close()
            await self._driver.close()
            for one in self.backends.values():
                await one.close()

    def add(self, record: Record) -> None:
        """Takes a pod on; its first step tells of it."""
        self.records[record.key] = record
        self.queue.add(record.key)

    def changed(self, record: Record) -> None:
        """Has a pod looked at, since what is wanted of it has changed."""
        self.queue.add(record.key)

    def acknowledge(self, record: Record, revision: int) -> None:
        """The facts up to this revision are safe in Kubernetes."""
        if revision < record.revision:
            return
        if record.gone:
            self._forget(record)
        elif record.ended and not record.ended_acked:
            record.ended_acked = True
            self.queue.add(record.key)

    def order_stop(self, record: Record, grace: float) -> None:
        """Ends a pod; a later order may only bring the kill forward."""
        self._align(record)
        now = self.clock()
        record.deleting = True
        if record.stop is None or now + grace < record.stop.at + record.stop.grace:
            # Why it was ended first stays.
            stop = record.stop or Stop(at=now, grace=grace)
            record.stop = replace(stop, grace=max(0.0, now + grace - stop.at))
        self.queue.add(record.key)

    # What backends report.

    def _listed(self, backend: Backend, found: Sequence[Observed], asked: float) -> None:
        first = not backend.synced.is_set()
        self._forgotten = {k: at for k, at in self._forgotten.items() if asked < at + STALE}
        present: set[Key] = set()
        for observed in found:
            present.add((observed.identity.cluster, observed.identity.uid))
            try:
                self._seen(backend, observed, asked)
            except Exception:  # noqa: BLE001 - what is wrong with one pod is no other's affair
                _log.exception("pod %s: what its backend says of it", observed.identity.uid)
        for key, record in list(self.records.items()):
            if record.backend is not backend or record.gone:
                continue
            if key in present:
                record.missing = 0
                self._forget_starts(record, asked)
            elif record.launched_at is None and record.seen_before:
                self._miss(record, asked)
                self.queue.add(key)
            elif record.launched_at is not None and record.launched_at < asked:
                self._missed(record, asked)
            elif first:
                self.queue.add(key)
        if first:
            # The mark vouches for what was told before it: all that this list has.
            for key in present:
                if (found_one := self.records.get(key)) is not None and found_one.facts is None:
                    try:
                        self._publish(found_one)
                    except Exception:  # noqa: BLE001 - one pod that cannot be told holds up no other
                        _log.exception("pod %s: what is told of it", key[1])
            for journal in self._journals.values():
                journal.synced(backend.name)
            for key, record in self.records.items():
                if record.backend is None:
                    self.queue.add(key)

    def _seen(self, backend: Backend, observed: Observed, at: float) -> None:
        identity = observed.identity
        key = (identity.cluster, identity.uid)
        record = self.records.get(key)
        if record is None:
            if key in self._forgotten and at < self._forgotten[key] + STALE:
                return
            record = Record(identity, backend)
            self.records[key] = record
        if record.gone or record.lost or at < record.observed_at:
            return
        if record.ended_acked and identity.attempt == record.identity.attempt:
            record.missing = 0
            return  # Its end is told for good; what it held has been let go of.
        if identity.attempt != record.identity.attempt or record.backend not in (None, backend):
            # Another attempt of the same pod: only the recorded one is told.
            record.others[backend.name, identity.attempt] = (backend, identity)
            return
        record.backend = backend
        if not _is_half_made(observed):
            record.unsure = record.unsure or (record.launched_at is None and not record.tried)
            record.launched_at = record.launched_at or at
        record.observed_at = at
        record.missing = 0
        if record.observed is not None and _is_older(observed, record.observed):
            return
        record.take_notices(observed, self._began)
        news = observed != record.observed or record.facts is None
        ends = record.plan is not None and record.plan.ended
        for state in observed.containers:
            restart, asked = record.starting.get(state.name, (state.restart + 1, at))
            # The end of a pod waits for nothing but its starts: there a look that came after one
            # tells of it even where it is no news. Else what waits is asked for again later.
            if restart <= state.restart and (news or (ends and at >= asked)):
                del record.starting[state.name]
                if ends:
                    self.queue.add(record.key)
        if news:
            record.observed = observed
            if _needs_telling_only(record, backend):
                record.problem = None
                self._publish(record)
            else:
                self.queue.add(record.key)

    def _forget_starts(self, record: Record, asked: float) -> None:
        """A start that a later list does not show has not happened."""
        late = [name for name, (_, at) in record.starting.items() if at + STARTING < asked]
        for name in late:
            del record.starting[name]
            self.queue.add(record.key)

    def _miss(self, record: Record, asked: float) -> None:
        if asked >= record.missed_at + MISSES_APART or not record.missing:
            record.missing += 1
            record.missed_at = asked

    def _missed(self, record: Record, asked: float) -> None:
        if record.ended:
            # Its facts are kept here until they are acknowledged; nothing is left to remove.
            return
        self._miss(record, asked)
        if record.missing >= MISSES:
            where = record.backend.name if record.backend is not None else "its backend"
            _log.warning("pod %s: %s no longer has it", record.identity.uid, where)
            record.lose(self.clock())
            self.queue.add(record.key)

    # One step of one pod.

    def _is_under_way(self, key: Key) -> bool:
        """Whether more than its launch is to be done: hundreds may wait their turn for theirs."""
        record = self.records.get(key)
        return record is not None and (record.launched_at is not None or _is_to_end(record))

    def _align(self, record: Record) -> None:
        record.align(self.clock() - asyncio.get_running_loop().time())

    async def _step(self, key: Key) -> float | None:
        record = self.records.get(key)
        if record is None or record.gone:
            return None
        if record.ended:
            self._driver.forget(record)
            self._settle(record)
            return await self._remove(record)
        self._align(record)
        try:
            return await self._advance(record)
        except BridgeError as error:
            if error.permanent and record.launched_at is None:
                record.refused = (error.kind, error.message)
                record.ended = True
                self._settle(record)
                return None
            record.problem = Waiting(error.kind, error.message)
            if isinstance(error, SandboxFailed):
                # Each try tells it, as a kubelet does: nothing else shows that it still fails.
                words = f"Failed to create pod sandbox: {error.message}"
                record.note(self.clock(), error.kind, words, warning=True)
            self._publish(record)
            raise

    async def _advance(self, record: Record) -> float | None:
        if record.launched_at is None:
            if not await self._launch(record):
                return None
            if record.backend is not None and record.backend.tells_soon and not record.observed:
                # Its first event is on its way, and is the next step.
                return None
        backend = record.backend
        assert backend is not None
        record.problem = None
        if record.workload is not None and backend.containers is not None:
            wake = await self._drive(record, backend)
        else:
            wake = await self._follow(record, backend)
        if record.unsure and record.workload is not None and not self.read_only:
            await put_in_force(record, backend.adapter)
            record.unsure = False
        return wake

    async def _launch(self, record: Record) -> bool:
        """Makes the backend have it, if that is due now. False: not yet, or never."""
        backend = record.backend
        not_listed = [b.name for b in self._candidates(record) if not b.synced.is_set()]
        if not_listed:
            names = ", ".join(not_listed)
            self._wait(record, "BackendNotReady", f"waiting for {names} to be listed first")
            return False
        if record.deleting and backend is None:
            # Every backend is listed and none has it; but a list may have been made while it was
            # on its way in, and nothing is gone before its backend says so.
            for one in self.backends.values():
                if not self.read_only:
                    await one.delete(record.identity)
            record.ended = record.ended_acked = True
            await self._remove(record)
            return False
        if record.seen_before and backend is not None and record.missing < MISSES:
            self._wait(record, "BackendNotReady", f"looking for it on {backend.name} once more")
            self._look_again(backend)
            return False
        if record.seen_before or record.deleting:
            if record.seen_before:
                record.lose(self.clock())
            record.ended = True
            self._settle(record)
            return False
        if backend is None or record.workload is None or self.read_only:
            self._publish(record)
            return False
        if self._is_held(record, backend):
            return False
        self._count(record, backend)
        tried, record.tried = record.tried, True
        if not await backend.run(record.workload, lambda: not _is_to_end(record)):
            record.tried = tried
            return False
        record.launched_at = asyncio.get_running_loop().time()
        return True

    def _is_held(self, record: Record, backend: Backend) -> bool:
        """Whether the launch has to wait, or is too late: the deadline counts while a pod waits."""
        assert record.workload is not None
        due = plan(record.workload, None, self.clock(), record.stop)
        if due.ended and not record.tried:
            record.plan, record.ended = due, True
            self._waiting.pop(record.key, None)
            self._settle(record)
            return True
        waits = {one.name for one in record.workload.containers} <= set(record.not_ready)
        if record.not_ready and (waits or backend.containers is None):
            record.problem = None
            self._publish(record)
        elif lacking := "" if record.counted else no_room(backend.place, record.size):
            self._waiting[record.key] = None
            self._wait(record, "Queued", lacking)
        else:
            return False
        if due.wake_at is not None:
            self.queue.add_after(record.key, max(0.0, due.wake_at - self.clock()))
        return True

    def _look_again(self, backend: Backend) -> None:
        asyncio.get_running_loop().call_later(MISSES_APART, backend.refresh)

    async def _drive(self, record: Record, backend: Backend) -> float | None:
        """A backend that starts each container by itself: the plan says which, and when."""
        self._count(record, backend)
        wake = await self._driver.drive(record, backend)
        if record.plan is not None and record.plan.ended:
            if record.starting:
                # One may run by now: its end is told, not guessed.
                self._look_again(backend)
            else:
                record.ended = True
                self._driver.forget(record)
        self._settle(record)
        return wake

    async def _follow(self, record: Record, backend: Backend) -> float | None:
        """A backend that runs whole pods, or a pod that nobody has asked for yet."""
        now = self.clock()
        stop: Stop | None = record.stop
        wake: float | None = None
        if record.workload is not None:
            self._count(record, backend)
        if stop is None and record.workload is not None and record.workload.deadline is not None:
            end = (record.workload.start_time or now) + record.workload.deadline
            if now >= end and not _ended_by(record.observed, end):
                stop = record.stop = Stop(
                    at=now,
                    grace=record.workload.grace,
                    reason="DeadlineExceeded",
                    message="Pod was active on the node longer than the specified deadline",
                )
            elif now < end:
                wake = end
        seen = record.observed
        ended = seen is not None and seen.ended
        if stop is not None and not ended and not self.read_only:
            grace = max(0.0, stop.at + stop.grace - now)
            if is_news(record, "", now, grace):
                await backend.stop(record.identity, grace)
                record.kill_due[""] = now + grace
            wake = resend_at(record, [""])
        if ended and (record.workload is not None or record.deleting or backend.containers is None):
            record.ended = True
            if stop is not None and stop.reason:
                record.refused = (stop.reason, stop.message)
        self._settle(record)
        return sooner(wake, None, now)

    async def _remove(self, record: Record) -> float | None:
        """An ended pod whose facts are safe holds no more than its logs; to be deleted, it goes."""
        if not record.ended_acked or self.read_only:
            return None
        if not record.deleting:
            if record.backend is not None and not record.lost:
                await record.backend.stop_sandbox(record.identity)
            return None
        half = record.observed is not None and _is_half_made(record.observed)
        there = record.tried or record.launched_at is not None or half
        if record.backend is not None and there:
            await record.backend.delete(record.identity)
        for backend, identity in record.others.values():
            await backend.delete(identity)
        record.gone = True
        self._publish(record)
        return None

    # Bookkeeping.

    def _candidates(self, record: Record) -> Sequence[Backend]:
        return [record.backend] if record.backend else list(self.backends.values())

    def _count(self, record: Record, backend: Backend) -> None:
        if not record.counted and not record.ended:
            record.counted = True
            backend.take(record.size)
            self._waiting.pop(record.key, None)

    def _settle(self, record: Record) -> None:
        if record.ended and record.counted and record.backend is not None:
            record.counted = False
            record.backend.release(record.size)
            self._admit_waiting()
        self._publish(record)

    def _admit_waiting(self) -> None:
        # One place is free: in turn, only as many are woken as could have it.
        for key in list(self._waiting)[:4]:
            self.queue.add(key)

    def _wait(self, record: Record, reason: str, message: str) -> None:
        record.problem = Waiting(reason, message)
        self._publish(record)

    def _publish(self, record: Record) -> None:
        facts = record.to_wire()
        if facts != record.facts:
            record.facts = facts
            journal = self.journal(record.identity.cluster, record.identity.node)
            record.revision = journal.publish(facts)

    def _forget(self, record: Record) -> None:
        self._forgotten[record.key] = asyncio.get_running_loop().time()
        self._driver.forget(record)
        self.records.pop(record.key, None)
        self._waiting.pop(record.key, None)
        self.queue.forget(record.key)
        self.journal(record.identity.cluster, record.identity.node).forget(record.identity.uid)


def _is_half_made(seen: Observed) -> bool:
    """Whether a launch began and did not come to its end: no container was made, and the backend
    has accepted nothing. It is launched again; where Kubernetes knows that it ran, it is lost."""
    return not seen.containers and not seen.ended and seen.accepted_at is None


def _is_older(one: Observed, known: Observed) -> bool:
    """Whether it was looked at before what is known: a run that has ended never runs again."""
    for state in one.containers:
        before = known.container(state.name)
        if before is None or state.restart > before.restart:
            continue
        if state.restart < before.restart or (
            isinstance(before.state, Exit) and not isinstance(state.state, Exit)
        ):
            return True
    return False


def _needs_telling_only(record: Record, backend: Backend) -> bool:
    """Whether news of a whole pod that just runs leads to no step: then none is taken."""
    return (
        backend.containers is None
        and record.counted
        and record.stop is None
        and not record.deleting
        and record.observed is not None
        and not record.observed.ended
        and record.workload is not None
        and record.workload.deadline is None
    )


def _is_to_end(record: Record) -> bool:
    return record.deleting or record.stop is not None


def _ended_by(seen: Observed | None, end: float) -> bool:
    """Whether all of it had ended by that time."""
    return (
        seen is not None
        and seen.ended
        and all(
            isinstance(one.state, Exit) and one.state.finished_at <= end for one in seen.containers
        )
    )
