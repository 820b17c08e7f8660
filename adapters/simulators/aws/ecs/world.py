"""What the life of a task needs of the account around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adapters.simulators.aws.ecs.records import Task
from adapters.simulators.aws.ecs.sources import Stores
from adapters.simulators.aws.logdriver import Sink
from adapters.simulators.aws.names import Place
from adapters.simulators.aws.network import Network
from adapters.simulators.aws.settings import Timing
from adapters.simulators.common.clock import Clock
from adapters.simulators.common.running import Runner


@dataclass(frozen=True, slots=True)
class World:
    """The account, as tasks see it. `owner` is a UUID of this simulator's own."""

    owner: str
    place: Place
    clock: Clock
    timing: Timing
    network: Network
    runner: Runner
    stores: Stores
    sink: Sink
    changed: Callable[[Task], None]
    """Hears of each change that ECS sends an event for."""
    ended: Callable[[Task], None]
    """Hears once that a task no longer uses anything."""
