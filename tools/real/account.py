"""The account: which backend it is, what a run may do there, and what is left of one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from adapters.fargate import Adapter, Options
from adapters.fargate import quote as quotes
from adapters.fargate.errors import Refused
from adapters.fargate.names import Json
from bridge.adapter import Finding, Quote
from bridge.cli.wiring import load_config
from bridge.errors import (
    Ambiguous,
    BridgeError,
    Invalid,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
    Violation,
)
from bridge.workload import HelperUse, Observed, Workload
from tools.real import work
from tools.real.meter import Meter

TYPE = "fargate"
OWNER = re.compile(r"podbridge-real-[0-9a-f]{8}")
"""What runs' owners look like: no other's things are ever removed."""
TASKS = "tasks, which end by themselves once they have started"
OBJECTS = "objects in the bucket"
BILLED = (TASKS, OBJECTS)
"""How what is billed on is told of, where it is left."""
PATIENCE = 600.0
"""Seconds in which what is left has to go."""
_STOPPED = "STOPPED"
_T = TypeVar("_T")
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


async def sweep(
    name: str, options: Options, made: Made, patience: float = PATIENCE
) -> Sequence[str]:
    """Removes all that is of the options' owner, and waits until its tasks have ended; what is
    left, in words. `patience`: seconds for all that is tried again. Errors as of opening a
    backend."""
    if not OWNER.fullmatch(options.owner):
        words = f'found "{options.owner}"; allowed: the owner of a run, podbridge-real-...'
        raise Invalid(violations=[Violation("OWNER", words)])
    end = time.monotonic() + patience
    async with _opened(name, options, lambda: _later(options.poll, end)) as adapter:
        broom = _Broom(adapter, options, end)
        await broom.tasks(made.tasks)
        await broom.objects()
        definitions = ({"taskDefinition": one} for one in made.definitions)
        words = "task definitions, free of charge"
        await broom.each(words, "ecs", "deregister_task_definition", definitions)
        group = {"logGroupName": options.log_group}
        streams = ({**group, "logStreamName": one} for one in made.streams)
        words = "log streams, until the group's retention"
        await broom.each(words, "logs", "delete_log_stream", streams)
    return broom.left


def _again(error: BridgeError) -> bool:
    """Whether the same may be done later on. What is removed twice is gone all the same."""
    passing = isinstance(error, Throttled | Unavailable | Ambiguous)
    return passing and not isinstance(error, Refused)


async def _later(pace: float, end: float) -> bool:
    """Waits for another look; False: the time is over."""
    if time.monotonic() >= end:
        return False
    await asyncio.sleep(pace)
    return True


class _Broom:
    """One sweep. What fails is kept in `left`, and the next thing is gone on with."""

    def __init__(self, adapter: Adapter, options: Options, end: float) -> None:
        self._adapter, self._options, self._end = adapter, options, end
        self.left: list[str] = []

    async def _persist(self, do: Callable[[], Awaitable[_T]]) -> _T:
        """Does it until it is done, the time is over, or trying again is no use. Its errors."""
        while True:
            try:
                return await do()
            except BridgeError as error:
                if not (_again(error) and await _later(self._options.poll, self._end)):
                    raise

    async def tasks(self, known: Iterable[str]) -> None:
        """Stops what has not ended, and waits for it. `known`: ARNs of what may run."""
        about = {"cluster": self._options.cluster, "reason": "The run is over"}
        found: dict[str, bool] = {}
        try:
            found = await self._persist(self._unended)
        except BridgeError as error:
            self.left.append(f"{TASKS}, as far as they are not known ({error.message})")
        # One that was told to stop already may be one of the known, too: that does no harm.
        unstopped = [arn for arn, stopped in found.items() if not stopped]
        todo = dict.fromkeys([*unstopped, *known])
        told = await self.each(TASKS, "ecs", "stop_task", ({**about, "task": one} for one in todo))
        ending = {*found, *todo} - {str(one["task"]) for one in told}
        try:
            while ending := await self._persist(lambda: self._still(ending)):
                if not await _later(self._options.poll, self._end):
                    words = "told to stop, and not seen to have ended"
                    self.left.append(f"{len(ending)} {TASKS} ({words})")
                    return
        except BridgeError as error:
            self.left.append(f"{len(ending)} {TASKS} ({error.message})")

    async def _unended(self) -> dict[str, bool]:
        """The owner's tasks that have not ended, by ARN: whether somebody has stopped it."""
        found = await _owned(self._adapter, await self._adapter._tasks.all())
        return {
            arn: one.get("desiredStatus") == _STOPPED
            for arn, one in found.items()
            if one.get("lastStatus") != _STOPPED
        }

    async def _still(self, arns: Iterable[str]) -> set[str]:
        """Those that have not ended: of what is gone, ECS tells nothing."""
        found = await self._adapter._tasks.describe(sorted(arns))
        return {arn for arn, one in found.items() if one.get("lastStatus") != _STOPPED}

    async def objects(self) -> None:
        """Removes payloads and orders."""
        store = self._adapter._store

        async def remove() -> None:
            await store.forget_payloads(await store.payloads())
            for mark in await store.marks():
                await store.forget_order(mark)

        try:
            await self._persist(remove)
        except BridgeError as error:
            self.left.append(f"{OBJECTS} ({error.message})")

    async def each(
        self, what: str, service: str, action: str, given: Iterable[Json]
    ) -> Sequence[Json]:
        """Does it to each; what it was not done to. Where that is not allowed, the others are not
        tried."""
        todo = list(given)
        failed: list[Json] = []
        words = ""
        while todo:
            later: list[Json] = []
            for number, one in enumerate(todo):
                try:
                    await self._adapter._clients.call(service, action, **one)
                except NotFound:
                    continue
                except Unauthorized as error:
                    words, failed = error.message, [*failed, *later, *todo[number:]]
                    later = []
                    break
                except BridgeError as error:
                    words = error.message
                    (later if _again(error) else failed).append(one)
            todo = later
            if todo and not await _later(self._options.poll, self._end):
                failed += todo
                break
        if failed:
            self.left.append(f"{len(failed)} {what} ({words})")
        return failed


@asynccontextmanager
async def _opened(
    name: str, options: Options, again: Callable[[], Awaitable[bool]] | None = None
) -> AsyncIterator[Adapter]:
    """`again`: asked where trying once more may help."""
    while True:
        adapter = Adapter(name, options)
        adapter.only_look()
        try:
            try:
                await adapter.open()
            except BridgeError as error:
                if again is None or not (_again(error) and await again()):
                    raise
                continue
            yield adapter
            return
        finally:
            with contextlib.suppress(KeyError):
                await adapter.close()


async def _running(adapter: Adapter) -> list[str]:
    """The ARNs of its owner's tasks that nobody has stopped."""
    return list(await _owned(adapter, await adapter._tasks._listed(desiredStatus="RUNNING")))


async def _owned(adapter: Adapter, arns: Iterable[str]) -> dict[str, Json]:
    """Those of them that are its owner's, by ARN."""
    prefix = f"{adapter._options.owner}/"
    found = await adapter._tasks.describe(sorted(arns))
    return {
        arn: one for arn, one in found.items() if str(one.get("startedBy", "")).startswith(prefix)
    }
