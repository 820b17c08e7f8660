"""`podbridge get`: pods, jobs and events of runs, as kubectl shows them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from bridge.cli.output import format_option
from bridge.cli.select import complete_runs

if TYPE_CHECKING:
    from bridge.cli.select import Found, RunState
    from bridge.local.store import Change

_EXAMPLES = """
\b
Examples:
  podbridge get pods                       pods of all runs
  podbridge get po --run words -o wide     of one run, with address and backend
  podbridge get pods -l 'app in (a, b)' -w changes as they come, until the runs are over
  podbridge get job reduce -o yaml         one object, whole
  podbridge get events --run words         what happened

KIND is pods (pod, po), jobs (job) or events (event, ev); KIND/NAME works too.
"""


@dataclass(frozen=True, slots=True)
class _Query:
    kind: str
    name: str
    namespace: str | None
    matches: Callable[[Mapping[str, str]], bool] | None
    output: str | None
    several: bool
    """A column says which run it is."""
    spaces: bool
    """A column says which namespace it is."""

    def answer(self, states: Sequence[RunState]) -> list[Found]:
        from bridge.cli import select

        if not self.name:
            return select.objects(states, self.kind, namespace=self.namespace, matches=self.matches)
        if self.kind == "Event":
            found = select.objects(states, "Event", namespace=self.namespace)
            about = [one for one in found if one.object["involvedObject"]["name"] == self.name]
            if about:
                return about
        return [select.find(states, self.kind, self.name, namespace=self.namespace)]

    def table(self, found: Sequence[Found]) -> tuple[list[str], list[list[str]]]:
        from bridge.cli.columns import ROWS

        headers, rows = ROWS[self.kind](found, time.time(), wide=self.output == "wide")
        if self.spaces:
            headers = ["NAMESPACE", *headers]
            spaces = [one.object["metadata"].get("namespace", "default") for one in found]
            rows = [[space, *row] for space, row in zip(spaces, rows, strict=True)]
        if self.several:
            headers = ["RUN", *headers]
            rows = [[one.state.name, *row] for one, row in zip(found, rows, strict=True)]
        return headers, rows


@click.command(epilog=_EXAMPLES)
@click.argument("kind")
@click.argument("name", required=False, default="")
@click.option("--run", "run", metavar="RUN", shell_complete=complete_runs, help="Of this run only.")
@click.option("-n", "--namespace", metavar="NS", help="Of this namespace only.")
@click.option("-A", "--all-namespaces", is_flag=True, help="With a column for the namespace.")
@click.option("-l", "--selector", metavar="SELECTOR", help="a=b, a!=b, a in (b, c), a, !a")
@click.option("-w", "--watch", is_flag=True, help="Go on with every change until all is over.")
@format_option("json", "yaml", "wide", "name")
def command(
    *,
    kind: str,
    name: str,
    run: str | None,
    namespace: str | None,
    all_namespaces: bool,
    selector: str | None,
    watch: bool,
    output: str | None,
) -> None:
    """List pods, jobs or events of runs."""
    from bridge.cli import select
    from bridge.errors import Invalid

    kind, slash, rest = kind.partition("/")
    if slash and name:
        raise Invalid(f'found "{kind}/{rest}" and "{name}"; allowed: one name')
    name = name or rest
    if namespace is not None and all_namespaces:
        raise Invalid("found -n and -A; allowed: one of them")
    if name and selector:
        raise Invalid("found a name and -l; allowed: one of them")
    matches = select.selector(selector)
    word = select.kind_of(kind)
    runs = [select.find_run(run)] if run else select.all_runs()
    # One loop for both steps: a provider's client disturbs any loop but its own.
    with asyncio.Runner() as loop:
        states = loop.run(select.load(runs))
        spaces = {
            one["metadata"].get("namespace", "default")
            for state in states
            for one in (*state.pods.values(), *state.jobs.values())
        }
        query = _Query(
            word,
            name,
            namespace,
            matches,
            output,
            several=len(states) > 1 and not name,
            spaces=all_namespaces or (namespace is None and bool(spaces - {"default"})),
        )
        _show(query, states, watch=watch)
        if watch:
            loop.run(_watch(query, states))


def _show(query: _Query, states: Sequence[RunState], *, watch: bool) -> None:
    from bridge.cli.output import hint, print_objects, print_table
    from bridge.cli.select import exact

    found = query.answer(states)
    if query.output in ("json", "yaml", "name"):
        print_objects(exact(found), query.output, single=bool(query.name))
    elif found:
        print_table(*query.table(found))
    elif not watch:
        where = f" in {query.namespace} namespace" if query.namespace else ""
        hint(f"No resources found{where}." if states else "No runs; podbridge run starts one.")
    for one in states:
        if one.problem:
            hint(f"{one.name}: {one.problem}")
        elif one.resumable:
            hint(f"{one.name} is unattended: podbridge attach {one.name} resumes it")


async def _watch(query: _Query, states: Sequence[RunState]) -> None:
    """Prints a line for every change of what was asked for, until no run is attended any more."""
    lines = _Lines(query, query.answer(states) if states else [])
    attended = [one for one in states if one.attendant is not None]
    await asyncio.gather(*(_follow(one, lines) for one in attended))


async def _follow(state: RunState, lines: _Lines) -> None:
    from bridge.errors import Unavailable
    from bridge.local.control import ControlClient

    first = True
    try:
        async for change in ControlClient(state.run.control).changes():
            if change.type == "SYNCED":
                first = False
            elif state.apply(change):
                lines.change(state, change, quiet=first)
    except Unavailable:
        # It is over: nothing changes any more.
        return


class _Lines:
    """The lines of a watch: each only where it says something new, in columns that stay."""

    def __init__(self, query: _Query, found: Sequence[Found]) -> None:
        self._query = query
        self._last: dict[tuple[str, str], list[str]] = {}
        headers, rows = query.table(found)
        self._headers = headers
        self._widths = [
            max([len(one) for one in column]) + 3 for column in zip(headers, *rows, strict=True)
        ]
        self._age = {headers.index(one) for one in ("AGE", "LAST SEEN") if one in headers}
        self._begun = bool(found)
        for one, row in zip(found, rows, strict=True):
            self._last[one.state.name, one.name] = self._lasting(row)

    def _lasting(self, row: list[str]) -> list[str]:
        return [cell for index, cell in enumerate(row) if index not in self._age]

    def change(self, state: RunState, change: Change, *, quiet: bool) -> None:
        """Prints the object of a change if it is one that was asked for."""
        from bridge.cli.output import name_of, print_value
        from bridge.cli.select import Found, exact, objects

        one = Found(state, change.object)
        query = self._query
        if change.kind != query.kind or (query.name and one.name != query.name):
            return
        if change.type != "DELETED" and not any(
            each.object is change.object
            for each in objects(
                [state], query.kind, namespace=query.namespace, matches=query.matches
            )
        ):
            return
        _, rows = query.table([one])
        key, lasting = (state.name, one.name), self._lasting(rows[0])
        if self._last.get(key) == lasting and query.output in (None, "wide", "name"):
            return
        if quiet and key in self._last:
            return
        self._last[key] = lasting
        if query.output == "name":
            print(name_of(exact([one])[0]), flush=True)
        elif query.output in ("json", "yaml"):
            print_value(exact([one])[0], query.output)
        else:
            self._print(rows[0])

    def _print(self, row: list[str]) -> None:
        if not self._begun:
            self._begun = True
            self._print(self._headers)
        self._widths = [max(a, len(b) + 3) for a, b in zip(self._widths, row, strict=True)]
        cells = [cell.ljust(width) for cell, width in zip(row, self._widths, strict=True)]
        print("".join(cells).rstrip(), flush=True)
