"""`podbridge wait`: until a run is over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from bridge.cli.select import complete_runs

if TYPE_CHECKING:
    from bridge.cli.select import RunState
    from bridge.local.runs import Run

_EXAMPLES = """
\b
Examples:
  podbridge wait words                   exits as the run does: 0 succeeded, 1 failed
  podbridge wait words --timeout 30m     124 if it is not over by then (it goes on)
  podbridge run -d -f job.yaml && podbridge wait job

Exit code 3: nobody attends the run, so that it cannot come to its end.
"""


@click.command(epilog=_EXAMPLES)
@click.argument("name", shell_complete=complete_runs)
@click.option("--timeout", metavar="DURATION", help='"30s", "1h30m". Default: as long as it takes.')
def command(name: str, timeout: str | None) -> int:
    """Wait until a run is over; exit as the run does."""
    from bridge.cli.select import find_run
    from bridge.errors import Invalid, Violation

    seconds: float | None = None
    if timeout is not None:
        from bridge.config import duration

        try:
            seconds = duration(timeout)
        except ValueError as error:
            raise Invalid(violations=[Violation("--timeout", str(error))]) from None
    run = find_run(name)
    try:
        state = asyncio.run(_wait(run, seconds))
    except TimeoutError:
        click.echo(f"run {run.name} is not over after {timeout}; it goes on", err=True)
        return 124
    return _answer(run, state)


async def _wait(run: Run, seconds: float | None) -> RunState:
    """How the run stands once it is over, or nobody attends it any more."""
    from bridge.cli.select import load
    from bridge.errors import Unavailable
    from bridge.local.control import ControlClient

    async with asyncio.timeout(seconds):
        if run.attendant is not None:
            try:
                async for _ in ControlClient(run.control).changes():
                    # Only the end counts, and the stream ends with the run.
                    continue
            except Unavailable:
                # It was about to end, or has only begun to listen: the look below tells.
                pass
        while True:
            (state,) = await load([run])
            if state.attendant is None or state.outcome.over or not run.folder.exists():
                return state
            await asyncio.sleep(0.1)


def _answer(run: Run, state: RunState) -> int:
    if not run.folder.exists():
        click.echo(f"run {run.name} was deleted", err=True)
        return 3
    if state.problem:
        click.echo(f"error: run {run.name}: {state.problem}", err=True)
        return 3
    if state.outcome.over and not run.deleting:
        said = "failed: " + ", ".join(state.outcome.failed) if state.outcome.failed else "succeeded"
        click.echo(f"run/{run.name} {said}", err=True)
        return int(state.outcome.code)
    doing = "being deleted" if run.deleting else "not over"
    click.echo(
        f"error: run {run.name} is {doing}, and nobody attends it: "
        f"podbridge attach {run.name} resumes it",
        err=True,
    )
    return 3
