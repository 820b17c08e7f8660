"""`podbridge describe`: everything about a run, a job or a pod."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from bridge.cli.select import complete_runs
from bridge.errors import Invalid, NotFound

if TYPE_CHECKING:
    from bridge.cli.select import Found, RunState

_EXAMPLES = """
\b
Examples:
  podbridge describe words                    a run: its jobs and pods, and why they wait
  podbridge describe words words-3-x7fkp      a pod of it
  podbridge describe words job/reduce         a job of it
  podbridge describe pod words-3-x7fkp        a pod, whichever run it is of
  podbridge describe job reduce --run words
"""


@click.command(epilog=_EXAMPLES)
@click.argument(
    "words",
    nargs=-1,
    required=True,
    metavar="RUN [POD|job/NAME] | KIND NAME",
    shell_complete=complete_runs,
)
@click.option("--run", "run", metavar="RUN", shell_complete=complete_runs, help="Of this run only.")
@click.option("-n", "--namespace", metavar="NS", help="Of this namespace only.")
def command(words: tuple[str, ...], run: str | None, namespace: str | None) -> None:
    """Everything about one run, job or pod, and why it waits."""
    from bridge.cli import describing, select

    run_name, kind, name = _split(words, run)
    runs = [select.find_run(run_name)] if run_name else select.all_runs()
    states = asyncio.run(select.load(runs))
    now = time.time()
    if not name:
        print(describing.describe_run(states[0], now))
        return
    found = _find(states, kind, name, namespace)
    if "template" in found.object["spec"]:
        print(describing.describe_job(found, now))
    else:
        print(describing.describe_pod(found, now))


def _split(words: Sequence[str], run: str | None) -> tuple[str, str, str]:
    """(run, kind, name) of what was typed; an empty kind: a pod, or a job of that name."""
    from bridge.cli.select import KINDS, kind_of
    from bridge.local.runs import Runs

    if len(words) > (2 if run is None else 3):
        raise click.UsageError(f"found {len(words)} words; allowed: a run, and a pod or job of it")
    first, *rest = words
    if len(words) == 3:
        first, rest = words[1], [words[2]]
    kind, slash, name = first.partition("/")
    if slash and kind not in ("run", "runs"):
        if rest:
            raise Invalid(f'found "{first}" and "{rest[0]}"; allowed: one name')
        return run or "", kind_of(kind), name
    first = name if slash else first
    if first in ("run", "runs") and rest:
        return rest[0], "", ""
    # A run may be named "job": what is there counts before what a word could mean.
    if rest and first in KINDS and (run is not None or Runs().find(first) is None):
        return run or "", kind_of(first), rest[0]
    if run is not None:
        return run, "", first
    if not rest:
        if not slash and Runs().find(first) is None:
            return _no_run(first)
        return first, "", ""
    kind, slash, name = rest[0].partition("/")
    return (first, kind_of(kind), name) if slash else (first, "", rest[0])


def _no_run(name: str) -> tuple[str, str, str]:
    """A single word that is no run: a pod or job of any run, else the nearest run."""
    from bridge.cli import select

    states = asyncio.run(select.load(select.all_runs()))
    for kind in ("Pod", "Job"):
        if any(one.name == name for one in select.objects(states, kind)):
            return "", kind, name
    select.find_run(name)
    raise NotFound(f'no run named "{name}"')


def _find(states: Sequence[RunState], kind: str, name: str, namespace: str | None) -> Found:
    from bridge.cli import select

    if kind == "Event":
        raise Invalid("events cannot be described; podbridge get events lists them")
    if not kind:
        jobs = select.objects(states, "Job", namespace=namespace)
        pods = select.objects(states, "Pod", namespace=namespace)
        is_job = any(one.name == name for one in jobs)
        kind = "Job" if is_job and not any(one.name == name for one in pods) else "Pod"
    return select.find(states, kind, name, namespace=namespace)
