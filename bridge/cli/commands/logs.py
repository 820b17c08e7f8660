"""`podbridge logs`: what containers wrote, as kubectl prints it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from bridge.cli.select import complete_runs
from bridge.errors import BridgeError, Invalid, NotFound, Violation
from bridge.local.outcome import job_over

if TYPE_CHECKING:
    from bridge.cli.reading import Live, Part, Reader, Writer
    from bridge.cli.select import Found, RunState
    from bridge.pods import Manifest

_EXAMPLES = """
\b
Examples:
  podbridge logs hello                     a run of one pod: its log, to the byte
  podbridge logs words                     several pods: each line says whose it is
  podbridge logs words words-3-x7fkp       one pod of a run
  podbridge logs words job/reduce -f       a Job's pods, until they are over
  podbridge logs web -c proxy -p --tail 20 the last lines of a container's run before this one
  podbridge logs -l app=words --since 5m   whatever run the pods belong to
"""


@click.command(epilog=_EXAMPLES)
@click.argument("words", nargs=-1, metavar="[RUN] [POD | job/NAME]", shell_complete=complete_runs)
@click.option("-c", "--container", default="", metavar="C", help="This container.")
@click.option("-f", "--follow", is_flag=True, help="Go on to the very end, restarts included.")
@click.option("-p", "--previous", is_flag=True, help="The run of the container before this one.")
@click.option("--tail", type=int, metavar="N", help="The last N lines of each (-1: all).")
@click.option("--since", metavar="DURATION", help='Lines of the last "5m", "1h".')
@click.option("--since-time", metavar="TIME", help="Lines since a time (RFC 3339).")
@click.option("--limit-bytes", type=click.IntRange(min=1), metavar="N", help="At most N bytes.")
@click.option("--timestamps", is_flag=True, help="The time before each line.")
@click.option("--all-containers", is_flag=True, help="Of every container, init ones included.")
@click.option("--prefix", is_flag=True, help="Whose it is before each line.")
@click.option("-l", "--selector", metavar="SELECTOR", help="Pods with these labels.")
@click.option("-n", "--namespace", metavar="NS", help="Of this namespace only.")
@click.option("--run", "run", metavar="RUN", shell_complete=complete_runs, help="Of this run only.")
def command(
    *,
    words: tuple[str, ...],
    container: str,
    follow: bool,
    previous: bool,
    tail: int | None,
    since: str | None,
    since_time: str | None,
    limit_bytes: int | None,
    timestamps: bool,
    all_containers: bool,
    prefix: bool,
    selector: str | None,
    namespace: str | None,
    run: str | None,
) -> int:
    """Print a pod's log, or those of all pods of a run."""
    from bridge.cli.reading import Part, Writer

    if container and all_containers:
        raise Invalid("found -c and --all-containers; allowed: one of them")
    part = Part(
        tail=_tail(tail),
        since=_since(since, since_time),
        timestamps=timestamps,
        limit_bytes=limit_bytes,
        previous=previous,
    )
    # One loop for both steps: a provider's client disturbs any loop but its own.
    with asyncio.Runner() as loop:
        chosen = _choose(loop, [*([run] if run else []), *words], selector, namespace)
        many = len(chosen.pods) > 1 or (follow and not chosen.done())
        task = _Task(chosen, container, all_containers, part, Writer(prefix or many), many)
        return loop.run(task.run(follow=follow))


def _tail(tail: int | None) -> int | None:
    if tail is not None and tail < -1:
        raise Invalid(violations=[Violation("--tail", f"found {tail}; allowed: -1 or more")])
    return None if tail == -1 else tail


def _since(since: str | None, since_time: str | None) -> float | None:
    if since is not None and since_time is not None:
        raise Invalid("found --since and --since-time; allowed: one of them")
    if since is not None:
        from bridge.config import duration

        try:
            return time.time() - duration(since)
        except ValueError as error:
            raise Invalid(violations=[Violation("--since", str(error))]) from None
    if since_time is None:
        return None
    from bridge.times import parse_rfc3339

    try:
        return parse_rfc3339(since_time)
    except ValueError:
        allowed = 'allowed: a time such as "2026-01-02T03:04:05Z"'
        wrong = Violation("--since-time", f'found "{since_time}"; {allowed}')
        raise Invalid(violations=[wrong]) from None


# Which pods.


@dataclass(frozen=True, slots=True)
class _Chosen:
    pods: Sequence[Found]
    wanted: Callable[[Found], bool]
    done: Callable[[], bool]
    """Whether no more pods will come that are meant, too."""


