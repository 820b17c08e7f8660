"""What is known of each pod on such a cloud, and who wants to hear that it has changed.

All of it is read back from the cloud after a restart; nothing here is the truth.
"""

from __future__ import annotations

import asyncio
import hashlib
from abc import ABC, abstractmethod
from base64 import b32encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Generic, TypeVar

from bridge.helper.view import UNKNOWN
from bridge.helper.wrap import OURS
from bridge.workload import ContainerState, Exit, Identity, Key, Observed, Waiting, Workload


def mark(key: Key) -> str:
    """A pod's attempt in 32 letters and digits: no two have the same."""
    digest = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
    return b32encode(digest[:20]).decode().lower()


@dataclass(frozen=True, slots=True)
class Made:
    """A container of the group."""

    name: str
    image: str
    """As the pod names it."""

    @staticmethod
    def all_of(workload: Workload) -> tuple[Made, ...]:
        """Those of a workload."""
        return tuple(Made(one.name, one.image) for one in workload.containers)


class Ending(Enum):
    """Why a group is ended, in words for people."""

    STOPPED = "the pod was stopped"
    DELETED = "the pod was deleted"
    LATE = "it did not start in time"
    """Another one takes its place."""
    HARD_STOP = "the pod ran for longer than it may"


@dataclass(slots=True)
class Pod(ABC):
    """One attempt at a pod. A cloud adds what it has said of the pod's group."""

    LOST: ClassVar[str]
    """What is said of a pod whose group nobody finds."""

    identity: Identity
    containers: tuple[Made, ...] = ()
    """As long as nothing else says what its containers are."""
    workload: Workload | None = field(default=None, repr=False)
    """While it is on its way in."""
    waiting: Waiting = Waiting("ContainerCreating")  # noqa: RUF009 - frozen
    notice: str = ""
    launch: asyncio.Task[None] | None = None
    is_halted: bool = False
    """It is launched no further."""
    tries: int = 0
    """Groups of it that never started."""
    ending: Ending | None = None
    """Why the cloud was asked to end its group."""
    killing: asyncio.TimerHandle | None = None
    missing: bool = False
    """The cloud has its group no more."""
    refused: Waiting | None = None
    """It will never be launched."""
    lost_at: float | None = None

    # What its cloud says.

    @property
    @abstractmethod
    def has_group(self) -> bool:
        """Whether the cloud was seen to have its group, whatever has become of that."""

    @property
    @abstractmethod
    def is_settled(self) -> bool:
        """Whether nothing can come any more of a launch that nobody has answered."""

    @property
    @abstractmethod
    def is_stopped(self) -> bool:
        """Whether nothing of its group runs any more."""

    @property
    @abstractmethod
    def never_started(self) -> bool:
        """Whether its group ended before anything of the pod ran, for a reason that is not the
        pod's: another one may be launched."""

    @property
    @abstractmethod
    def created_at(self) -> float:
        """When its group was made (epoch seconds, the cloud's)."""

    @property
    @abstractmethod
    def started_at(self) -> float | None:
        """When all of its group ran (epoch seconds, the cloud's)."""

    @property
    @abstractmethod
    def accepted_at(self) -> float | None:
        """When the pod was taken on (epoch seconds); None: it is not written down yet."""

    @property
    @abstractmethod
    def hard_stop(self) -> float | None:
        """Seconds after its start at which its group is ended; None: never."""

    @property
    @abstractmethod
    def fs_group(self) -> int | None:
        """The pod's fsGroup."""

    @property
    @abstractmethod
    def made(self) -> tuple[Made, ...]:
        """The containers of its group."""

    @abstractmethod
    def failure(self) -> Waiting:
        """Why its group never started, as what the pod waits for."""

    @abstractmethod
    def shown(self) -> Observed:
        """Its group as the cloud shows it."""

    # What follows.

    @property
    def mark(self) -> str:
        """What names it in the cloud."""
        return mark(self.identity.key)

    @property
    def runs(self) -> bool:
        """Whether its group is there and has not stopped, as far as is known."""
        return self.has_group and not self.is_stopped

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs or ever will."""
        if self.refused is not None or self.lost_at is not None:
            return True
        if not self.has_group:
            return self.is_halted and self.launch is None and self.is_settled
        return self.is_stopped and self.launch is None

    def group(self) -> Observed | None:
        """The group of its containers as somebody sees it; None: there is nothing of it."""
        if self.refused is not None:
            return self._refused(self.refused)
        if self.lost_at is not None:
            return self._lost(self.lost_at)
        if self.has_group and self.launch is None:
            if self.missing:
                return None
            # Another one is to take the place of a group that never started.
            return self._unstarted() if self.never_started else self.shown()
        if self.launch is None and not self.is_halted:
            return None
        return Observed(
            self.identity, self._all(self.waiting), ended=self.is_over,
            accepted_at=self.accepted_at, message=self.notice,
        )  # fmt: skip

    def _all(self, state: Waiting | Exit) -> tuple[ContainerState, ...]:
        """The pod's own containers, all in the same state."""
        return tuple(
            ContainerState(one.name, state, image=one.image)
            for one in self.made
            if not one.name.startswith(OURS)
        )

    def _refused(self, why: Waiting) -> Observed:
        return Observed(
            self.identity, self._all(why), ended=True, accepted_at=self.accepted_at,
            reason=why.reason, message=why.message, failed=True,
        )  # fmt: skip

    def _unstarted(self) -> Observed:
        return Observed(
            self.identity, self._all(self.waiting), ended=self.is_halted,
            accepted_at=self.accepted_at,
        )  # fmt: skip

    def _lost(self, at: float) -> Observed:
        states = self._all(Exit(137, at, UNKNOWN, message=self.LOST))
        return Observed(
            self.identity, states, ended=True, accepted_at=self.accepted_at,
            reason=UNKNOWN, message=self.LOST, failed=True, disrupted=True,
        )  # fmt: skip


