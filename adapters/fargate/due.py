"""Does what is due for a task once ECS tells of it, whoever has looked.

A task that never starts is stopped and replaced, one that runs for longer than it may is stopped,
and payloads go once their containers run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from adapters.fargate import observe
from adapters.fargate.launch import Launcher
from adapters.fargate.names import Json
from adapters.fargate.options import Options
from adapters.fargate.pods import Pod, Pods
from adapters.fargate.store import Store
from adapters.fargate.tasks import Tasks
from bridge.errors import BridgeError, NotFound
from bridge.groups.pods import Ending

_log = logging.getLogger(__name__)


class Due:
    """What is done for the tasks of one backend."""

    def __init__(
        self,
        *,
        options: Options,
        pods: Pods,
        store: Store,
        tasks: Tasks,
        launcher: Launcher,
        look_at: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        """`look_at`: has the pod of a mark looked at now. `clock`: AWS's, with which its times are
        compared."""
        self.acts = True
        """Whether what is due is done; else there is only a look."""
        self._options = options
        self._pods = pods
        self._store = store
        self._tasks = tasks
        self._launcher = launcher
        self._look_at = look_at
        self._clock = clock
        self._steps: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Ends what is under way."""
        steps = list(self._steps.values())
        for one in steps:
            one.cancel()
        await asyncio.gather(*steps, return_exceptions=True)

    def learn(self, pod: Pod, task: Json) -> None:
        """Takes in what ECS says of a pod's task, and does what is due then."""
        pod.seen = True
        news = pod.learn(task)
        if observe.is_stopped(task) and str(task.get("stoppedReason", "")) == observe.DELETED:
            if pod.ending is None:
                # Another provider has deleted it.
                self._pods.forget(pod)
            return self._pods.tell(pod)
        self.advance(pod, task)
        if news:
            self._pods.tell(pod)
        return None

    def advance(self, pod: Pod, task: Json) -> None:
        """Does what is due for it."""
        if pod.kept is None or pod.halt.is_set() or pod.ending is Ending.DELETED or not self.acts:
            return
        now, order = self._clock(), pod.kept.order
        if observe.never_started(task):
            if pod.launch is None:
                pod.waiting = observe.failure(task)
                pod.tries += 1
                pod.ending = None
                self._launcher.start(pod)
            return
        if observe.is_stopped(task) or pod.ending:
            return
        started = task.get("startedAt")
        if started is not None:
            if order.hard_stop is not None and now > started.timestamp() + order.hard_stop:
                self._end(pod, Ending.HARD_STOP)
        elif now > pod.created_at + self._options.start_deadline:
            self._end(pod, Ending.LATE)

    def _end(self, pod: Pod, why: Ending) -> None:
        if pod.mark in self._steps:
            return
        _log.warning("pod %s: %s", pod.identity.uid, observe.REASONS[why])

        async def end() -> None:
            await self._tasks.stop(pod.arn, observe.REASONS[why])
            pod.ending = why
            self._look_at(pod.mark)

        self.begin(pod.mark, end)

    def begin(self, name: str, do: Callable[[], Awaitable[None]]) -> None:
        """Does it in the background; whoever wants it still will ask again where it fails."""

        async def step() -> None:
            try:
                await do()
            except BridgeError as error:
                _log.info("%s: %s", name, error)
            finally:
                self._steps.pop(name, None)

        self._steps[name] = asyncio.create_task(step(), name=f"end {name}")

    async def free(self, some: Iterable[Pod]) -> None:
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

    async def end(self, pod: Pod, why: Ending) -> None:
        """Begins to end its task. Errors as of StopTask; NotFound is none."""
        pod.ending = why
        try:
            await self._tasks.stop(pod.arn, observe.REASONS[why])
        except NotFound:
            pod.missing = True
        self._look_at(pod.mark)

    def kill(self, pod: Pod) -> None:
        """Ends what should have ended by now."""
        if pod.runs and pod.ending is None:
            self._end(pod, Ending.STOPPED)

    async def stopped(self, pod: Pod) -> None:
        """Returns once nothing of its task runs, or ECS no longer has it."""
        with self._pods.listen() as listener:
            while pod.runs and not pod.missing:
                self._look_at(pod.mark)
                await listener.take()
