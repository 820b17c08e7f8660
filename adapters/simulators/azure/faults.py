"""What is to go wrong with calls and groups."""

from __future__ import annotations

from adapters.simulators.azure.settings import Fault
from adapters.simulators.common.faults import Chances


class Faults(Chances[Fault]):
    """All faults of the subscription."""

    def of_call(self, action: str) -> list[Fault]:
        """What befalls this call."""
        return self.striking(lambda one: one.befalls_calls and one.action in ("*", action))

    def of_group(self, *, spot: bool) -> list[Fault]:
        """What befalls a group that is about to be deployed."""
        return self.striking(lambda one: not one.befalls_calls and (spot or one.kind != "evict"))
