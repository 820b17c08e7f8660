"""What the life of a group needs of the subscription around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adapters.simulators.azure.groups.records import Group
from adapters.simulators.azure.settings import Settings
from adapters.simulators.common.clock import Clock
from adapters.simulators.common.running import Runner


@dataclass(frozen=True, slots=True)
class World:
    """The subscription, as groups see it. `owner` is a UUID of this simulator's own."""

    owner: str
    clock: Clock
    runner: Runner
    settings: Settings
    mistakes: list[str]
    gone: Callable[[Group], None]
    """Hears that a group is deleted."""
