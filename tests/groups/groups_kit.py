"""A cloud on paper that runs groups: what it says of each is what the test writes there."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

from bridge.groups import pods
from bridge.groups.pods import Made
from bridge.helper.wrap import INSTALL, WATCH
from bridge.workload import ContainerState, Identity, Observed, Running, Waiting

_numbers = itertools.count()
WAITS = Waiting("ContainerCreating")


@dataclass(slots=True)
class PaperPod(pods.Pod):
    """A pod, and what the cloud says of its group."""

    LOST: ClassVar[str] = "nobody finds it"

    has_group: bool = False
    is_settled: bool = True
    is_stopped: bool = False
    never_started: bool = False
    created_at: float = 0.0
    started_at: float | None = None
    accepted_at: float | None = 1.0
    hard_stop: float | None = None
    fs_group: int | None = None

    @property
    def made(self) -> tuple[Made, ...]:
        return self.containers

    def failure(self) -> Waiting:
        return Waiting("OutOfCapacity", "there is no room")

    def shown(self) -> Observed:
        states = (ContainerState(one.name, Running(2.0)) for one in self.containers)
        return Observed(self.identity, tuple(states), accepted_at=self.accepted_at)


def identity() -> Identity:
    return Identity("cluster", "node", "default", "pod", f"uid-{next(_numbers)}")


def a_pod() -> PaperPod:
    names = (INSTALL, "main", WATCH)
    return PaperPod(identity(), tuple(Made(one, f"{one}:1") for one in names))
