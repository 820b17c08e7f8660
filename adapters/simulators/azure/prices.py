"""What ACI would have billed: list prices, by the second, from the images' download to the end.

They are those that are commonly cited for Linux in East US: nobody has read them from
https://azure.microsoft.com/pricing/details/container-instances/. Spot's changes with demand: "up to
a 70% discount".
"""

from __future__ import annotations

REGION = "eastus"
VCPU = 0.0405
"""US dollars a vCPU-hour."""
GIGABYTE = 0.00445
"""US dollars a GB-hour."""
_SPOT = 0.3


def cost(vcpu_seconds: float, gigabyte_seconds: float, *, spot: bool) -> float:
    """US dollars."""
    total = (vcpu_seconds * VCPU + gigabyte_seconds * GIGABYTE) / 3600
    return total * (_SPOT if spot else 1.0)
