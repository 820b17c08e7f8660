"""The one pod that people's words mean, and the way to it: what every command that talks to a
container shares."""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bridge.cli import select
from bridge.cli.select import LOOK, PATIENCE, Found, RunState, backend_of, backends_of
from bridge.errors import Invalid, NotFound, Unavailable, Unsupported
from bridge.local.outcome import pod_over
from bridge.rpc.v1 import provider_pb2 as pb

if TYPE_CHECKING:
    from bridge.cli.onlooker import Onlooker
    from bridge.local.runs import Run
    from bridge.pods import Manifest


# Which pod.


def split(words: Sequence[str]) -> tuple[str, str]:
    """(run, pod or job) of what was typed: a single word is a run where there is one so named."""
    from bridge.local.runs import Runs

    if len(words) == 2:
        return words[0], words[1]
    if not words:
        return "", ""
    word = words[0]
    if word.startswith(("run/", "runs/")) or Runs().find(word) is not None:
        return word, ""
    return "", word


def named(
    states: Sequence[RunState], name: str, namespace: str | None, *, in_run: bool
) -> tuple[Found | None, list[Found]]:
    """(the Job that is meant, or None; its pods, or the one pod) of NAME, pod/NAME or job/NAME.
    NotFound, Invalid."""
    kind, slash, rest = name.partition("/")
    word = select.kind_of(kind) if slash else "Pod"
    name = rest if slash else name
    if word == "Event":
        raise Invalid(f"{kind}/{name}: an event has no containers; allowed: pod/NAME, job/NAME")
    pods = [one for one in select.objects(states, "Pod", namespace=namespace) if one.name == name]
    jobs = select.objects(states, "Job", namespace=namespace)
    if word == "Job" or (not slash and not pods and any(one.name == name for one in jobs)):
        job = select.find(states, "Job", name, namespace=namespace)
        of_job = select.pods_of(job)
        if not of_job:
            raise NotFound(f"job {name} of run {job.state.name} has no pods (yet)")
        return job, of_job
    if not pods and not slash and not in_run:
        raise _no_such(states, name)
    return None, [select.find(states, "Pod", name, namespace=namespace)]


def _no_such(states: Sequence[RunState], name: str) -> NotFound:
    """A single word that is no run, pod or job: all of them are what may have been meant."""
    known = {one.name: "run" for one in states}
    for state in states:
        known |= {one["metadata"]["name"]: "job" for one in state.jobs.values()}
        known |= {one["metadata"]["name"]: "pod" for one in state.pods.values()}
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    guess = f'; did you mean {known[near[0]]} "{near[0]}"?' if near else "; podbridge ps lists runs"
    return NotFound(f'no run, pod or job named "{name}"{guess}')


def require_pods(pods: Sequence[Found], states: Sequence[RunState], *, filtered: bool) -> None:
    """NotFound where there are none, Unavailable where whoever knows does not answer."""
    if pods:
        return
    problems = [f"{one.name}: {one.problem}" for one in states if one.problem]
    if problems:
        raise Unavailable("; ".join(problems))
    if filtered:
        raise NotFound("no pods match")
    (name,) = [one.name for one in states] or [""]
    raise NotFound(f"run {name} has no pods (yet)")


async def one_pod(
    words: Sequence[str], *, run: str | None = None, namespace: str | None = None
) -> Found:
    """The pod that is meant: a run's only one, one by its name, or the first of a Job.

    Where several could be meant, the only one that is not over. NotFound, Invalid, Unavailable.
    """
    words = [*([run] if run else []), *words]
    if len(words) > 2:
        raise Invalid(f"found {len(words)} names: {', '.join(words)}; allowed: a run and a pod")
    if not words:
        raise Invalid("name a run or a pod; podbridge ps lists runs")
    of_run, name = (run, "") if run and len(words) == 1 else split(words)
    runs = [select.find_run(of_run)] if of_run else select.all_runs()
    states = await select.load(runs)
    if name:
        if of_run and not states[0].pods:
            require_pods([], states, filtered=False)
        job, pods = named(states, name, namespace, in_run=bool(of_run))
        return _going(pods)[0] if job is not None else pods[0]
    pods = select.objects(states, "Pod", namespace=namespace)
    require_pods(pods, states, filtered=namespace is not None)
    going = _going(pods)
    if len(going) > 1:
        listed = ", ".join(one.name for one in going[:10])
        more = f" and {len(going) - 10} more" if len(going) > 10 else ""
        raise Invalid(f"run {states[0].name} has several pods; name one: {listed}{more}")
    return going[0]


def _going(pods: Sequence[Found]) -> Sequence[Found]:
    return [one for one in pods if not pod_over(one.object)] or pods


# The way to it.


@asynccontextmanager
async def reached(state: RunState) -> AsyncIterator[Onlooker]:
    """The run's own provider, once that knows every pod. Unavailable."""
    from bridge.cli.wiring import synced

    run = state.run
    async with _provider_of(run) as provider:
        try:
            async with asyncio.timeout(LOOK):
                await synced(provider, run.wanted.uid)
        except TimeoutError:
            names = ", ".join(backends_of(state))
            raise Unavailable(f"{names} does not answer") from None
        yield provider


@asynccontextmanager
async def _provider_of(run: Run) -> AsyncIterator[Onlooker]:
    """That of the process which attends the run: it alone is connected to what is in its pods.
    Where nobody does, one of this process over the same backends."""
    from bridge.cli.wiring import Target, onlooker_of, target_of
    from bridge.local.control import ControlClient, short_path

    target = target_of(run)
    if target.provider is None and run.attendant is not None:
        try:
            async with asyncio.timeout(PATIENCE):
                await ControlClient(run.control).provide()
        except (Unavailable, TimeoutError):
            pass
        else:
            folder, path = short_path(run.provider)
            try:
                offered = Target((), f"unix:{path}", target.max_run)
                async with onlooker_of(offered) as provider:
                    yield provider
            finally:
                os.close(folder)
            return
    async with onlooker_of(target) as provider:
        yield provider


async def offer_of(provider: Onlooker, state: RunState) -> pb.WatchNodeResponse:
    """What the provider's backends can do. Unavailable where it does not answer."""
    from bridge.local.session import NODE

    request = pb.WatchNodeRequest(cluster=state.run.wanted.uid, node=NODE)
    try:
        async with asyncio.timeout(PATIENCE):
            async for offer in provider.watch_node(request):
                return offer
    except TimeoutError:
        pass
    raise Unavailable("the provider does not answer")


async def require(
    provider: Onlooker, state: RunState, pod: Manifest, ability: str, without: str
) -> None:
    """Unsupported where the pod's backend lacks an ability: "backend NAME", then `without`."""
    offer = await offer_of(provider, state)
    if problem := lacking(offer, backend_of(state, pod), ability, without):
        raise Unsupported(problem)


def lacking(offer: pb.WatchNodeResponse, backend: str, ability: str, without: str) -> str:
    """What to say of a backend that lacks an ability; empty where it has it."""
    mine = [one for one in offer.backends if one.name == backend] or list(offer.backends)
    if mine and not any(ability in one.abilities for one in mine):
        return f"backend {mine[0].name} {without}"
    return ""
