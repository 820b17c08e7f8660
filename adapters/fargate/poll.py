"""Looks at the tasks that are known here, by hundreds.

Those that are about to change are looked at every `poll` seconds, those of which somebody has heard
something at once, and all of them with each list. Where events come, the looks are fewer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

from adapters.fargate import observe
from adapters.fargate.due import Due
from adapters.fargate.options import Options
from adapters.fargate.pods import Pod, Pods
from adapters.fargate.tasks import Tasks
from bridge.groups.looks import Looks

_YOUNG = 60.0
"""Seconds for which DescribeTasks may not know a task that RunTask has made."""
_TRUSTED, _QUIET = 5, 60.0
"""Where events come: how many times `poll` tasks that change are looked at unasked, and the seconds
between two looks at all tasks."""
_ANSWERED = 30.0
"""Seconds for which the queue's last answer counts; it answers every few seconds."""


class Poll(Looks):
    """The looks at the known tasks of one backend."""

    def __init__(
        self, *, options: Options, pods: Pods, tasks: Tasks, due: Due, clock: Callable[[], float]
    ) -> None:
        """`clock`: AWS's, with which its times are compared; waits are this machine's own, which
        nobody sets."""
        super().__init__(options.poll)
        self._pods = pods
        self._tasks = tasks
        self._due = due
        self._clock = clock
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

    def heard(self, mark: str) -> None:
        """An event of that pod's task has come."""
        self._proven = self._proven or self._pods.get(mark) is not None
        self.look_at(mark)

    async def look(self, wanted: set[str]) -> None:
        """Describes them, and what is about to change where it is its turn."""
        some: Iterable[Pod] = [pod for one in wanted if (pod := self._pods.get(one)) is not None]
        now = time.monotonic()
        if polls := now >= self._polled_at + self._every * (_TRUSTED if self._hears else 1):
            self._polled_at = now
            some = [pod for pod in self._pods if pod.mark in wanted or _changes(pod)]
        await self._refresh(some)
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
        after = (self._pods.get(one) for one in before - self.wanted)
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
