"""What a pod costs as a task of Fargate, before it is one. Pure but for the table of prices."""

from __future__ import annotations

from adapters.fargate import check, choose, prices
from adapters.fargate.options import Options
from adapters.fargate.sizes import STORAGE
from bridge.adapter import Quote
from bridge.errors import Invalid
from bridge.groups.choose import architecture, is_spot
from bridge.groups.prepare import LATE
from bridge.requests import pod_request
from bridge.workload import Workload

_GIB = 2**30
_BARE = "ends by itself only while podbridge runs"
"""Of a pod without the helper, whose hard stop nobody else keeps."""


def quote(workload: Workload, options: Options, region: str) -> Quote:
    """What its task would cost. Invalid: none can be that large."""
    wrapped = check.wraps(workload, options)
    size = choose.size(workload, wrapped=wrapped)
    disk = choose.disk(workload)
    if size is None or disk is None:
        raise Invalid(f"pod {workload.identity.name} fits no task of Fargate")
    machine = architecture(workload, options.architecture)
    table = prices.TABLE.known(region)
    hourly = table and table.hourly(size, machine, storage=disk, public_ip=options.public_ip)
    billed = {"cpu": size.millicores, "memory": size.memory * 2**20}
    if disk:
        billed["ephemeral-storage"] = disk * _GIB
    spot = is_spot(workload, options.capacity)
    words = _words(machine, disk, options, spot=spot) if hourly else _unknown(region)
    return Quote(
        account=options.execution_role.split(":")[4],
        region=region,
        requested=_sizes(workload),
        billed=billed,
        hourly=hourly or None,
        priced_on=table.read_on if table else None,
        source=table.source if table else "",
        least=prices.MINIMUM,
        # Billing begins with the images' download, and a task that never runs is given up.
        around=options.start_deadline + LATE,
        spot=spot,
        words=words if wrapped else f"{words}; {_BARE}",
    )


def _sizes(workload: Workload) -> dict[str, int]:
    asked = pod_request(workload).requests
    return {name: asked[name] for name in ("cpu", "memory", "ephemeral-storage") if name in asked}


def _words(machine: str, disk: int, options: Options, *, spot: bool) -> str:
    parts = ["Linux/ARM64" if machine == "arm64" else "Linux/x86"]
    if disk:
        parts.append(f"{disk - STORAGE[0]} GiB of storage beyond {STORAGE[0]}")
    if options.public_ip:
        parts.append("a public IPv4 address")
    if spot:
        parts.append("Spot, reckoned at the price on demand: it is up to 70 % less, and changes")
    return ", ".join(parts)


def _unknown(region: str) -> str:
    return f"no price is known for it in {region}: podbridge plan --refresh-prices reads them"
