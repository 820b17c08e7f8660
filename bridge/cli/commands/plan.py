"""`podbridge plan`: where manifests would run and the most they can cost. Nothing is started."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from bridge.cli.output import format_option, simulate_option
from bridge.errors import Invalid, Unsupported, Violation

if TYPE_CHECKING:
    from bridge.cli.bill import Bill, Item, Place
    from bridge.config import BackendConfig, Config
    from bridge.local.manifests import Objects

_EXAMPLES = """
\b
Examples:
  podbridge plan -f job.yaml                       on the configured backends
  podbridge plan -f manifests/ --on fargate -o json
  podbridge plan -f job.yaml --on fargate --simulate
  podbridge plan -f job.yaml --refresh-prices      by today's prices, which are then kept

The first row of an object says where it would run; further ones, where it would go if there is no
room. PODS is the most that there can be with every retry, PRICE/HOUR that of one pod, AT MOST what
all of them can cost until the last deadline. Exit code 2 where something can run nowhere.
"""


@click.command(epilog=_EXAMPLES)
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    required=True,
    metavar="FILE|DIR|-",
    help="Manifests: Pod, Job, CronJob, with ConfigMaps and Secrets beside them.",
)
@click.option("--on", metavar="BACKEND", help="Only these backends: names or types, with commas.")
@simulate_option
@click.option(
    "--refresh-prices", is_flag=True, help="Read the cloud's price list first, and keep it."
)
@format_option("json", "yaml")
@click.pass_obj
def command(
    obj: dict[str, str | None],
    *,
    files: tuple[str, ...],
    on: str | None,
    simulate: bool,
    refresh_prices: bool,
    output: str | None,
) -> int:
    """Where these manifests would run, and the most they can cost."""
    from bridge.cli.launch import longest_run
    from bridge.cli.simulation import simulation
    from bridge.cli.wiring import load_config
    from bridge.local.manifests import load

    objects = load(files, sys.stdin.buffer if "-" in files else None)
    config = load_config(obj["config"])
    max_run = longest_run(objects, config.max_run)
    if simulate:
        if refresh_prices:
            words = "not with --simulate: a simulated cloud has no price list"
            raise Invalid(violations=[Violation("--refresh-prices", words)])
        with simulation(config, on) as simulated:
            return _plan(objects, simulated, max_run, output)
    backends = _backends(config, on)
    if refresh_prices:
        asyncio.run(_refresh(backends))
    return _plan(objects, backends, max_run, output)


def _backends(config: Config, on: str | None) -> Sequence[BackendConfig]:
    """Those that `run` would choose among: named, configured, or what this machine has."""
    from bridge.cli.wiring import choose_backends, present

    if on is None and not config.backends:
        on = "engine" if present("engine") else "process"
    return choose_backends(config, on)


async def _refresh(backends: Sequence[BackendConfig]) -> None:
    from bridge.adapter import Priced
    from bridge.provider.registry import make

    for one in backends:
        adapter = make(one)
        if not isinstance(adapter, Priced):
            continue
        await adapter.open()
        try:
            click.echo(f"{one.name}: {await adapter.refresh_prices()}", err=True)
        finally:
            await adapter.close()


def _plan(
    objects: Objects, backends: Sequence[BackendConfig], max_run: float, output: str | None
) -> int:
    from bridge.cli.assess import assess
    from bridge.cli.bill import as_json, bill, eligible_names
    from bridge.cli.output import print_value

    verdicts = asyncio.run(assess(objects, backends))
    made = bill(verdicts, max_run, eligible_names(verdicts, backends))
    if output is not None:
        print_value(as_json(made), output)
    else:
        _print(made)
    if nowhere := [one.name for one in made.items if not one.places]:
        raise Unsupported(f"no backend that was asked can run {', '.join(nowhere)}")
    return 0


def _print(bill: Bill) -> None:
    from bridge.cli.bill import account_line, total
    from bridge.cli.output import plain, print_table

    headers = ["OBJECT", "PODS", "BACKEND", "REQUESTED", "BILLED", "PRICE/HOUR", "AT MOST"]
    rows = [_row(item, place) for item in bill.items for place in item.places]
    if rows:
        print_table(headers, rows)
    accounts = [
        account_line(place.verdict, time.time())
        for item in bill.items
        for place in item.places
        if place.verdict.bills
    ]
    for line in dict.fromkeys(accounts):
        print(plain(f"\n{line}"))
    for item in bill.items:
        for refusal in item.refusals:
            print(plain(f"\n{refusal.backend} cannot run {item.name} ({item.loaded.source}):"))
            for each in refusal.violations:
                print(plain(f"  {Violation(each.field, each.message)}"))
    if rows:
        print(plain(f"\n{total(bill) if bill.bills else 'free: none of these backends bills'}"))


def _row(item: Item, place: Place) -> list[str]:
    from bridge.cli.bill import size_words
    from bridge.cost.money import price

    verdict = place.verdict
    first = item.places[0] is place
    backend = f"{verdict.backend} (simulated)" if verdict.simulated else verdict.backend
    quote = verdict.quote
    sizes = ["-", "-", "-"]
    if quote is not None:
        hourly = "unknown" if quote.hourly is None else price(quote.hourly)
        sizes = [size_words(quote.requested) or "-", size_words(quote.billed), hourly]
    who = [item.name, item.pods] if first else ["", ""]
    return [*who, backend if first else f"else {backend}", *sizes, place.words]
