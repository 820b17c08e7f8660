"""ARNs of the simulated account."""

from __future__ import annotations

from dataclasses import dataclass

ACCOUNT = "123456789012"
"""The account number of AWS's own examples."""


@dataclass(frozen=True, slots=True)
class Place:
    """An account in a region."""

    region: str = "us-east-1"
    account: str = ACCOUNT

    def arn(self, service: str, rest: str) -> str:
        """`arn:aws:ecs:us-east-1:123456789012:cluster/main`."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{rest}"
