"""What backends make of manifests, asked before anything is started."""

from __future__ import annotations

import asyncio
import copy
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from bridge.errors import BridgeError, Invalid, Unsupported, Violation
from bridge.local import clusterless

if TYPE_CHECKING:
    from bridge.adapter import Adapter, Quote
    from bridge.config import BackendConfig
    from bridge.local.manifests import Loaded, Objects
    from bridge.local.store import Store
    from bridge.pods import Manifest
    from bridge.provider.capabilities import Assessment
    from bridge.workload import Workload

OPENING = 60.0
"""Seconds that a backend may take to say what it has: an engine that is busy takes some twenty."""
SILENT = 3.0
"""Seconds after which people are told what they wait for."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one backend makes of one object. Fields are those of the object's own manifest."""

    backend: str
    simulated: bool
    loaded: Loaded
    violations: tuple[Violation, ...] = ()
    """Why it cannot run it: every field, with the file."""
    approximations: tuple[Violation, ...] = ()
    """What will be different: `field: words`, with the file."""
    problem: str = ""
    """Why the backend itself could not be asked: its fields were judged by its table alone."""
    workload: Workload | None = None
    """One of its pods; None where it makes none that can be."""
    quote: Quote | None = None
    """What that pod costs; None: the backend bills nothing, or could not be asked."""
    bills: bool = False
    """Whether the backend bills for what runs there."""

    @property
    def possible(self) -> bool:
        """Whether the backend can run the object."""
        return not self.violations

    @property
    def result(self) -> str:
        """`runs`, `runs, approximated` or `refused`; `would run` where the backend is not there."""
        if self.violations:
            return "refused"
        words = "would run" if self.problem else "runs"
        words += ", approximated" if self.approximations else ""
        return f"{words} (simulated)" if self.simulated else words

    @property
    def object(self) -> str:
        """`job/words`."""
        obj = self.loaded.obj
        return f"{obj['kind'].lower()}/{obj['metadata']['name']}"


def assess_objects(objects: Objects, backends: Sequence[BackendConfig]) -> list[Verdict]:
    """What each backend makes of each object, where every object has one that can run it.

    Where a pod names backends itself only those count. Raises one Invalid or Unsupported with all
    that is wrong, each with its file.
    """
    verdicts = asyncio.run(assess(objects, backends))
    wrong: list[Violation] = []
    invalid = False
    for loaded in (*objects.pods, *objects.jobs, *objects.cronjobs):
        mine = [one for one in verdicts if one.loaded is loaded]
        try:
            names = eligible_for(loaded, backends)
        except Invalid as error:
            invalid = True
            wrong += [
                replace(one, field=_field(loaded, one.field), source=loaded.source)
                for one in error.violations or (Violation("", error.message),)
            ]
            continue
        mine = [one for one in mine if one.backend in names]
        if any(one.possible for one in mine):
            continue
        for one in mine:
            said = f" (backend {one.backend})" if len(mine) > 1 else ""
            wrong += [replace(each, message=each.message + said) for each in one.violations]
    if wrong:
        raise (Invalid if invalid else Unsupported)(violations=wrong)
    return verdicts


def eligible_for(loaded: Loaded, backends: Sequence[BackendConfig]) -> list[str]:
    """The names of the backends that an object's pods may be placed on. Invalid."""
    from bridge.provider.placement import Place, eligible, wanted
    from bridge.provider.registry import module

    places = [
        Place(
            one.name,
            one.type,
            simulated=one.simulated or module(one.type).Adapter.simulated,
        )
        for one in backends
    ]
    return [place.name for place in eligible(places, wanted(pod_template(loaded.obj)))]


async def assess(objects: Objects, backends: Sequence[BackendConfig]) -> list[Verdict]:
    """What each backend makes of each Pod, Job and CronJob: by backend, then in their order."""
    from bridge.local.session import NODE
    from bridge.local.store import Store

    references = [one.obj for one in (*objects.configmaps.values(), *objects.secrets.values())]
    store = Store(str(uuid.uuid4()), NODE, references)
    wanted = [
        (loaded, _pod(loaded.obj)) for loaded in (*objects.pods, *objects.jobs, *objects.cronjobs)
    ]
    answers = await asyncio.gather(*(_ask(store, one, wanted) for one in backends))
    return [verdict for answer in answers for verdict in answer]


