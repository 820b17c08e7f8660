"""Keeps an eye on tasks: those known here by hundreds, others by looking for them now and then.

Also does what is due for them whoever looks: a task that never starts is stopped and replaced, one
that runs for longer than it may is stopped, and payloads go once their containers run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from adapters.fargate import names, observe
from adapters.fargate.errors import Conflict
from adapters.fargate.launch import Launcher
from adapters.fargate.logins import Logins
from adapters.fargate.names import Json, task_id
from adapters.fargate.options import Options
from adapters.fargate.pods import Pod, Pods
from adapters.fargate.store import Kept, Store
from adapters.fargate.tasks import Tasks
from bridge.adapter import Rate
from bridge.bucket import Bucket
from bridge.errors import BridgeError, Invalid, NotFound

_log = logging.getLogger(__name__)

_YOUNG = 60.0
"""Seconds for which DescribeTasks may not know a task that RunTask has made."""
_LATE = 90.0
"""Seconds after a start for which an event may still be hidden, since who read it was killed."""
_GATHER = 0.05
"""Seconds for which hints are gathered."""
_SLOWEST = 60.0
"""Seconds between looks while AWS does not answer."""
_TRUSTED, _QUIET = 5, 60.0
"""Where events come: how many times `poll` tasks that change are looked at unasked, and the seconds
between two looks at all tasks."""
_SEARCHES = Rate(0.5, 5, share=1.0)
"""How often there may be a search that cannot wait: pods that nobody here knows of, such as those
that were refused, may be deleted by the second, and looks at the others have the same budget."""
_ANSWERED = 30.0
"""Seconds for which the queue's last answer counts; it answers every few seconds."""