def _choose(
    loop: asyncio.Runner, words: Sequence[str], selector: str | None, namespace: str | None
) -> _Chosen:
    from bridge.cli import select
    from bridge.cli.targets import require_pods, split

    matches = select.selector(selector)
    if len(words) > 2:
        raise click.UsageError(f"found {len(words)} names; allowed: a run and a pod")
    if not words and matches is None:
        raise click.UsageError("name a run or a pod, or give -l SELECTOR")
    run, name = split(words)
    runs = [select.find_run(run)] if run else select.all_runs()
    states = loop.run(select.load(runs))

    def wanted(one: Found) -> bool:
        metadata = one.object["metadata"]
        if namespace is not None and metadata.get("namespace", "default") != namespace:
            return False
        return matches is None or matches(metadata.get("labels") or {})

    if not name:
        pods = [one for one in select.objects(states, "Pod") if wanted(one)]
        require_pods(pods, states, filtered=bool(selector or namespace))
        jobs = [job for one in states for job in one.jobs]
        return _Chosen(pods, wanted, lambda: not jobs and not selector)
    if matches is not None:
        raise Invalid("found a name and -l; allowed: one of them")
    return _named(states, name, namespace, in_run=bool(run))


def _named(
    states: Sequence[RunState], name: str, namespace: str | None, *, in_run: bool
) -> _Chosen:
    from bridge.cli.targets import named

    job, pods = named(states, name, namespace, in_run=in_run)
    if job is None:
        uid = pods[0].object["metadata"]["uid"]
        return _Chosen(pods, lambda one: one.object["metadata"]["uid"] == uid, lambda: True)
    uid = job.object["metadata"]["uid"]

    def of_job(one: Found) -> bool:
        owners = one.object["metadata"].get("ownerReferences", ())
        return any(ref["uid"] == uid for ref in owners)

    return _Chosen(pods, of_job, lambda: job_over(job.state.jobs[uid]))


# Printing.


@dataclass(frozen=True, slots=True)
class _Task:
    chosen: _Chosen
    container: str
    every: bool
    part: Part
    writer: Writer
    many: bool

    async def run(self, *, follow: bool) -> int:
        groups = {one.state.name: one.state for one in self.chosen.pods}
        if follow:
            await asyncio.gather(*(self._follow(state) for state in groups.values()))
            return 0
        printed = [await self._print(state) for state in groups.values()]
        return 0 if any(printed) else 2

    async def _print(self, state: RunState) -> bool:
        """Prints the logs of one run's pods; whether there was any."""
        from bridge.cli.reading import Live, reader_of

        pods = [one.object for one in self.chosen.pods if one.state is state]
        printed = False
        async with reader_of(Live(state), self.part, self.writer) as reader:
            await reader.check(pods[0])
            for pod in pods:
                for name in self._containers(pod):
                    try:
                        await reader.read(pod, name)
                        printed = True
                    except NotFound as error:
                        if not self.many and not self.every:
                            raise
                        click.echo(error.message, err=True)
        return printed

    async def _follow(self, state: RunState) -> None:
        from bridge.cli.output import hint
        from bridge.cli.reading import Live, reader_of

        live = Live(state)
        async with reader_of(live, self.part, self.writer) as reader:
            watching = asyncio.create_task(live.run(), name="changes")
            try:
                await reader.check(next(iter(state.pods.values())))
                await self._all(live, reader)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        if not state.outcome.over and state.run.attendant is None and state.run.folder.exists():
            hint(f"{state.name} is unattended: podbridge attach {state.name} resumes it")

    async def _all(self, live: Live, reader: Reader) -> None:
        """Follows every container that is meant, those of pods to come as well."""
        reading: list[asyncio.Task[None]] = []
        async for pod in live.pods(self.chosen.wanted, self.chosen.done):
            uid = pod["metadata"]["uid"]
            for name in self._containers(pod):
                task = asyncio.create_task(self._one(reader, uid, name), name=f"log {name}")
                reading.append(task)
        try:
            await asyncio.gather(*reading)
        finally:
            for task in reading:
                task.cancel()

    async def _one(self, reader: Reader, uid: str, name: str) -> None:
        try:
            await reader.follow(uid, name)
        except BridgeError as error:
            if not self.many:
                raise
            click.echo(f"{name}: {error.message}", err=True)

    def _containers(self, pod: Manifest) -> list[str]:
        from bridge.cli.output import hint
        from bridge.cli.reading import containers_of

        names, said = containers_of(pod, self.container, every=self.every)
        if said and not self.many:
            hint(said)
        return names
