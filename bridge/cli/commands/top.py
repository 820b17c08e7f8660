"""`podbridge top`: what pods use of CPU and memory."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from bridge.cli.output import format_option, plain
from bridge.cli.select import complete_runs
from bridge.errors import BridgeError

if TYPE_CHECKING:
    from bridge.cli.onlooker import Onlooker
    from bridge.cli.select import Found, RunState
    from bridge.cli.usage import Meter

_EXAMPLES = """
\b
Examples:
  podbridge top                          every pod that is not over; on a terminal live
  podbridge top words --sort-by cpu      one run, the busiest first
  podbridge top words --containers       each container on its own
  podbridge top -l app=words -o json     once, as Kubernetes' metrics API has it
"""
_SAMPLE = 1.0
"""Seconds between two looks: what is printed is the mean over them."""
_REFRESH = 2.0
"""Seconds between two pictures of a live view."""
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""A terminal's other screen without a cursor, and back."""


@click.command(epilog=_EXAMPLES)
@click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=complete_runs)
@click.option("--containers", is_flag=True, help="A line for each container.")
@click.option(
    "--sort-by", type=click.Choice(["cpu", "memory"]), metavar="cpu|memory", help="Largest first."
)
@click.option("--no-headers", is_flag=True, help="Without the line of headers.")
@click.option("-l", "--selector", metavar="SELECTOR", help="Pods with these labels.")
@click.option("-n", "--namespace", metavar="NS", help="Of this namespace only.")
@format_option("json")
def command(
    *,
    runs: tuple[str, ...],
    containers: bool,
    sort_by: str | None,
    no_headers: bool,
    selector: str | None,
    namespace: str | None,
    output: str | None,
) -> int:
    """Show what pods use of CPU and memory: live on a terminal, once elsewhere."""
    from bridge.cli import select
    from bridge.cli.interruption import until_interrupted

    for name in runs:
        select.find_run(name)
    matches = select.selector(selector)
    view = _View(runs, containers, sort_by, not no_headers, namespace, matches, output)
    live = output is None and sys.stdout.isatty()
    return asyncio.run(until_interrupted(view.live() if live else view.once()))


@dataclass(slots=True)
class _View:
    runs: Sequence[str]
    containers: bool
    sort_by: str | None
    headers: bool
    namespace: str | None
    matches: Callable[[Mapping[str, str]], bool] | None
    output: str | None
    meter: Meter = field(init=False)
    pods: Sequence[Found] = ()
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        from bridge.cli.usage import Meter

        self.meter = Meter()

    async def once(self) -> int:
        """Prints what two looks tell."""
        async with _Providers() as providers:
            await self._look(providers)
            if self.pods:
                await asyncio.sleep(_SAMPLE)
                await self._look(providers)
        if self.output:
            from bridge.cli.usage import metrics_of

            print(json.dumps(metrics_of(self.pods, self.meter), indent=4))
        elif self.pods:
            print("\n".join(self._table()))
        else:
            print("No resources found: no pod is running.", file=sys.stderr)
        for note in self.notes:
            print(note, file=sys.stderr)
        return 0

    async def live(self) -> int:
        """A picture each moment, until a signal ends it."""
        import shutil

        out = sys.stdout
        async with _Providers() as providers:
            await self._look(providers)
            await asyncio.sleep(_SAMPLE / 2)
            out.write(_ENTER)
            try:
                while True:
                    await self._look(providers)
                    size = shutil.get_terminal_size()
                    lines = [*self._table(), *self.notes] if self.pods else ["No pod is running."]
                    # No line may pass the last one, or the picture scrolls.
                    shown = [_cut(line, size.columns) for line in lines[: size.lines - 1]]
                    out.write("\x1b[H" + "".join(f"{one}\x1b[K\n" for one in shown) + "\x1b[J")
                    out.flush()
                    await asyncio.sleep(_REFRESH)
            finally:
                out.write(_LEAVE)
                out.flush()

    def _table(self) -> list[str]:
        from bridge.cli import usage
        from bridge.cli.output import table

        lines = usage.lines_of(
            self.pods, self.meter, containers=self.containers, sort_by=self.sort_by
        )
        several = len({one.state.name for one in self.pods}) > 1
        headers, rows = usage.rows(lines, time.time(), containers=self.containers, runs=several)
        return table(headers, rows)[0 if self.headers else 1 :]

    async def _look(self, providers: _Providers) -> None:
        from bridge.cli import select
        from bridge.local.outcome import pod_over

        runs = [select.find_run(one) for one in self.runs] if self.runs else select.all_runs()
        states = await select.load(runs)
        found = select.objects(states, "Pod", namespace=self.namespace, matches=self.matches)
        self.pods = [one for one in found if not pod_over(one.object)]
        self.meter.keep(one.object["metadata"]["uid"] for one in self.pods)
        notes = [f"{one.name}: {one.problem}" for one in states if one.problem]
        wanted = {one.state.name: one.state for one in self.pods}
        answers = await asyncio.gather(
            *(self._measure(providers, state) for state in wanted.values())
        )
        notes += [note for each in answers for note in each]
        # One line each: the live view counts them.
        self.notes = list(dict.fromkeys(" ".join(plain(note).split()) for note in notes))

    async def _measure(self, providers: _Providers, state: RunState) -> list[str]:
        """Takes one run's usage in; what to say of the pods whose usage cannot be known."""
        from bridge.cli.select import backend_of
        from bridge.cli.targets import lacking, offer_of
        from bridge.local.session import NODE
        from bridge.rpc.v1 import provider_pb2 as pb

        mine = [one.object for one in self.pods if one.state is state]
        try:
            provider = await providers.of(state)
            offer = await offer_of(provider, state)
            without = "tells no usage of its pods"
            said = {lacking(offer, backend_of(state, pod), "stats", without) for pod in mine}
            if "" in said:
                uids = [pod["metadata"]["uid"] for pod in mine]
                request = pb.GetStatsRequest(cluster=state.run.wanted.uid, node=NODE, uids=uids)
                self.meter.take(await provider.get_stats(request))
        except BridgeError as error:
            return [f"{state.name}: {error.message}"]
        return sorted(said - {""})


class _Providers:
    """The runs' providers, each opened once for all runs that share it and kept open."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._open: dict[str, Onlooker] = {}
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> _Providers:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def of(self, state: RunState) -> Onlooker:
        """The run's. Unavailable."""
        from bridge.cli.targets import reached

        key = json.dumps(state.run.wanted.options, sort_keys=True)
        async with self._opening:
            if key not in self._open:
                self._open[key] = await self._stack.enter_async_context(reached(state))
            return self._open[key]


def _cut(line: str, width: int) -> str:
    """A line that fits; colours count for nothing."""
    if len(click.unstyle(line)) <= width:
        return line
    return click.unstyle(line)[:width]