class Watch:
    """The tasks of one backend."""

    def __init__(
        self,
        *,
        options: Options,
        pods: Pods,
        store: Store,
        tasks: Tasks,
        launcher: Launcher,
        logins: Logins,
        drain: Callable[[], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        """`drain` hands on (`heard`) all events that wait in the queue. `clock`: AWS's, with which
        its times are compared; waits are this machine's own, which nobody sets."""
        self._drain = drain
        self._waits_until = time.monotonic() + _LATE if options.queue_url else -math.inf
        self.acts = True
        """Whether what is due is done; else there is only a look."""
        self._options = options
        self._pods = pods
        self._store = store
        self._tasks = tasks
        self._launcher = launcher
        self._logins = logins
        self._clock = clock
        self._foreign: set[str] = set()
        """Tasks that are not ours, or of pods that are gone."""
        self._ended: dict[str, Kept] = {}
        """Orders of which an event has told the end since the last look at all orders began."""
        self._unreadable: set[str] = set()
        """Marks whose orders nobody here can read: their tasks are left alone."""
        self._strays: set[str] = set()
        """Tasks with our mark that were found without an order once."""
        self._discovered_at = -math.inf
        self._discovering = asyncio.Lock()
        self._searches = Bucket(_SEARCHES)
        self._nudge = asyncio.Event()
        self._wanted: set[str] = set()
        """Marks of pods that somebody wants to be looked at now."""
        self._steps: dict[str, asyncio.Task[None]] = {}
        self._polled_at = self._refreshed_at = self._answered_at = -math.inf
        self._proven = False
        """An event of ours has come, and none was missed since."""

    @property
    def _hears(self) -> bool:
        """Whether it is enough to look where events say that something has changed."""
        return self._proven and time.monotonic() < self._answered_at + _ANSWERED

    def answered(self) -> None:
        """The queue of events has answered."""
        self._answered_at = time.monotonic()

    async def run(self) -> None:
        """Looks at tasks that change, until cancelled."""
        pause = self._options.poll
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._nudge.wait()
            # What comes at the same time is one call.
            await asyncio.sleep(_GATHER)
            self._nudge.clear()
            try:
                await self._look()
                pause = self._options.poll
            except BridgeError as error:
                _log.info("%s", error)
                pause = min(pause * 2, _SLOWEST)
            except Exception:  # noqa: BLE001 - who looks at tasks must go on
                _log.exception("looking at tasks")
                pause = min(pause * 2, _SLOWEST)

    async def close(self) -> None:
        """Ends what is under way."""
        steps = list(self._steps.values())
        for one in steps:
            one.cancel()
        await asyncio.gather(*steps, return_exceptions=True)

    def look_at(self, mark: str) -> None:
        """That pod may have changed: look at once."""
        self._wanted.add(mark)
        self._nudge.set()

    async def heard(self, mark: str, nonce: str, detail: Json) -> None:
        """An event of a task that may be the pod's. That of its end is kept with the order before
        the event goes: ECS forgets the task, and nobody may be here for longer than it takes to."""
        pod = self._pods.get(mark)
        self._proven = self._proven or pod is not None
        self.look_at(mark)
        if detail.get("lastStatus") != "STOPPED":
            return
        try:
            task = observe.from_event(detail)
        except ValueError as error:
            _log.warning("an event of pod %s makes no sense: %s", mark, error)
            return
        if observe.never_started(task) and pod is not None and pod.task is not None:
            # Another one takes its place.
            return
        kept = pod.kept if pod is not None and pod.task is not None else None
        kept = await self._keep_end(mark, nonce, detail, kept)
        if kept is None:
            return
        # It may have been found meanwhile, or its order may just have been read as it was before.
        self._ended[mark] = kept
        if (pod := self._pods.get(mark)) is not None:
            pod.kept = kept
            if pod.task is None or pod.missing:
                self._learn(pod, task)

    async def _keep_end(
        self, mark: str, nonce: str, detail: Json, kept: Kept | None
    ) -> Kept | None:
        """The order, with the end of its task. `kept`: as known here. None: it is gone, or the
        task is not what became of it."""
        while kept := kept or await self._store.read(mark):
            order, task = kept.order, task_id(str(detail.get("taskArn", "")))
            if order.nonce != nonce or task in order.dead:
                return None
            if order.end is not None:
                return kept
            try:
                return await self._store.change(kept, replace(order, end=observe.slim(detail)))
            except (Conflict, NotFound):
                # Another provider has changed it, or an answer of ours was lost.
                kept = None
        return None

    async def _look(self) -> None:
        wanted, self._wanted = self._wanted, set()
        some: Iterable[Pod] = [pod for one in wanted if (pod := self._pods.get(one)) is not None]
        now = time.monotonic()
        if polls := now >= self._polled_at + self._options.poll * (_TRUSTED if self._hears else 1):
            self._polled_at = now
            some = [pod for pod in self._pods if pod.mark in wanted or _changes(pod)]
        try:
            await self._refresh(some)
        except BridgeError:
            self._wanted |= wanted
            raise
        await self._free(self._pods if polls else some)

    async def refresh(self) -> None:
        """Looks at everything that has not stopped, where that was not done a short while ago."""
        now = time.monotonic()
        if self._hears and now < self._refreshed_at + _QUIET:
            for pod in self._pods:
                if pod.task is not None:
                    self._advance(pod, pod.task)
            return
        before = {pod.mark for pod in self._pods if _runs(pod)}
        await self._refresh(self._pods)
        self._refreshed_at = now
        after = (self._pods.get(one) for one in before - self._wanted)
        if any(one is not None and not _runs(one) for one in after):
            # That should have been told of.
            self._proven = False

    async def _refresh(self, some: Iterable[Pod]) -> None:
        pods = {pod.arn: pod for pod in some if _runs(pod)}
        if not pods:
            return
        found = await self._tasks.describe(list(pods))
        for arn, pod in pods.items():
            if pod.arn != arn:
                continue
            if (task := found.get(arn)) is not None:
                self._learn(pod, task)
            elif not pod.missing and (pod.seen or self._clock() > _created(pod) + _YOUNG):
                pod.missing = True
                if pod.kept is not None and pod.kept.order.end is not None:
                    self._learn(pod, observe.from_event(pod.kept.order.end))
                self._pods.tell(pod)

    def _learn(self, pod: Pod, task: Json) -> None:
        pod.seen = True
        news = pod.learn(task)
        if observe.is_stopped(task) and str(task.get("stoppedReason", "")) == observe.DELETED:
            if not pod.ending:
                # Another provider has deleted it.
                self._pods.forget(pod)
            return self._pods.tell(pod)
        self._advance(pod, task)
        if news:
            self._pods.tell(pod)
        return None

    def _advance(self, pod: Pod, task: Json) -> None:
        """Does what is due for it."""
        if pod.kept is None or pod.halt.is_set() or pod.ending == observe.DELETED or not self.acts:
            return
        now, order = self._clock(), pod.kept.order
        if observe.never_started(task):
            if pod.launch is None:
                pod.waiting = observe.failure(task)
                pod.tries += 1
                pod.ending = ""
                self._launcher.start(pod)
            return
        if observe.is_stopped(task) or pod.ending:
            return
        started = task.get("startedAt")
        if started is not None:
            if order.hard_stop is not None and now > started.timestamp() + order.hard_stop:
                self._end(pod, observe.HARD_STOP)
        elif now > _created(pod) + self._options.start_deadline:
            self._end(pod, observe.LATE)

    def _end(self, pod: Pod, reason: str) -> None:
        if pod.mark in self._steps:
            return
        _log.warning("pod %s: %s", pod.identity.uid, reason)

        async def end() -> None:
            await self._tasks.stop(pod.arn, reason)
            pod.ending = reason
            self.look_at(pod.mark)

        self._begin(pod.mark, end)

    def _begin(self, name: str, do: Callable[[], Awaitable[None]]) -> None:
        """Does it in the background; whoever wants it still will ask again where it fails."""

        async def step() -> None:
            try:
                await do()
            except BridgeError as error:
                _log.info("%s: %s", name, error)
            finally:
                self._steps.pop(name, None)

        self._steps[name] = asyncio.create_task(step(), name=f"end {name}")

    async def _free(self, some: Iterable[Pod]) -> None:
        """Removes the payloads of those whose containers have read them."""
        done = [
            pod
            for pod in some
            if pod.kept is not None
            and not pod.freed
            and pod.launch is None
            and pod.task is not None
            and (pod.task.get("startedAt") is not None or pod.is_over)
            and not (observe.never_started(pod.task) and not pod.halt.is_set())
        ]
        keys = [key for pod in done if pod.kept is not None for key in pod.kept.order.payloads]
        if keys:
            await self._store.forget_payloads(keys)
        for pod in done:
            pod.freed = True

    async def discover(self, *, now: bool = False) -> None:
        """Finds the tasks and orders that nobody here knows of, where that was not done a short
        while ago."""
        asked = time.monotonic()
        async with self._discovering:
            if asked < self._discovered_at + (0.0 if now else self._options.discover):
                # While others wait for one, one for all of them begins.
                return
            if now:
                await self._searches.take()
            began, began_at = self._clock(), time.monotonic()
            # Orders first: one that is gone in between is of a pod that is gone.
            marks = await self._store.marks()
            await self._learn_orders(marks, began)
            await self._learn_tasks(await self._tasks.all())
            if self.acts and any(self._is_orphan(pod) for pod in self._pods):
                await self._drain()
            self._forget_deleted(marks, began)
            self._discovered_at = began_at

    async def _learn_orders(self, marks: set[str], began: float) -> None:
        unknown = [one for one in marks if (pod := self._pods.get(one)) is None or not pod.kept]
        self._unreadable &= marks
        self._ended.clear()
        for mark, found in zip(
            unknown, await asyncio.gather(*map(self._read, unknown)), strict=True
        ):
            if found is None:
                continue
            kept = self._ended.get(mark, found)
            pod = self._pods.add(Pod(kept.order.identity, kept.order.containers))
            if pod.kept is None and pod.launch is None:
                pod.kept, pod.doubted_at = kept, began
                if kept.order.end is not None:
                    self._learn(pod, observe.from_event(kept.order.end))
            self._logins.used(kept.order.logins, mark)

    async def _read(self, mark: str) -> Kept | None:
        """An order; None: it is gone, or nobody here can read it, and all others go on."""
        try:
            return await self._store.read(mark)
        except Invalid as error:
            if mark not in self._unreadable:
                _log.warning("%s: %s", mark, error)
            self._unreadable.add(mark)
            return None

    async def _learn_tasks(self, arns: set[str]) -> None:
        known = {pod.arn for pod in self._pods}
        self._foreign &= arns
        found = await self._tasks.describe(sorted(arns - known - self._foreign))
        # What runs goes before what has stopped, of which nobody has written down that it is dead.
        for task in sorted(found.values(), key=observe.is_stopped):
            self._learn_of(task)

    def _learn_of(self, task: Json) -> None:
        arn = str(task["taskArn"])
        mark, nonce = names.mark_of(self._options.owner, str(task.get("startedBy", "")))
        pod = self._pods.get(mark)
        if pod is None or pod.kept is None or pod.kept.order.nonce != nonce:
            if not mark or (pod is not None and pod.kept is not None):
                self._foreign.add(arn)
            elif not observe.is_stopped(task) and mark not in self._unreadable:
                self._stray(arn)
        elif pod.launch is None and pod.task is None and task_id(arn) not in pod.kept.order.dead:
            self._learn(pod, task)

    def gives_up(self) -> bool:
        """Whether no event can still tell of a task that nobody finds."""
        return time.monotonic() > self._waits_until

    def _is_orphan(self, pod: Pod) -> bool:
        """Whether its task is gone, and nobody here knows how it ended."""
        return (
            pod.kept is not None
            and pod.task is None
            and pod.launch is None
            and pod.kept.order.is_lost(self._clock())
        )

    def _stray(self, arn: str) -> None:
        """A task without an order is of a pod that was deleted, or its order is just being made: it
        is ended when it is found so once more."""
        if arn not in self._strays or not self.acts:
            self._strays.add(arn)
            return
        _log.warning("task %s has our mark, and there is no order for it", arn)
        self._foreign.add(arn)
        self._begin(arn, lambda: self._tasks.stop(arn, observe.DELETED))

    def is_short(self) -> bool:
        """Whether there are orders whose tasks are not found."""
        return any(
            pod.kept is not None
            and pod.task is None
            and pod.launch is None
            and pod.lost_at is None
            and pod.refused is None
            and not pod.halt.is_set()
            for pod in self._pods
        )

    def _forget_deleted(self, marks: set[str], began: float) -> None:
        for pod in self._pods:
            is_kept = pod.kept is not None and pod.kept.order.accepted_at < began
            if is_kept and pod.mark not in marks and pod.launch is None and pod.is_over:
                self._pods.forget(pod)
            elif self._is_orphan(pod) and not pod.halt.is_set() and self.gives_up():
                pod.lost_at = self._clock()

    async def end(self, pod: Pod, reason: str) -> None:
        """Begins to end its task. Errors as of StopTask; NotFound is none."""
        pod.ending = reason
        try:
            await self._tasks.stop(pod.arn, reason)
        except NotFound:
            pod.missing = True
        self.look_at(pod.mark)

    def kill(self, pod: Pod) -> None:
        """Ends what should have ended by now."""
        if pod.task is not None and not observe.is_stopped(pod.task) and not pod.ending:
            self._end(pod, observe.STOPPED)

    async def stopped(self, pod: Pod) -> None:
        """Returns once nothing of its task runs, or ECS no longer has it."""
        with self._pods.listen() as listener:
            while pod.task is not None and not observe.is_stopped(pod.task) and not pod.missing:
                self.look_at(pod.mark)
                await listener.take()


def _runs(pod: Pod) -> bool:
    return pod.task is not None and not observe.is_stopped(pod.task)


def _changes(pod: Pod) -> bool:
    """Whether it is about to be something else."""
    return pod.task is not None and bool(pod.ending or observe.in_transition(pod.task))


def _created(pod: Pod) -> float:
    """When its task was made (epoch seconds)."""
    if pod.task is None or pod.kept is None:
        return 0.0
    return observe.created(pod.kept.order, pod.task)