P = TypeVar("P", bound=Pod)


class Listener(Generic[P]):
    """The pods that have changed since they were last taken, each once."""

    def __init__(self) -> None:
        self._changed: dict[str, P] = {}
        self._some = asyncio.Event()

    def add(self, pod: P) -> None:
        """That pod has changed."""
        self._changed[pod.mark] = pod
        self._some.set()

    async def take(self) -> list[P]:
        """Waits until there are some."""
        await self._some.wait()
        self._some.clear()
        changed, self._changed = list(self._changed.values()), {}
        return changed


class Pods(Generic[P]):
    """All pods of one backend, by their marks."""

    def __init__(self) -> None:
        self._pods: dict[str, P] = {}
        self._listeners: list[Listener[P]] = []

    def __iter__(self) -> Iterator[P]:
        return iter(list(self._pods.values()))

    def get(self, mark_: str) -> P | None:
        """The pod of that mark; None: it is not known here."""
        return self._pods.get(mark_)

    def of(self, identity: Identity) -> P | None:
        """The pod; None: it is not known here."""
        return self._pods.get(mark(identity.key))

    def add(self, pod: P) -> P:
        """Takes a pod on, or gives the one that is there."""
        return self._pods.setdefault(pod.mark, pod)

    def forget(self, pod: P) -> None:
        """It is gone."""
        if self._pods.get(pod.mark) is pod:
            del self._pods[pod.mark]
        if pod.killing is not None:
            pod.killing.cancel()
        self.tell(pod)

    def waits(self, pod: P, what: Waiting) -> None:
        """That is what it waits for now."""
        pod.waiting = what
        self.tell(pod)

    def tell(self, pod: P) -> None:
        """It has changed."""
        for one in self._listeners:
            one.add(pod)

    @contextmanager
    def listen(self) -> Iterator[Listener[P]]:
        """A listener while the block lasts."""
        listener = Listener[P]()
        self._listeners.append(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)
