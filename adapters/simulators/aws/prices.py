"""What Fargate would have billed: list prices, by the second, at least a minute.

Source: https://aws.amazon.com/fargate/pricing/ for us-east-1, before discounts. Spot's changes with
demand; what stands here was seen for us-west-2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

READ_ON = "2026-11-22"
REGION = "us-east-1"
MINIMUM = 60.0
"""Seconds that are billed at least."""
FREE_STORAGE = 20
"""GiB."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars an hour."""

    vcpu: float
    gigabyte: float


PRICES: Mapping[str, Price] = {
    "X86_64": Price(0.04048, 0.004445),
    "ARM64": Price(0.03238, 0.00356),
    "spot": Price(0.012144, 0.0013335),
}
STORAGE = 0.000111
"""US dollars a GB-hour over the free ones."""


def cost(kind: str, vcpu_seconds: float, gigabyte_seconds: float, storage_seconds: float) -> float:
    """US dollars."""
    price = PRICES[kind]
    total = vcpu_seconds * price.vcpu + gigabyte_seconds * price.gigabyte
    return (total + storage_seconds * STORAGE) / 3600
