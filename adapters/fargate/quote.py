"""What a pod costs as a task of Fargate, before it is one. Pure but for the table of prices."""

from __future__ import annotations

from adapters.fargate import check, choose, prices
from adapters.fargate.options import Options
from adapters.fargate.sizes import STORAGE
from bridge.adapter import Quote
from bridge.errors import Invalid
from bridge.groups import quote as groups
from bridge.groups.choose import architecture, is_spot
from bridge.workload import Workload

_GIB = 2**30


def quote(workload: Workload, options: Options, region: str) -> Quote:
    """What its task would cost. Invalid: none can be that large."""
    wrapped = check.wraps(workload, options)
    size = choose.size(workload, wrapped=wrapped)
    disk = choose.disk(workload)
    if size is None or disk is None:
        raise Invalid(f"pod {workload.identity.name} fits no task of Fargate")
    machine = architecture(workload, options.architecture)
    table = prices.TABLE.known(region)
    public_ip = options.public_ip
    hourly = table.hourly(size, machine, storage=disk, public_ip=public_ip) if table else None
    billed = {"cpu": size.millicores, "memory": size.memory * 2**20}
    if disk:
        billed["ephemeral-storage"] = disk * _GIB
    spot = is_spot(workload, options.capacity)
    return groups.quote(
        workload,
        options,
        account=options.execution_role.split(":")[4],
        region=region,
        billed=billed,
        prices=table,
        hourly=hourly,
        least=prices.MINIMUM,
        spot=spot,
        wrapped=wrapped,
        words=_words(machine, disk, options, spot=spot),
    )


def _words(machine: str, disk: int, options: Options, *, spot: bool) -> str:
    parts = ["Linux/ARM64" if machine == "arm64" else "Linux/x86"]
    if disk:
        parts.append(f"{disk - STORAGE[0]} GiB of storage beyond {STORAGE[0]}")
    if options.public_ip:
        parts.append("a public IPv4 address")
    if spot:
        parts.append("Spot, reckoned at the price on demand: it is up to 70 % less, and changes")
    return ", ".join(parts)
