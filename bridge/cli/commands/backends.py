"""`podbridge backends`: where pods can run, and what each place can do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.output import format_option, simulate_option
from bridge.errors import BridgeError, Invalid, Violation

if TYPE_CHECKING:
    from bridge.cli.testing import Canary
    from bridge.config import BackendConfig, Config

OPENING = 30.0
"""Seconds that a backend may take to say what it has."""

_EXAMPLES = """
\b
Examples:
  podbridge backends                             all of them, opened and listed; nothing changes
  podbridge backends -o wide                     with what makes each pod different there
  podbridge backends process --capabilities      how well it does each field of a pod
  podbridge backends process --capabilities -o json
  podbridge backends --verify                    permissions, IDs, quotas; and what mends them
  podbridge backends fargate --canary            one pod that exits 7, for a fraction of a cent
  podbridge backends fargate --verify --canary   the canary only where nothing is in its way
  podbridge backends fargate --canary --simulate

Types that need no configuration are there by themselves; the others are configured:
podbridge config schema says how. Exit code of --verify: 3 where pods cannot run; of --canary: 1
where something of it went wrong, 3 where it could not be sent.
"""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One backend, looked at. `pods`: those that have not ended; None: not known."""

    name: str
    type: str
    ready: bool
    message: str = ""
    configured: bool = False
    simulated: bool = False
    pods: int | None = None
    limits: tuple[tuple[str, int], ...] = ()
    abilities: tuple[str, ...] = ()

    def limit(self, name: str) -> str:
        """A limit as people write it; a dash where there is none."""
        from bridge import quantity

        found = dict(self.limits).get(name)
        if found is None:
            return "-"
        if name == "cpu":
            return quantity.format_cpu(found)
        return _size(found) if name == "memory" else str(found)


@click.command(epilog=_EXAMPLES)
@click.argument("name", required=False)
@click.option("--capabilities", is_flag=True, help="How well NAME does each field of a pod.")
@click.option("--verify", is_flag=True, help="What in the account would stand in pods' way.")
@click.option("--canary", is_flag=True, help="Run one pod that exits 7: its code, log, clean-up.")
@click.option("--image", metavar="IMAGE", help="For --canary: an image with /bin/sh.")
@click.option("--yes", is_flag=True, help="For --canary: send it whatever it can cost.")
@simulate_option
@format_option("json", "yaml", "wide", "name")
@click.pass_obj
def command(
    obj: dict[str, str | None],
    *,
    name: str | None,
    capabilities: bool,
    verify: bool,
    canary: bool,
    image: str | None,
    yes: bool,
    simulate: bool,
    output: str | None,
) -> int:
    """List the backends and what they can do."""
    from bridge.cli.simulation import simulation
    from bridge.cli.spending import Limits
    from bridge.cli.testing import Canary
    from bridge.cli.wiring import bare_backends, choose_backends, load_config

    if not canary and (image or yes):
        flag = "--image" if image else "--yes"
        raise click.UsageError(f"{flag} goes with --canary")
    config = load_config(obj["config"])
    if verify or canary:
        limits = Limits(None, config.confirm_above, yes=yes)
        asked = Canary(image, limits, config.max_run) if canary else None
        if simulate:
            with simulation(config, name) as simulated:
                return _test(simulated, asked, output, first=verify)
        return _test(_named(config, name), asked, output, first=verify)
    if capabilities:
        if name is None:
            raise Invalid(violations=[Violation("--capabilities", "needs a backend's name")])
        (backend,) = choose_backends(config, name)
        _print_capabilities(backend, output)
        return 0
    if simulate:
        with simulation(config, name) as simulated:
            seen = asyncio.run(_look(simulated, config))
    elif name is not None:
        seen = asyncio.run(_look(choose_backends(config, name), config))
    else:
        backends = (*config.backends, *bare_backends(config))
        seen = [*asyncio.run(_look(backends, config)), *_unconfigured(backends)]
    _print(seen, output, single=name is not None)
    return 0


def _named(config: Config, name: str | None) -> Sequence[BackendConfig]:
    """The named ones, or all that are configured."""
    from bridge.cli.wiring import choose_backends

    if name is None and not config.backends:
        words = "required with --verify and --canary, as no backend is configured"
        raise Invalid(violations=[Violation("NAME", words)])
    return choose_backends(config, name)


