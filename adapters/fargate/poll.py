"""Looks at the tasks that are known here, by hundreds.

Those that are about to change are looked at every `poll` seconds, those of which somebody has heard
something at once, and all of them with each list. Where events come, the looks are fewer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable

from adapters.fargate import observe
from adapters.fargate.due import Due
from adapters.fargate.options import Options
from adapters.fargate.pods import Pod, Pods
from adapters.fargate.tasks import Tasks
from bridge.errors import BridgeError

_log = logging.getLogger(__name__)

_YOUNG = 60.0
"""Seconds for which DescribeTasks may not know a task that RunTask has made."""
_GATHER = 0.05
"""Seconds for which hints are gathered."""
_SLOWEST = 60.0
"""Seconds between looks while AWS does not answer."""
_TRUSTED, _QUIET = 5, 60.0
"""Where events come: how many times `poll` tasks that change are looked at unasked, and the seconds
between two looks at all tasks."""
_ANSWERED = 30.0
"""Seconds for which the queue's last answer counts; it answers every few seconds."""


class Poll:
    """The looks at the known tasks of one backend."""

    def __init__(
        self, *, options: Options, pods: Pods, tasks: Tasks, due: Due, clock: Callable[[], float]
    ) -> None:
        """`clock`: AWS's, with which its times are compared; waits are this machine's own, which
        nobody sets."""
        self._options = options
        self._pods = pods
        self._tasks = tasks
        self._due = due
        self._clock = clock
        self._nudge = asyncio.Event()
        self._wanted: set[str] = set()
        """Marks of pods that somebody wants to be looked at now."""
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

    def look_at(self, mark: str) -> None:
        """That pod may have changed: look at once."""
        self._wanted.add(mark)
        self._nudge.set()

    def heard(self, mark: str) -> None:
        """An event of that pod's task has come."""
        self._proven = self._proven or self._pods.get(mark) is not None
        self.look_at(mark)

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
        await self._due.free(self._pods if polls else some)

    async def refresh(self) -> None:
        """Looks at everything that has not stopped, where that was not done a short while ago."""
        now = time.monotonic()
        if self._hears and now < self._refreshed_at + _QUIET:
            for pod in self._pods:
                if pod.has_group:
                    self._due.advance(pod)
            return
        before = {pod.mark for pod in self._pods if pod.runs}
        await self._refresh(self._pods)
        self._refreshed_at = now
        after = (self._pods.get(one) for one in before - self._wanted)
        if any(one is not None and not one.runs for one in after):
            # That should have been told of.
            self._proven = False

    async def _refresh(self, some: Iterable[Pod]) -> None:
        pods = {pod.arn: pod for pod in some if pod.runs}
        if not pods:
            return
        found = await self._tasks.describe(list(pods))
        for arn, pod in pods.items():
            if pod.arn != arn:
                continue
            if (task := found.get(arn)) is not None:
                self._due.learn(pod, task)
            elif not pod.missing and (pod.seen or self._clock() > pod.created_at + _YOUNG):
                pod.missing = True
                if pod.kept is not None and pod.kept.order.end is not None:
                    self._due.learn(pod, observe.from_event(pod.kept.order.end))
                self._pods.tell(pod)


def _changes(pod: Pod) -> bool:
    """Whether it is about to be something else."""
    return pod.task is not None and bool(pod.ending or observe.in_transition(pod.task))
