"""The account: which backend it is, what a run may do there, and what is left of one."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from adapters.fargate import Adapter, Options
from adapters.fargate import quote as quotes
from adapters.fargate.names import Json
from bridge.adapter import Finding, Quote
from bridge.cli.wiring import load_config
from bridge.errors import BridgeError, Invalid, NotFound, Violation
from bridge.workload import HelperUse, Observed, Workload
from tools.real import work
from tools.real.meter import Meter

TYPE = "fargate"
OWNER = re.compile(r"podbridge-real-[0-9a-f]{8}")
"""What runs' owners look like: no other's things are ever removed."""
BILLED = "tasks, which end by themselves"
"""How what is billed on is told of, where it is left."""
_START = 300.0
"""Seconds in which a task has to run: the image is small."""


def backend_of(file: str | None, name: str | None) -> tuple[str, Options]:
    """The configured backend to use. Invalid: there is none, or several and `name` is not one."""
    config = load_config(file)
    found = {one.name: one for one in config.backends if one.type == TYPE}
    known = ", ".join(found) or f"none: no backend of type {TYPE} is configured"
    if name is not None and name not in found:
        raise Invalid(violations=[Violation("--backend", f'found "{name}"; allowed: {known}')])
    if not found:
        words = f"no backend of type {TYPE}: podbridge init aws makes a configuration"
        raise Invalid(violations=[Violation("backends", words, file or "")])
    if name is None and len(found) > 1:
        raise Invalid(violations=[Violation("--backend", f"required; allowed: {known}")])
    chosen = found[name] if name is not None else next(iter(found.values()))
    options = chosen.options
    if not isinstance(options, Options):
        options = Options.model_validate(options)
    return chosen.name, options


def narrowed(options: Options, owner: str, *, pace: float, state: str) -> Options:
    """A backend's options for one run: an owner of its own, no helper, and nothing that is others'
    (the queue gives each event to one reader only). `state`: a folder."""
    changed = {
        "owner": owner,
        "helper": HelperUse.NEVER,
        "helper_state": state,
        "tunnel": None,
        "queue_url": "",
        "identities": (),
        "claims": (),
        "capacity": "on-demand",
        "start_deadline": _START,
        "poll": pace,
    }
    return options.model_copy(update=changed)


def simulated(options: Options) -> bool:
    """Whether it is not AWS that answers."""
    return bool(options.endpoint_url or os.environ.get("AWS_ENDPOINT_URL"))


def names(options: Options, region: str) -> dict[str, str]:
    """The account's own names, and what each is, for redaction."""
    host = options.endpoint_url.partition("://")[2].strip("/")
    found = {
        options.execution_role.split(":")[4]: "account",
        options.execution_role.rpartition("/")[2]: "role",
        options.bucket: "bucket",
        options.cluster.rpartition("/")[2]: "cluster",
        options.log_group: "log-group",
        options.owner: "owner",
        options.kms_key: "kms-key",
        region: "region",
        host: "endpoint",
    }
    found |= dict.fromkeys(options.subnets, "subnet")
    found |= dict.fromkeys(options.security_groups, "sg")
    found |= dict.fromkeys(options.images.rewrite.values(), "registry")
    return {name: what for name, what in found.items() if name}


class Watched(Adapter):
    """The adapter, whose calls others listen to. Once the meter has refused a task, nothing more
    is waited for: every list raises QuotaExceeded."""

    def __init__(
        self, name: str, options: Options, meter: Meter, attach: Callable[[Any], None]
    ) -> None:
        super().__init__(name, options)
        self._meter = meter

        def prepare(session: Any) -> None:
            meter.attach(session)
            attach(session)

        self._clients.prepare = prepare

    async def run(self, workload: Workload) -> None:
        """As of the adapter; QuotaExceeded."""
        self._meter.check()
        await super().run(workload)

    async def list(self) -> Sequence[Observed]:
        """As of the adapter; QuotaExceeded."""
        self._meter.check()
        return await super().list()

    async def left(self) -> Sequence[str]:
        """What AWS has of this owner: tasks that nobody has stopped, objects."""
        return [*await _running(self), *await self._store.marks(), *await self._store.payloads()]


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen before anything is started."""

    region: str
    quote: Quote
    problems: Sequence[Finding]


async def look(name: str, options: Options) -> Look:
    """Opens the backend, and asks what would stand in the way. Costs nothing. Unauthorized,
    Unavailable, NotFound, Invalid."""
    async with _opened(name, options) as adapter:
        region = adapter._clients.region
        findings = await adapter.verify()
    quote = quotes.quote(work.endless(work.IMAGE), options, region)
    problems = [
        one
        for one in findings
        # The suite has no secrets: what that role may read of the run's owner is no matter.
        if one.severity == "problem" and one.subject != "permissions of the execution role"
    ]
    return Look(region, quote, problems)


@dataclass(frozen=True, slots=True)
class Made:
    """What a run knows to have made: ListTasks may not have the newest tasks yet, and the provider
    may not list the others."""

    tasks: Sequence[str] = ()
    """ARNs of those that may run."""
    definitions: Sequence[str] = ()
    """ARNs. They cost nothing, as streams do."""
    streams: Sequence[str] = ()
    """Names of log streams."""


async def sweep(name: str, options: Options, made: Made) -> Sequence[str]:
    """Removes all that is of the options' owner; what is left, in words. Errors as of AWS's
    calls."""
    if not OWNER.fullmatch(options.owner):
        words = f'found "{options.owner}"; allowed: the owner of a run, podbridge-real-...'
        raise Invalid(violations=[Violation("OWNER", words)])
    left: list[str] = []

    async def attempt(what: str, service: str, action: str, each: Iterable[Json]) -> None:
        """Does it to each; where AWS will not, the others are not tried."""
        todo = list(each)
        for number, given in enumerate(todo):
            try:
                await adapter._clients.call(service, action, **given)
            except NotFound:
                continue
            except BridgeError as error:
                left.append(f"{len(todo) - number} {what} ({error.message})")
                return

    async with _opened(name, options) as adapter:
        about = {"cluster": options.cluster, "reason": "The run is over"}
        tasks = dict.fromkeys([*await _running(adapter), *made.tasks])
        await attempt(BILLED, "ecs", "stop_task", ({**about, "task": one} for one in tasks))
        if left:
            # An order is what another look for its task needs.
            return left
        store = adapter._store
        await store.forget_payloads(await store.payloads())
        for mark in await store.marks():
            await store.forget_order(mark)
        definitions = ({"taskDefinition": one} for one in made.definitions)
        words = "task definitions, free of charge"
        await attempt(words, "ecs", "deregister_task_definition", definitions)
        group = {"logGroupName": options.log_group}
        streams = ({**group, "logStreamName": one} for one in made.streams)
        words = "log streams, until the group's retention"
        await attempt(words, "logs", "delete_log_stream", streams)
    return left


@asynccontextmanager
async def _opened(name: str, options: Options) -> AsyncIterator[Adapter]:
    adapter = Adapter(name, options)
    adapter.only_look()
    try:
        await adapter.open()
        yield adapter
    finally:
        with contextlib.suppress(KeyError):
            await adapter.close()


async def _running(adapter: Adapter) -> list[str]:
    """The ARNs of its owner's tasks that nobody has stopped."""
    arns = await adapter._tasks._listed(desiredStatus="RUNNING")
    prefix = f"{adapter._options.owner}/"
    found = await adapter._tasks.describe(sorted(arns))
    return [arn for arn, one in found.items() if str(one.get("startedBy", "")).startswith(prefix)]