async def _ask(
    store: Store, config: BackendConfig, wanted: Sequence[tuple[Loaded, Manifest]]
) -> list[Verdict]:
    from bridge.provider.registry import make

    adapter = make(config)
    problem = ""
    waiting = asyncio.get_running_loop().call_later(SILENT, _say_waiting, config.name)
    try:
        async with asyncio.timeout(OPENING):
            await adapter.open()
    except TimeoutError:
        problem = f"no answer within {OPENING:g} seconds: it may be busy; try again"
    except BridgeError as error:
        problem = error.message
    finally:
        waiting.cancel()
    try:
        out = []
        for loaded, pod in wanted:
            found, workload = await _assessment(store, config, adapter, pod, opened=not problem)
            more = (*found.approximations, *clusterless.ignored(pod))
            verdict = _verdict(config, adapter, loaded, replace(found, approximations=more))
            out.append(_priced(replace(verdict, problem=problem, workload=workload), adapter))
        return out
    finally:
        if not problem:
            await adapter.close()


def _priced(verdict: Verdict, adapter: Adapter) -> Verdict:
    """With what the pod costs there, where the backend bills."""
    from bridge.adapter import Priced

    if not isinstance(adapter, Priced):
        return verdict
    asked = verdict.possible and not verdict.problem and verdict.workload is not None
    quote = adapter.quote(verdict.workload) if asked and verdict.workload else None
    return replace(verdict, bills=True, quote=quote)


def _say_waiting(backend: str) -> None:
    click.echo(f"waiting for backend {backend} to answer", err=True)


async def _assessment(
    store: Store, config: BackendConfig, adapter: Adapter, pod: Manifest, *, opened: bool
) -> tuple[Assessment, Workload | None]:
    """What a backend makes of one pod, and the pod as it would get it."""
    from bridge.agent.request import Builder, identity, missing
    from bridge.provider import capabilities
    from bridge.provider.placement import Place, candidates
    from bridge.provider.translate import translate
    from bridge.requests import pod_request

    if own := tuple(clusterless.refused(pod)):
        table = capabilities.assess(adapter, pod)
        return capabilities.Assessment(table.violations + own, table.approximations), None
    try:
        request = await Builder(store).create(pod, identity(store.id, store.node, pod), time.time())
        if words := missing(request):
            return capabilities.Assessment((Violation("", words),)), None
        workload = translate(request, pod, start_time=None)
    except BridgeError as error:
        return capabilities.Assessment(error.violations or (Violation("", error.message),)), None
    if opened:
        found = capabilities.judge(adapter, pod, workload)
    else:
        # What only the backend itself could say is not known.
        found = capabilities.assess(adapter, pod)
    place = Place(config.name, config.type, config.limits)
    try:
        candidates([place], {config.name: found}, pod_request(workload))
    except Unsupported as error:
        sized = tuple(replace(one, source="") for one in error.violations)
        return capabilities.Assessment(sized, found.approximations), workload
    return found, workload


# Between an object and its pods.


def _verdict(config: BackendConfig, adapter: Adapter, loaded: Loaded, found: Assessment) -> Verdict:
    return Verdict(
        config.name,
        adapter.simulated or config.simulated,
        loaded,
        tuple(
            Violation(_field(loaded, one.field), one.message, loaded.source)
            for one in found.violations
        ),
        tuple(
            Violation(_field(loaded, field), words, loaded.source)
            for field, words in found.approximations
            if not _made(loaded.obj, field)
        ),
    )


_PREFIX = {"Pod": "", "Job": "spec.template.", "CronJob": "spec.jobTemplate.spec.template."}


def pod_template(obj: Manifest) -> Manifest:
    """A Pod itself, or the pod template of what makes pods."""
    if obj["kind"] == "CronJob":
        obj = obj["spec"]["jobTemplate"]
    found: Manifest = obj if obj.get("kind") == "Pod" else obj["spec"]["template"]
    return found


def _field(loaded: Loaded, field: str) -> str:
    return _PREFIX[loaded.obj["kind"]] + field if re.match(r"(spec|metadata)\b", field) else field


def _made(obj: Manifest, field: str) -> bool:
    """Whether the Job controller wrote a field, not the author: nothing to tell anybody."""
    return field == "spec.hostname" and "hostname" not in pod_template(obj)["spec"]


def _pod(obj: Manifest) -> Manifest:
    """One pod as it would be created: of a Job its first one."""
    if obj["kind"] == "Pod":
        pod = copy.deepcopy(obj)
        pod["metadata"]["uid"] = str(uuid.uuid4())
        return pod
    from bridge.local.jobs.cronjobs import from_cronjob
    from bridge.local.jobs.model import JobView
    from bridge.local.jobs.orders import PodFactory
    from bridge.pods.defaults import with_defaults

    now = time.time()
    job = with_defaults(from_cronjob(obj, now)) if obj["kind"] == "CronJob" else copy.deepcopy(obj)
    job["metadata"]["uid"] = str(uuid.uuid4())
    view = JobView.of(job)
    return PodFactory(view, job).build(0 if view.indexed else None, 0, {})
