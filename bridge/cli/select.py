"""Finding runs and what is in them by the words that people type, and how each run stands."""

from __future__ import annotations

import asyncio
import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bridge.agent.request import PLACED_ON
from bridge.errors import BridgeError, Invalid, NotFound, Violation
from bridge.local.outcome import Outcome, judge, owner, pod_over
from bridge.local.store import Change

if TYPE_CHECKING:
    import click

    from bridge.cli.onlooker import Onlooker
    from bridge.local.runs import Run
    from bridge.pods import Manifest

PATIENCE = 5.0
"""Seconds that the process that attends a run may take to say how it stands."""
LOOK = 30.0
"""Seconds that backends may take to be looked at anew: a container engine answers some thirty
questions a second, and is asked about each container that it has."""

KINDS = {
    "pods": "Pod",
    "pod": "Pod",
    "po": "Pod",
    "jobs": "Job",
    "job": "Job",
    "job.batch": "Job",
    "jobs.batch": "Job",
    "events": "Event",
    "event": "Event",
    "ev": "Event",
}
"""Every word for a kind of object."""


# Runs.


def all_runs() -> list[Run]:
    """Every run of this user, in the order of their names."""
    from bridge.local.runs import Runs

    return list(Runs())


def find_run(name: str) -> Run:
    """The run of that name (`run/NAME` too). NotFound with the nearest one."""
    from bridge.local.runs import Runs

    name = name.removeprefix("run/").removeprefix("runs/")
    run = Runs().find(name)
    if run is None:
        raise NotFound(_no("run", name, [one.name for one in Runs()]))
    return run


def _no(kind: str, name: str, known: Sequence[str], where: str = "") -> str:
    """The words for a name that does not exist: with the nearest, or all that there are."""
    said = f'no {kind} named "{name}"{where}'
    if not known:
        return f"{said}: there are none"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f'{said}; did you mean "{near[0]}"?'
    listed = sorted(dict.fromkeys(known))
    more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
    return f"{said}; there are: {', '.join(listed[:10])}{more}"


