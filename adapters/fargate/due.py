"""Takes in what ECS says of tasks, whoever has looked, and does what is due then."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from adapters.fargate import observe
from adapters.fargate.names import Json
from adapters.fargate.pods import Pod, Pods
from adapters.fargate.store import Store
from bridge.groups import due
from bridge.groups.cloud import GroupCloud
from bridge.groups.launches import Launches


class Due(due.Due[Pod]):
    """What is done for the tasks of one backend."""

    def __init__(
        self,
        *,
        store: Store,
        cloud: GroupCloud[Pod],
        pods: Pods,
        launches: Launches[Pod],
        start_deadline: float,
        look_at: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        super().__init__(
            cloud=cloud,
            pods=pods,
            launches=launches,
            start_deadline=start_deadline,
            look_at=look_at,
            clock=clock,
        )
        self._store = store

    def learn(self, pod: Pod, task: Json) -> None:
        """Takes in what ECS says of a pod's task, and does what is due then."""
        pod.seen = True
        news = pod.learn(task)
        if observe.is_stopped(task) and str(task.get("stoppedReason", "")) == observe.DELETED:
            if pod.ending is None:
                # Another provider has deleted it.
                self._pods.forget(pod)
            return self._pods.tell(pod)
        self.advance(pod)
        if news:
            self._pods.tell(pod)
        return None

    def advance(self, pod: Pod) -> None:
        """Does what is due for its task, where it is known what was asked for."""
        if pod.kept is not None:
            super().advance(pod)

    async def free(self, some: Iterable[Pod]) -> None:
        """Removes the payloads of those whose containers have read them."""
        done = [
            pod
            for pod in some
            if pod.kept is not None
            and not pod.freed
            and pod.launch is None
            and pod.has_group
            and (pod.started_at is not None or pod.is_over)
            and not (pod.never_started and not pod.is_halted)
        ]
        keys = [key for pod in done if pod.kept is not None for key in pod.kept.order.payloads]
        if keys:
            await self._store.forget_payloads(keys)
        for pod in done:
            pod.freed = True
