"""`podbridge delete`: stop a run and remove what is left of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from bridge.errors import BridgeError

if TYPE_CHECKING:
    from bridge.local.runs import Run

_EXAMPLES = """
\b
Examples:
  podbridge delete nightly
  podbridge delete nightly weekly --grace-period 0
  podbridge delete --all
"""


@click.command(epilog=_EXAMPLES)
@click.argument("names", nargs=-1, metavar="RUN...")
@click.option(
    "--grace-period",
    type=click.IntRange(min=0),
    metavar="SECONDS",
    help="Between the stop signal and the kill. Default: each pod's own.",
)
@click.option("--force", is_flag=True, help="Kill at once: --grace-period 0.")
@click.option("--all", "every", is_flag=True, help="All runs.")
@click.option("--no-wait", is_flag=True, help="Do not wait until the backends have confirmed.")
def command(
    names: tuple[str, ...], grace_period: int | None, force: bool, every: bool, no_wait: bool
) -> int:
    """Stop runs and remove what is left of them; return when the backends confirm."""
    from bridge.cli.select import find_run
    from bridge.local.runs import Runs

    if bool(names) == every:
        raise click.UsageError("name the runs to delete, or give --all")
    runs = list(Runs()) if every else [find_run(name) for name in dict.fromkeys(names)]
    grace = 0.0 if force else None if grace_period is None else float(grace_period)
    if not runs:
        click.echo("no runs", err=True)
    return asyncio.run(_delete_all(runs, grace, wait=not no_wait))


async def _delete_all(runs: list[Run], grace: float | None, *, wait: bool) -> int:
    ends = await asyncio.gather(
        *(_delete(run, grace, wait=wait) for run in runs), return_exceptions=True
    )
    code = 0
    for run, problem in zip(runs, ends, strict=True):
        if isinstance(problem, BridgeError):
            words = f'run "{run.name}" is not deleted yet: {problem}; the order stands'
            click.echo(f"error: {words}", err=True)
            code = 3
        elif problem is not None:
            raise problem
    return code


async def _delete(run: Run, grace: float | None, *, wait: bool) -> None:
    from bridge.cli.wiring import delete_run
    from bridge.errors import Unavailable
    from bridge.local.control import ControlClient

    run.order_deletion()
    client = ControlClient(run.control)
    try:
        await client.delete(grace)
        if not wait:
            click.echo(f'run "{run.name}" is being deleted')
            return
        async for _ in client.changes():
            pass
    except Unavailable:
        pass
    # Whoever attended it has finished the deletion, or is gone; then it is ours to finish.
    while run.exists:
        if run.attend():
            try:
                await delete_run(run)
            finally:
                run.release()
            break
        await asyncio.sleep(0.05)
    run.sweep()
    click.echo(f'run "{run.name}" deleted')