def complete_runs(_context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """Names of runs, for shell completion."""
    try:
        return [one.name for one in all_runs() if one.name.startswith(start)]
    except BridgeError:
        # Said by the command itself; here it would be in the way of what is typed.
        return []


# How a run stands.


@dataclass(slots=True)
class RunState:
    """One run and its objects, without pods that were deleted and have ended."""

    run: Run
    attendant: int | None
    """The process that attends it; None: unattended."""
    jobs: dict[str, Manifest] = field(default_factory=dict)
    pods: dict[str, Manifest] = field(default_factory=dict)
    events: dict[str, Manifest] = field(default_factory=dict)
    problem: str = ""
    """Why nothing is known of it; empty where all is."""

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name

    @property
    def outcome(self) -> Outcome:
        """Whether it is over, and how."""
        return judge(self.jobs.values(), self.pods.values())

    @property
    def status(self) -> str:
        """Running, Succeeded, Failed, Deleting, Unattended (nobody sees to it, and it is not
        over), Unknown (whoever knows does not answer)."""
        if self.run.deleting:
            return "Deleting"
        if self.problem:
            return "Unknown"
        outcome = self.outcome
        if outcome.over:
            return "Failed" if outcome.failed else "Succeeded"
        return "Running" if self.attendant is not None else "Unattended"

    @property
    def resumable(self) -> bool:
        """Whether `attach` would have something to do that nobody does now."""
        return self.attendant is None and self.status in ("Unattended", "Deleting")

    @property
    def counts(self) -> tuple[int, int, int]:
        """(succeeded, wanted, failed) pods; a Job counts its completions, or its pods."""
        done = total = failed = 0
        for job in self.jobs.values():
            status = job.get("status", {})
            done += status.get("succeeded", 0)
            failed += status.get("failed", 0)
            completions = job["spec"].get("completions")
            own = status.get("active", 0) + status.get("succeeded", 0)
            total += own if completions is None else completions
        for pod in self.pods.values():
            if not owner(pod):
                phase = pod.get("status", {}).get("phase")
                total += 1
                done += phase == "Succeeded"
                failed += phase == "Failed"
        return done, total, failed

    def apply(self, change: Change) -> bool:
        """Takes a change in; whether it is one of an object that is shown."""
        one = change.object
        match change.kind:
            case "Job":
                self.jobs[one["metadata"]["uid"]] = one
            case "Pod":
                uid = one["metadata"]["uid"]
                if change.type == "DELETED":
                    return self.pods.pop(uid, None) is not None
                if pod_over(one) and uid not in self.pods and uid in self.run.ended():
                    return False
                self.pods[uid] = one
            case "Event":
                self.events[one["metadata"]["name"]] = one
            case _:
                return False
        return True


def backend_of(state: RunState, pod: Manifest) -> str:
    """The backend that a pod is on: as recorded, or the only one that its run has."""
    placed = (pod["metadata"].get("annotations") or {}).get(PLACED_ON, "")
    names = backends_of(state)
    return placed or (names[0] if len(names) == 1 else "<none>")


def backends_of(state: RunState) -> list[str]:
    """The names of a run's backends, or the address of its provider."""
    options = state.run.wanted.options
    if options.get("provider"):
        return [str(options["provider"])]
    return [one["config"]["name"] for one in options.get("backends") or ()]


def shown(state: RunState, backend: str) -> str:
    """A backend's name as people see it: what is simulated says so, beside what costs money."""
    options = state.run.wanted.options.get("backends") or ()
    simulated = {one["config"]["name"] for one in options if one.get("simulated")}
    return f"{backend} (simulated)" if backend in simulated else backend


async def load(runs: Iterable[Run]) -> list[RunState]:
    """How these runs stand. Of one that is over that was noted; the others that nobody attends are
    looked at together."""
    states = [RunState(run, run.attendant) for run in runs]
    attended = [one for one in states if one.attendant is not None]
    answers = await asyncio.gather(*(_ask(one) for one in attended))
    # One that ended between the look and the call is known to its backends now.
    gone = {one.name for one, answered in zip(attended, answers, strict=True) if not answered}
    groups: dict[str, list[RunState]] = {}
    for one in states:
        if (one.attendant is None or one.name in gone) and not _noted(one):
            target = json.dumps(one.run.wanted.options, sort_keys=True)
            groups.setdefault(target, []).append(one)
    await asyncio.gather(*(_observe(group) for group in groups.values()))
    return states


def _noted(state: RunState) -> bool:
    """Whether the run is over, and how it stood then is known."""
    if state.run.deleting or (end := state.run.end()) is None:
        return False
    for kind in ("Job", "Pod", "Event"):
        for one in end[kind]:
            state.apply(Change("ADDED", kind, one))
    return True


async def _ask(state: RunState) -> bool:
    from bridge.errors import Unavailable
    from bridge.local.control import ControlClient

    try:
        async with asyncio.timeout(PATIENCE):
            async for change in ControlClient(state.run.control).changes():
                if change.type == "SYNCED":
                    return True
                state.apply(change)
    except Unavailable:
        return False
    except TimeoutError:
        state.problem = f"the process that attends it ({state.attendant}) does not answer"
        return True
    return False


async def _observe(states: Sequence[RunState]) -> None:
    """Asks the backends that these runs share: opened once for all of them."""
    from bridge.cli.wiring import onlooker_of, target_of

    try:
        async with onlooker_of(target_of(states[0].run)) as provider:
            await asyncio.gather(*(_observe_one(one, provider) for one in states))
    except BridgeError as error:
        for one in states:
            one.problem = error.message


async def _observe_one(state: RunState, provider: Onlooker) -> None:
    state.attendant, state.problem = state.run.attendant, ""
    try:
        async with asyncio.timeout(LOOK):
            await _settle(state, provider)
    except TimeoutError:
        state.problem = f"{', '.join(backends_of(state))} does not answer"
    except BridgeError as error:
        state.problem = error.message


async def _settle(state: RunState, provider: Onlooker) -> None:
    from bridge.local.session import Session

    session = Session(state.run, provider, observe=provider.settled)
    tasks = [
        asyncio.create_task(session.attend(), name="observe"),
        asyncio.create_task(session.settled(), name="settle"),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
        async for change in session.store.changes():
            if change.type == "SYNCED":
                return
            # Events of an observation are of now, not of when it happened.
            if change.kind != "Event":
                state.apply(change)
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# Objects.


@dataclass(frozen=True, slots=True)
class Found:
    """One object and the run that it belongs to."""

    state: RunState
    object: Manifest

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.object["metadata"]["name"])


def kind_of(word: str) -> str:
    """The kind that a word names. Invalid with the nearest word."""
    kind = KINDS.get(word.lower())
    if kind is None:
        near = difflib.get_close_matches(word.lower(), KINDS, n=1, cutoff=0.5)
        guess = f'; did you mean "{near[0]}"?' if near else ""
        raise Invalid(f'unknown kind "{word}"; allowed: pods (po), jobs, events (ev){guess}')
    return kind


def objects(
    states: Iterable[RunState],
    kind: str,
    *,
    namespace: str | None = None,
    matches: Callable[[Mapping[str, str]], bool] | None = None,
) -> list[Found]:
    """All objects of a kind, by run, namespace and name; events in the order of their times."""
    found = []
    for state in states:
        kinds = {"Pod": state.pods, "Job": state.jobs, "Event": state.events}
        for one in kinds[kind].values():
            metadata = one["metadata"]
            if namespace is not None and metadata.get("namespace", "default") != namespace:
                continue
            if matches is None or matches(metadata.get("labels") or {}):
                found.append(Found(state, one))
    if kind == "Event":
        return sorted(found, key=lambda one: one.object.get("lastTimestamp", ""))
    return sorted(found, key=_order)


def _order(one: Found) -> tuple[str, str, list[tuple[int, int, str]]]:
    # Numbers in names count as numbers: words-2 stands before words-10.
    parts = re.split(r"(\d+)", one.name)
    natural = [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts if part]
    return one.state.name, one.object["metadata"].get("namespace", "default"), natural


def find(
    states: Sequence[RunState], kind: str, name: str, *, namespace: str | None = None
) -> Found:
    """The one object of that name. NotFound with the nearest, Invalid where several have it."""
    known = objects(states, kind, namespace=namespace)
    found = [one for one in known if one.name == name]
    if len(found) == 1:
        return found[0]
    word = kind.lower()
    if not found:
        problems = [one.problem for one in states if one.problem]
        where = f" in run {states[0].name}" if len(states) == 1 else ""
        if problems and not known:
            raise NotFound(f'{word} "{name}" is not known{where}: {problems[0]}')
        raise NotFound(_no(word, name, [one.name for one in known], where))
    runs = sorted({one.state.name for one in found})
    if len(runs) > 1:
        raise Invalid(f'{word} "{name}" is in several runs: {", ".join(runs)}; name one with --run')
    spaces = sorted({one.object["metadata"].get("namespace", "default") for one in found})
    raise Invalid(
        f'{word} "{name}" is in several namespaces: {", ".join(spaces)}; name one with -n'
    )


def pods_of(found: Found) -> list[Found]:
    """The pods of a Job."""
    uid = found.object["metadata"]["uid"]
    return [
        one
        for one in objects([found.state], "Pod")
        if any(ref["uid"] == uid for ref in one.object["metadata"].get("ownerReferences", ()))
    ]


# Label selectors.

_KEY = r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_EQUALITY = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})")
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_EXISTS = re.compile(rf"(!?)\s*({_KEY})")
_COMMAS = re.compile(r",(?![^(]*\))")


