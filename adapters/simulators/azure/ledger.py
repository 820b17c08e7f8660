"""Who called what, and what groups would have cost."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.simulators.azure import prices
from adapters.simulators.azure.groups.records import Group
from adapters.simulators.common.clock import Clock
from adapters.simulators.common.ledger import Calls
from adapters.simulators.common.web import Json


class Ledger(Calls):
    """Everything since the start."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._now = clock.now
        self._scale = clock.scale

    def bill(self, group: Group) -> Json:
        """From the start of the images' download to the end, for each time it had compute."""
        spans = (one if len(one) == 2 else [one[0], self._now()] for one in group.allocated)
        seconds = sum((end - begun) * self._scale for begun, end in spans)
        vcpu, gigabytes = group.cpu * seconds, group.memory * seconds
        dollars = prices.cost(vcpu, gigabytes, spot=group.is_spot)
        return {
            "group": group.id,
            "kind": "spot" if group.is_spot else "standard",
            "vcpuSeconds": round(vcpu, 3),
            "gigabyteSeconds": round(gigabytes, 3),
            "dollars": round(dollars, 8),
        }

    def as_json(self, groups: Sequence[Group]) -> Json:
        """For the control API; `groups`: all that there ever were."""
        bills = [self.bill(one) for one in groups if one.allocated]
        names = ("vcpuSeconds", "gigabyteSeconds", "dollars")
        totals = {name: round(sum(one[name] for one in bills), 8) for name in names}
        # Nobody has read the prices from Azure's own page.
        source = {"pricesOf": prices.REGION, "pricesReadOn": None, "simulated": True}
        return {"calls": self.calls(), "groups": bills, "billed": {**totals, **source}}
