"""Finds the tasks and orders that nobody here knows of: at the start, and now and then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from adapters.fargate import names, observe
from adapters.fargate.due import Due
from adapters.fargate.ends import Ends
from adapters.fargate.logins import Logins
from adapters.fargate.names import Json, task_id
from adapters.fargate.options import Options
from adapters.fargate.pods import Pod, Pods
from adapters.fargate.store import Kept, Store
from adapters.fargate.tasks import Tasks
from bridge.errors import Invalid
from bridge.groups import discovery

_log = logging.getLogger(__name__)


class Discovery(discovery.Discovery):
    """The looks at all that one backend has in AWS."""

    def __init__(
        self,
        *,
        options: Options,
        pods: Pods,
        store: Store,
        tasks: Tasks,
        logins: Logins,
        due: Due,
        ends: Ends,
        drain: Callable[[], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        """`drain` hands on all events that wait in the queue. `clock`: AWS's."""
        super().__init__(options.discover)
        self._owner = options.owner
        self._pods = pods
        self._store = store
        self._tasks = tasks
        self._logins = logins
        self._due = due
        self._ends = ends
        self._drain = drain
        self._clock = clock
        self._foreign: set[str] = set()
        """Tasks that are not ours, or of pods that are gone."""
        self._unreadable: set[str] = set()
        """Marks whose orders nobody here can read: their tasks are left alone."""
        self._strays: set[str] = set()
        """Tasks with our mark that were found without an order once."""

    async def search(self) -> None:
        """Orders first: one that is gone in between is of a pod that is gone."""
        began = self._clock()
        marks = await self._store.marks()
        await self._learn_orders(marks, began)
        await self._learn_tasks(await self._tasks.all())
        if self._due.acts and any(self._is_orphan(pod) for pod in self._pods):
            await self._drain()
        self._forget_deleted(marks, began)

    async def _learn_orders(self, marks: set[str], began: float) -> None:
        unknown = [one for one in marks if (pod := self._pods.get(one)) is None or not pod.kept]
        self._unreadable &= marks
        self._ends.recent.clear()
        for mark, found in zip(
            unknown, await asyncio.gather(*map(self._read, unknown)), strict=True
        ):
            if found is None:
                continue
            kept = self._ends.recent.get(mark, found)
            pod = self._pods.add(Pod(kept.order.identity, kept.order.containers))
            if pod.kept is None and pod.launch is None:
                pod.kept, pod.doubted_at = kept, began
                if kept.order.end is not None:
                    self._due.learn(pod, observe.from_event(kept.order.end))
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
        mark, nonce = names.mark_of(self._owner, str(task.get("startedBy", "")))
        pod = self._pods.get(mark)
        if pod is None or pod.kept is None or pod.kept.order.nonce != nonce:
            if not mark or (pod is not None and pod.kept is not None):
                self._foreign.add(arn)
            elif not observe.is_stopped(task) and mark not in self._unreadable:
                self._stray(arn)
        elif pod.launch is None and pod.task is None and task_id(arn) not in pod.kept.order.dead:
            self._due.learn(pod, task)

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
        if arn not in self._strays or not self._due.acts:
            self._strays.add(arn)
            return
        _log.warning("task %s has our mark, and there is no order for it", arn)
        self._foreign.add(arn)
        self._due.begin(arn, lambda: self._tasks.stop(arn, observe.DELETED))

    def is_short(self) -> bool:
        """Whether there are orders whose tasks are not found."""
        return any(
            pod.kept is not None
            and pod.task is None
            and pod.launch is None
            and pod.lost_at is None
            and pod.refused is None
            and not pod.is_halted
            for pod in self._pods
        )

    def _forget_deleted(self, marks: set[str], began: float) -> None:
        for pod in self._pods:
            is_kept = pod.kept is not None and pod.kept.order.accepted_at < began
            if is_kept and pod.mark not in marks and pod.launch is None and pod.is_over:
                self._pods.forget(pod)
            elif self._is_orphan(pod) and not pod.is_halted and self._ends.gives_up():
                pod.lost_at = self._clock()