def selector(text: str | None) -> Callable[[Mapping[str, str]], bool] | None:
    """What `-l` means: `a=b`, `a!=b`, `a in (b, c)`, `a notin (b)`, `a`, `!a`, with commas.

    None: everything. Invalid for anything else.
    """
    if not text or not text.strip():
        return None
    tests = [_requirement(one.strip()) for one in _COMMAS.split(text)]
    return lambda labels: all(test(labels) for test in tests)


def _requirement(text: str) -> Callable[[Mapping[str, str]], bool]:
    if match := _EQUALITY.fullmatch(text):
        key, operator, value = match[1], match[3], match[4]
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match := _SET.fullmatch(text):
        key, operator = match[1], match[3]
        values = {one.strip() for one in match[4].split(",")}
        if operator == "in":
            return lambda labels: key in labels and labels[key] in values
        return lambda labels: key not in labels or labels[key] not in values
    if match := _EXISTS.fullmatch(text):
        key, absent = match[2], bool(match[1])
        return lambda labels: (key not in labels) == absent
    allowed = "a=b, a!=b, a in (b, c), a notin (b), a, !a; several with commas"
    raise Invalid(violations=[Violation("-l", f'found "{text}"; allowed: {allowed}')])


def exact(found: Sequence[Found]) -> list[dict[str, Any]]:
    """The objects alone, with kind and apiVersion, as `-o json` prints them."""
    versions = {"Pod": "v1", "Job": "batch/v1", "Event": "v1"}
    out = []
    for one in found:
        kind = one.object.get("kind") or ("Job" if "template" in one.object["spec"] else "Pod")
        out.append({"apiVersion": versions[kind], "kind": kind, **one.object})
    return out
