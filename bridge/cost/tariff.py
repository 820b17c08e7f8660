"""What a run's pods have cost: the prices that held when it began, and the times that were seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from bridge.cost.money import over


@dataclass(frozen=True, slots=True)
class Rate:
    """The price of one pod."""

    hourly: Decimal
    least: float = 0.0
    """Seconds that are billed at least."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """Prices by (backend, what makes the pod: `Job/default/words`). Empty: nothing bills."""

    rates: Mapping[tuple[str, str], Rate] = field(default_factory=dict)
    simulated: bool = False

    def cost(self, backend: str, owner: str, seconds: float) -> Decimal | None:
        """What a pod has cost that ran for so long; None: nothing is known of a price. A backend
        that is not named is the only one."""
        if not backend:
            found = [rate for (_, made_by), rate in self.rates.items() if made_by == owner]
            rate = found[0] if len(found) == 1 else None
        else:
            rate = self.rates.get((backend, owner))
        return None if rate is None else over(rate.hourly, max(rate.least, seconds))

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        return {
            "simulated": self.simulated,
            "rates": [
                {"backend": backend, "owner": owner, "hourly": str(one.hourly), "least": one.least}
                for (backend, owner), one in self.rates.items()
            ],
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Tariff:
        """Of what `to_json` gave."""
        rates = {
            (one["backend"], one["owner"]): Rate(Decimal(one["hourly"]), one["least"])
            for one in plain["rates"]
        }
        return cls(rates, plain["simulated"])


FREE = Tariff()
"""Nothing bills."""
