"""What ECS has said of each pod's task, and what is kept of its order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from adapters.fargate import observe
from adapters.fargate.names import Json
from adapters.fargate.store import Kept
from bridge.groups import pods
from bridge.groups.pods import Made
from bridge.workload import Observed, Waiting


@dataclass(slots=True)
class Pod(pods.Pod):
    """One attempt at a pod: an order, and a task."""

    LOST: ClassVar[str] = "ECS no longer has its task, or never had one"

    payloads: tuple[str, ...] = ()
    """Until there is an order, as its logins."""
    logins: tuple[str, ...] = ()
    kept: Kept | None = None
    unused: str = ""
    """A token with which nothing was asked for yet, or nothing came of it."""
    doubted_at: float = 0.0
    """When RunTask may have been called last with nobody here to hear its answer: ours was lost, or
    the order is another provider's."""
    arn: str = ""
    task: Json | None = None
    """As ECS told of it last."""
    seen: bool = False
    """DescribeTasks has had it."""
    warned: bool = False
    freed: bool = False
    """Its payloads are gone."""
    ended_at: dict[str, float] = field(default_factory=dict)
    """When each container was first seen to have ended, by the event loop's clock."""

    @property
    def has_group(self) -> bool:
        """Whether there was a task."""
        return self.task is not None

    @property
    def is_settled(self) -> bool:
        """Whether there is no token with which a task may have been asked for."""
        return self.kept is None or self.unused == self.kept.order.token

    @property
    def is_stopped(self) -> bool:
        """Whether its task has stopped."""
        return self.task is not None and observe.is_stopped(self.task)

    @property
    def never_started(self) -> bool:
        """Whether its task stopped before anything of the pod ran."""
        return self.task is not None and observe.never_started(self.task)

    @property
    def created_at(self) -> float:
        """When its task was made."""
        if self.task is None or self.kept is None:
            return 0.0
        return observe.created(self.kept.order, self.task)

    @property
    def started_at(self) -> float | None:
        """When its task ran."""
        at = None if self.task is None else self.task.get("startedAt")
        return None if at is None else float(at.timestamp())

    @property
    def stopped_at(self) -> float | None:
        """When its task had stopped."""
        at = None if self.task is None else self.task.get("stoppedAt")
        return None if at is None else float(at.timestamp())

    @property
    def accepted_at(self) -> float | None:
        """When its order was made."""
        return None if self.kept is None else self.kept.order.accepted_at

    @property
    def hard_stop(self) -> float | None:
        """Of its order."""
        return None if self.kept is None else self.kept.order.hard_stop

    @property
    def fs_group(self) -> int | None:
        """Of its order."""
        return None if self.kept is None else self.kept.order.fs_group

    @property
    def made(self) -> tuple[Made, ...]:
        """Those of its order."""
        return self.containers if self.kept is None else self.kept.order.containers

    def failure(self) -> Waiting:
        """Why its task never started."""
        return observe.failure(self.task or {})

    def shown(self) -> Observed:
        """The task, by its order."""
        assert self.kept is not None
        assert self.task is not None
        return observe.group(self.kept.order, self.task, warned=self.warned)

    def learn(self, task: Json) -> bool:
        """What ECS says now; whether that is news."""
        known, task = self.task, observe.slim(task)
        self.missing = False
        is_same = known is not None and known["taskArn"] == task["taskArn"]
        if known is not None and is_same and _version(task) < _version(known):
            return False
        news = known != task
        self.arn, self.task = str(task["taskArn"]), task
        # Its last word may be another one.
        self.warned = self.warned or (observe.is_warned(task) and not observe.is_stopped(task))
        return news


def _version(task: Json) -> int:
    return int(task.get("version", 0))


Pods = pods.Pods[Pod]
"""All pods of one backend."""