def _test(
    backends: Sequence[BackendConfig], canary: Canary | None, output: str | None, *, first: bool
) -> int:
    """`first`: verified before any canary is sent."""
    from bridge.cli.testing import (
        send_canaries,
        tell_canaries,
        tell_verified,
        verify,
        verify_and_send,
    )

    if canary is not None:
        if first:
            return verify_and_send(backends, canary, output)
        return tell_canaries(send_canaries(backends, canary, output), output)
    return tell_verified(asyncio.run(verify(backends)), output)


async def _look(backends: Sequence[BackendConfig], config: Config) -> list[_Seen]:
    return list(await asyncio.gather(*(_look_at(one, config) for one in backends)))


async def _look_at(backend: BackendConfig, config: Config) -> _Seen:
    """Opens and lists a backend; nothing is changed."""
    from bridge.adapter import abilities
    from bridge.provider.registry import make

    adapter = make(backend)
    message, pods = "", None
    try:
        async with asyncio.timeout(OPENING):
            await adapter.open()
            try:
                pods = sum(not one.ended for one in await adapter.list())
            finally:
                await adapter.close()
    except TimeoutError:
        message = f"no answer within {OPENING:g} seconds"
    except BridgeError as error:
        message = error.message
    said = ""
    if adapter.simulated:
        said = "simulated: nothing really runs"
    elif backend.simulated:
        said = "simulated: nothing is billed"
    return _Seen(
        backend.name,
        backend.type,
        ready=pods is not None,
        message="; ".join(filter(None, (said, message))),
        configured=backend in config.backends,
        simulated=adapter.simulated or backend.simulated,
        pods=pods,
        limits=tuple(backend.limits.items()),
        abilities=tuple(abilities(adapter)),
    )


def _unconfigured(backends: Sequence[BackendConfig]) -> list[_Seen]:
    """Types that cannot be used as they are: with what each lacks."""
    from bridge.cli.wiring import how_to_configure
    from bridge.provider.registry import module, types

    out = []
    for one in types():
        if any(backend.type == one for backend in backends):
            continue
        try:
            said = f"not configured: {how_to_configure(module(one))}"
        except BridgeError as error:
            said = error.message
        out.append(_Seen(one, one, ready=False, message=said))
    return out


def _print(seen: Sequence[_Seen], output: str | None, *, single: bool) -> None:
    from bridge.cli.output import as_list, print_table, print_value

    if output == "name":
        for one in seen:
            print(f"backend/{one.name}")
        return
    if output in ("json", "yaml"):
        items = [_plain(one) for one in seen]
        print_value(items[0] if single and len(items) == 1 else as_list(items), output)
        return
    headers = ["NAME", "TYPE", "READY", "PODS", "CPU", "MEMORY", "ABILITIES", "MESSAGE"]
    rows = []
    for one in seen:
        pods = f"{one.pods}/{one.limit('pods')}" if one.pods is not None else "-"
        row = [one.name, one.type, str(one.ready), pods, one.limit("cpu"), one.limit("memory")]
        row += [",".join(one.abilities) or "-", one.message]
        if output == "wide":
            row.insert(3, "config" if one.configured else "built in")
        rows.append(row)
    if output == "wide":
        headers.insert(3, "ORIGIN")
    print_table(headers, rows)


def _plain(one: _Seen) -> dict[str, Any]:
    return {
        "apiVersion": "podbridge.io/v1",
        "kind": "Backend",
        "metadata": {"name": one.name},
        "spec": {"type": one.type, "configured": one.configured, "simulated": one.simulated},
        "status": {
            "ready": one.ready,
            "message": one.message,
            "abilities": list(one.abilities),
            "capacity": {name: one.limit(name) for name, _ in one.limits},
            **({"pods": one.pods} if one.pods is not None else {}),
        },
    }


def _size(amount: int) -> str:
    for unit, size in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if amount % size == 0:
            return f"{amount // size}{unit}"
    return str(amount)


def _print_capabilities(backend: BackendConfig, output: str | None) -> None:
    from bridge.cli.output import print_table, print_value
    from bridge.provider.capabilities import merged
    from bridge.provider.registry import make

    table = sorted(merged(make(backend)).items())
    if output in ("json", "yaml"):
        fields = [{"field": f, "level": one.level.value, "words": one.words} for f, one in table]
        print_value({"backend": backend.name, "type": backend.type, "fields": fields}, output)
        return
    print_table(
        ["FIELD", "CLASS", "WORDS"], [[field, one.level.value, one.words] for field, one in table]
    )
