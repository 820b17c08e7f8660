"""What a pod costs as a group, from what its cloud makes of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from bridge.adapter import Quote
from bridge.groups.options import GroupOptions
from bridge.groups.prepare import LATE
from bridge.groups.prices import Read
from bridge.requests import pod_request
from bridge.workload import Workload

_SIZES = ("cpu", "memory", "ephemeral-storage")
_BARE = "ends by itself only while podbridge runs"
"""Of a pod without the helper, whose hard stop nobody else keeps."""


def quote(
    workload: Workload,
    options: GroupOptions,
    *,
    account: str,
    region: str,
    billed: Mapping[str, int],
    prices: Read | None,
    hourly: Decimal | None,
    least: float,
    spot: bool,
    wrapped: bool,
    words: str,
) -> Quote:
    """`prices`: those of the region, None: none are known. `hourly` None: some part of it has no
    price. `words`: what makes up the price. The rest is as in `Quote`."""
    asked = pod_request(workload).requests
    unknown = f"no price is known for it in {region}: podbridge plan --refresh-prices reads them"
    said = words if hourly else unknown
    return Quote(
        account=account,
        region=region,
        requested={name: asked[name] for name in _SIZES if name in asked},
        billed=billed,
        hourly=hourly or None,
        priced_on=prices.read_on if prices else None,
        source=prices.source if prices else "",
        least=least,
        # Billing begins with the images' download, and a group that never runs is given up.
        around=options.start_deadline + LATE,
        spot=spot,
        words=said if wrapped else f"{said}; {_BARE}",
    )
