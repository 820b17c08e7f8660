"""One simulated subscription: its groups, and all that they need."""

from __future__ import annotations

from collections.abc import Callable

from adapters.simulators.azure.faults import Faults
from adapters.simulators.azure.groups.containers import Containers
from adapters.simulators.azure.groups.operations import Operations
from adapters.simulators.azure.groups.records import Group
from adapters.simulators.azure.groups.service import Groups
from adapters.simulators.azure.groups.sessions import Sessions
from adapters.simulators.azure.groups.world import World
from adapters.simulators.azure.ledger import Ledger
from adapters.simulators.azure.quotas import Quotas
from adapters.simulators.azure.rates import Rates
from adapters.simulators.azure.settings import Fault, Settings
from adapters.simulators.azure.tokens import Tokens
from adapters.simulators.common.clock import Clock
from adapters.simulators.common.names import uuid_id
from adapters.simulators.common.running import Runner
from adapters.simulators.common.web import Json


class Subscription:
    """Everything behind the server. `base` says where the server is."""

    def __init__(
        self, settings: Settings, clock: Clock, runner: Runner, base: Callable[[], str]
    ) -> None:
        self.mistakes: list[str] = []
        """What only a mistake of the simulator's own can have caused."""
        self.settings = settings
        self.clock = clock
        self.runner = runner
        self.base = base
        self.faults = Faults(settings.seed, settings.faults)
        self.ledger = Ledger(clock)
        self.rates = Rates(clock, settings)
        self.quotas = Quotas(settings)
        self.tokens = Tokens(settings, base)
        self.sessions = Sessions(base)
        self.operations = Operations(settings.subscription, base)
        world = World(
            owner=uuid_id(),
            clock=clock,
            runner=runner,
            settings=settings,
            mistakes=self.mistakes,
            gone=self._gone,
        )
        self.containers = Containers(world, self.sessions)
        self.groups = Groups(world, self.faults, self.rates, self.quotas, self.operations)

    def _gone(self, group: Group) -> None:
        self.groups.forget(group)

    def told(self) -> Json:
        """The ledger, for the control API."""
        return self.ledger.as_json(self.groups.ever)

    def befall(self, fault: Fault) -> bool:
        """Befalls a group that is there; False: it is not."""
        return self.groups.befall(fault)

    async def close(self) -> None:
        """Ends all groups."""
        await self.groups.close()
