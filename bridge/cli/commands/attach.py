"""`podbridge attach`: come back to a run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bridge.cli.attend import Manner
    from bridge.cli.view import View
    from bridge.cli.wiring import Target
    from bridge.local.runs import Run

_EXAMPLES = """
\b
Examples:
  podbridge attach nightly
  podbridge attach nightly --logs failed --junit report.xml

Ctrl-C stops watching, not the run. A run that nobody attends (after a crash or a reboot) goes on
from where it was: nothing runs twice.
"""


@click.command(epilog=_EXAMPLES)
@click.argument("name", metavar="RUN")
@click.option("--logs", type=click.Choice(["all", "failed", "none"]), default="all")
@click.option("--timeout", metavar="TIME", help="Stop watching after this time: exit 124.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@click.option("-q", "--quiet", is_flag=True, help="Print only the containers' output.")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write a report.")
def command(
    name: str, *, logs: Any, timeout: str | None, output: Any, quiet: bool, junit: Path | None
) -> int:
    """Come back to a run without losing a line; exit as the run does."""
    from bridge.cli.asked import seconds_of
    from bridge.cli.attend import Manner
    from bridge.cli.launch import start_in_background
    from bridge.cli.select import find_run
    from bridge.cli.view import view_of
    from bridge.cli.watch import watch
    from bridge.cli.wiring import target_of
    from bridge.errors import Unavailable

    run = find_run(name)
    if junit is not None:
        from bridge.cli.view.junit import check_writable

        check_writable(junit)
    manner = Manner(logs, seconds_of(timeout), junit, leaves=True)
    target = target_of(run)
    if run.attendant is None and target.simulated:
        words = "its simulated cloud ended with the command that began it"
        raise Unavailable(f"run {name}: {words}; podbridge delete {name} forgets it")
    if run.attendant is None:
        if run.deleting or _is_over(run):
            view = view_of(run, output, quiet=quiet)
            try:
                if run.attend():
                    return asyncio.run(_show_again(run, target, view, manner))
            finally:
                view.close()
        start_in_background(run, target, Manner())
    view = view_of(run, output, quiet=quiet)
    try:
        return asyncio.run(watch(run, view, manner))
    except Unavailable:
        # Whoever attended it may have finished it before it could be asked. Nothing forks any more:
        # gRPC has threads by now.
        if run.attendant is None and _over(run) and run.attend():
            return asyncio.run(_show_again(run, target, view, manner))
        raise
    finally:
        view.close()


async def _show_again(run: Run, target: Target, view: View, manner: Manner) -> int:
    """What is over needs its provider for the logs only: nobody waits for one that is not there."""
    from bridge.cli.attend import attend
    from bridge.cli.wiring import reachable

    if target.provider is not None:
        await reachable(target)
    return await attend(run, target, view, manner)


def _is_over(run: Run) -> bool:
    from bridge.cli.background import ask_apart

    answer = ask_apart(lambda: _over(run))
    # What went wrong there goes wrong here too, and is told.
    return _over(run) if answer is None else answer


def _over(run: Run) -> bool:
    from bridge.cli.select import load

    (state,) = asyncio.run(load([run]))
    return state.outcome.over and not state.problem
