"""What is known of each pod here, and who wants to hear that it has changed.

All of it is read back from S3 and ECS after a restart; nothing here is the truth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from adapters.fargate import names, observe
from adapters.fargate.names import Json
from adapters.fargate.order import Made
from adapters.fargate.store import Kept
from bridge.helper.view import UNKNOWN
from bridge.workload import ContainerState, Exit, Identity, Observed, Waiting, Workload

_LOST = "ECS no longer has its task, or never had one"


@dataclass(slots=True)
class Pod:
    """One attempt at a pod."""

    identity: Identity
    containers: tuple[Made, ...] = ()
    """Until there is an order."""
    workload: Workload | None = field(default=None, repr=False)
    """While it is on its way in."""
    payloads: tuple[str, ...] = ()
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
    missing: bool = False
    """It has it no more."""
    waiting: Waiting = Waiting("ContainerCreating")  # noqa: RUF009 - frozen
    notice: str = ""
    launch: asyncio.Task[None] | None = None
    halt: asyncio.Event = field(default_factory=asyncio.Event)
    """It is launched no further."""
    ending: str = ""
    """Why StopTask was called."""
    killing: asyncio.TimerHandle | None = None
    warned: bool = False
    freed: bool = False
    """Its payloads are gone."""
    refused: Waiting | None = None
    """It will never be launched."""
    lost_at: float | None = None
    tries: int = 0
    ended_at: dict[str, float] = field(default_factory=dict)
    """When each container was first seen to have ended, by the event loop's clock."""

    @property
    def mark(self) -> str:
        """What names it in AWS."""
        return names.mark(self.identity.key)

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs or ever will."""
        if self.refused is not None or self.lost_at is not None:
            return True
        if self.task is None:
            is_settled = self.kept is None or self.unused == self.kept.order.token
            return self.halt.is_set() and self.launch is None and is_settled
        return observe.is_stopped(self.task) and self.launch is None

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

    def group(self) -> Observed | None:
        """The group of its containers as the cloud shows it; None: there is nothing of it."""
        accepted = self.kept.order.accepted_at if self.kept is not None else None
        order = self.kept.order if self.kept is not None else None
        if self.refused is not None:
            states = observe.waiting(order, self.containers, self.refused)
            said = self.refused
            return Observed(
                self.identity, states, ended=True, accepted_at=accepted,
                reason=said.reason, message=said.message, failed=True,
            )  # fmt: skip
        if self.lost_at is not None:
            return self._lost(self.lost_at, accepted)
        if self.task is not None and order is not None and self.launch is None:
            if self.missing:
                return None
            found = observe.group(order, self.task, warned=self.warned)
            return found if not observe.never_started(self.task) else self._unstarted(found)
        if self.launch is None and not self.halt.is_set():
            return None
        states = observe.waiting(order, self.containers, self.waiting)
        return Observed(
            self.identity, states, ended=self.is_over, accepted_at=accepted, message=self.notice
        )

    def _unstarted(self, found: Observed) -> Observed:
        """Another task is to take its place."""
        assert self.kept is not None
        states = observe.waiting(self.kept.order, (), self.waiting)
        return Observed(
            self.identity, states, ended=self.halt.is_set(), accepted_at=found.accepted_at
        )

    def _lost(self, at: float, accepted: float | None) -> Observed:
        order = self.kept.order if self.kept is not None else None
        end = Exit(137, at, UNKNOWN, message=_LOST)
        states = tuple(
            ContainerState(one.name, end, image=one.image)
            for one in observe.waiting(order, self.containers, self.waiting)
        )
        return Observed(
            self.identity, states, ended=True, accepted_at=accepted,
            reason=UNKNOWN, message=_LOST, failed=True, disrupted=True,
        )  # fmt: skip


def _version(task: Json) -> int:
    return int(task.get("version", 0))


class Listener:
    """The pods that have changed since they were last taken, each once."""

    def __init__(self) -> None:
        self._changed: dict[str, Pod] = {}
        self._some = asyncio.Event()

    def add(self, pod: Pod) -> None:
        """That pod has changed."""
        self._changed[pod.mark] = pod
        self._some.set()

    async def take(self) -> list[Pod]:
        """Waits until there are some."""
        await self._some.wait()
        self._some.clear()
        changed, self._changed = list(self._changed.values()), {}
        return changed


class Pods:
    """All pods, by their marks."""

    def __init__(self) -> None:
        self._pods: dict[str, Pod] = {}
        self._listeners: list[Listener] = []

    def __iter__(self) -> Iterator[Pod]:
        return iter(list(self._pods.values()))

    def get(self, mark: str) -> Pod | None:
        """The pod of that mark; None: it is not known here."""
        return self._pods.get(mark)

    def of(self, identity: Identity) -> Pod | None:
        """The pod; None: it is not known here."""
        return self._pods.get(names.mark(identity.key))

    def add(self, pod: Pod) -> Pod:
        """Takes a pod on, or gives the one that is there."""
        return self._pods.setdefault(pod.mark, pod)

    def forget(self, pod: Pod) -> None:
        """It is gone."""
        if self._pods.get(pod.mark) is pod:
            del self._pods[pod.mark]
        if pod.killing is not None:
            pod.killing.cancel()
        self.tell(pod)

    def tell(self, pod: Pod) -> None:
        """It has changed."""
        for one in self._listeners:
            one.add(pod)

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        """A listener while the block lasts."""
        listener = Listener()
        self._listeners.append(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)
