"""`podbridge ps`: the runs of this user."""

from __future__ import annotations

import asyncio
import time

import click

from bridge.cli.output import format_option

_EXAMPLES = """
\b
Examples:
  podbridge ps                        all runs
  podbridge ps -o wide                with who attends them, and what failed
  podbridge ps -o name                names only, for scripts
  podbridge ps -l app=words           runs of objects with this label

\b
STATUS: Running, Succeeded, Failed, Deleting;
  Unattended   not over, and no process sees to it: podbridge attach NAME
  Unknown      whoever knows does not answer: podbridge ps -o wide says why
"""


@click.command(epilog=_EXAMPLES)
@click.option("-l", "--selector", metavar="SELECTOR", help="Runs of objects with these labels.")
@format_option("json", "yaml", "wide", "name")
def command(selector: str | None, output: str | None) -> None:
    """List runs."""
    from bridge.cli import columns, select
    from bridge.cli.output import hint, print_objects, print_table

    matches = select.selector(selector)
    states = asyncio.run(select.load(select.all_runs()))
    if matches is not None:
        states = [
            one
            for one in states
            if any(
                matches(each["metadata"].get("labels") or {})
                for each in (*one.jobs.values(), *one.pods.values())
            )
        ]
    if output in ("json", "yaml", "name"):
        print_objects([columns.run_object(one) for one in states], output, single=False)
    elif states:
        print_table(*columns.run_rows(states, time.time(), wide=output == "wide"))
    else:
        which = "No runs match" if matches is not None else "No runs"
        hint(f"{which}; podbridge run starts one.")
    for one in states:
        if one.resumable:
            hint(f"{one.name} is unattended: podbridge attach {one.name} resumes it")
        elif one.problem:
            hint(f"{one.name}: {one.problem}")
