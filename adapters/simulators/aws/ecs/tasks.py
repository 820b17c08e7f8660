"""Tasks: RunTask, DescribeTasks, ListTasks, StopTask."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from adapters.simulators.aws import paging
from adapters.simulators.aws.buckets import Buckets
from adapters.simulators.aws.ecs import launches
from adapters.simulators.aws.ecs.clusters import Cluster, Clusters
from adapters.simulators.aws.ecs.definitions import Definition, Definitions
from adapters.simulators.aws.ecs.idempotency import Tokens
from adapters.simulators.aws.ecs.lifecycle import Life
from adapters.simulators.aws.ecs.records import ContainerRecord, Task, describe
from adapters.simulators.aws.ecs.refusals import invalid
from adapters.simulators.aws.ecs.workloads import overridden
from adapters.simulators.aws.ecs.world import World
from adapters.simulators.aws.faults import Faults
from adapters.simulators.aws.service import Handler
from adapters.simulators.aws.settings import Settings
from adapters.simulators.aws.shapes import Json
from adapters.simulators.common.names import hex_id, uuid_id

_logger = logging.getLogger(__name__)

NO_CAPACITY = (
    "Capacity is unavailable at this time. Please try again later or in a different availability"
    " zone"
)
NO_QUOTA = "You\u2019ve reached the limit on the number of vCPUs you can run concurrently"
_FILTERS = (
    "family",
    "containerInstance",
    "serviceName",
    "desiredStatus",
    "launchType",
    "daemonName",
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What tasks are made from."""

    clusters: Clusters
    definitions: Definitions
    buckets: Buckets
    faults: Faults
    settings: Settings
    mistakes: list[str]
    """Where a task's trouble that nobody has foreseen is told."""


class Tasks:
    """All tasks that can be described."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._made = 0

    def connect(self, parts: Parts, world: Callable[[], World]) -> None:
        """Gives it the rest of the account, which counts tasks and so needs them first."""
        self._parts = parts
        self._world = world
        self._tokens = Tokens(world().clock)

    @property
    def operations(self) -> Mapping[str, Handler]:
        """Those of ECS that are about tasks."""
        return {
            "RunTask": self.run,
            "DescribeTasks": self.describe,
            "ListTasks": self.list_arns,
            "StopTask": self.stop,
        }

    async def close(self) -> None:
        """Ends all lives; what ran is removed."""
        lives = list(self._lives.values())
        for one in lives:
            one.cancel()
        await asyncio.gather(*lives, return_exceptions=True)

    def count(self, cluster_arn: str) -> tuple[int, int]:
        """How many of a cluster's tasks run, and how many are on their way to it."""
        of_cluster = [one for one in self._tasks.values() if one.cluster_arn == cluster_arn]
        running = sum(one.last_status == "RUNNING" for one in of_cluster)
        waiting = ("PROVISIONING", "PENDING", "ACTIVATING")
        return running, sum(one.last_status in waiting for one in of_cluster)

    def find(self, name: str) -> Task | None:
        """By ID or ARN, of those that are seen at all."""
        task = self._tasks.get(name.rpartition("/")[2])
        now = self._world().clock.now()
        return task if task and not task.vanished and task.hidden_until <= now else None

    def run(self, given: Json) -> Json:
        """RunTask: answers before anything has started."""
        launches.check_call(given)
        cluster = self._parts.clusters.find(given.get("cluster"))
        found = self._parts.definitions.find(given["taskDefinition"])
        definition = launches.check_definition(found)
        launches.check_against(given, definition.content)
        self._world().network.check(given["networkConfiguration"]["awsvpcConfiguration"])
        earlier = self._tokens.earlier(cluster.name, given)
        if earlier is not None:
            return {"tasks": [describe(one, with_tags=True) for one in earlier], "failures": []}
        chosen = launches.providers(given, cluster)
        spot = chosen.count("FARGATE_SPOT")
        wanted = {"fargate-launches": len(chosen) - spot, "fargate-spot-launches": spot}
        self._parts.buckets.take({name: float(n) for name, n in wanted.items() if n})
        tasks, failures = [], []
        for provider in chosen:
            made = self._launch(given, cluster, definition, provider)
            if isinstance(made, Task):
                tasks.append(made)
            else:
                failures.append({"reason": made})
        self._tokens.note(cluster.name, given, tasks)
        return {"tasks": [describe(one, with_tags=True) for one in tasks], "failures": failures}

    def _launch(
        self, given: Json, cluster: Cluster, definition: Definition, provider: str
    ) -> Task | str:
        """The task, on its way; or why there is none."""
        faults: dict[str, float] = {one.kind: one.seconds for one in self._parts.faults.of_task()}
        if "no-capacity" in faults:
            return NO_CAPACITY
        overrides = given.get("overrides", {})
        cpu, memory = launches.size_of(definition.content, overrides)
        if self._vcpus(provider == "FARGATE_SPOT") + cpu / 1024 > self._quota(provider):
            return NO_QUOTA
        task = self._make(given, cluster, definition, (cpu, memory))
        task.provider = provider
        task.fate = faults
        clock = self._world().clock
        task.hidden_until = clock.now() + clock.real(faults.get("stale", 0.0))
        self._tasks[task.id] = task
        life = asyncio.create_task(self._live(task), name=f"task {task.id}")
        self._lives[task.id] = life
        for kind, seconds in faults.items():
            self._later(task, kind, seconds)
        self._world().changed(task)
        return task

    def befall(self, name: str, kind: str, seconds: float) -> bool:
        """Lets `spot-reclaim` or `vanish` happen to a task that is there; False: it is not."""
        task = self.find(name)
        if task is not None:
            self._later(task, kind, seconds)
        return task is not None

    def _later(self, task: Task, kind: str, seconds: float) -> None:
        event = {"spot-reclaim": task.reclaimed, "vanish": task.taken_away}.get(kind)
        if event is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(self._world().clock.real(seconds), event.set)

    def _make(
        self, given: Json, cluster: Cluster, definition: Definition, size: tuple[int, int]
    ) -> Task:
        world, content = self._world(), definition.content
        overrides = given.get("overrides", {})
        by_name = {one.get("name"): one for one in overrides.get("containerOverrides", ())}
        id_ = hex_id()
        self._made += 1
        subnets = given["networkConfiguration"]["awsvpcConfiguration"]["subnets"]
        containers = [
            ContainerRecord(
                overridden(one, by_name.get(one["name"], {})),
                world.place.arn("ecs", f"container/{cluster.name}/{id_}/{uuid_id()}"),
            )
            for one in content["containerDefinitions"]
        ]
        storage = overrides.get("ephemeralStorage") or content.get("ephemeralStorage", {})
        return Task(
            id=id_,
            serial=self._made,
            arn=world.place.arn("ecs", f"task/{cluster.name}/{id_}"),
            cluster_arn=cluster.arn,
            definition=content,
            overrides=_shown_overrides(overrides, content),
            cpu=size[0],
            memory=size[1],
            interface=world.network.interface(subnets),
            containers=containers,
            started_by=given.get("startedBy", ""),
            group=given.get("group", f"family:{definition.family}"),
            tags=_tags(given, cluster, definition),
            execute_command=given.get("enableExecuteCommand", False),
            storage=storage.get("sizeInGiB", 20),
            moments={"createdAt": world.clock.now()},
        )

    def _quota(self, provider: str) -> float:
        settings = self._parts.settings
        spot = provider == "FARGATE_SPOT"
        return settings.fargate_spot_vcpus if spot else settings.fargate_vcpus

    def _vcpus(self, spot: bool) -> float:
        using = [one for one in self._tasks.values() if one.last_status != "STOPPED"]
        return sum(one.cpu for one in using if one.is_spot == spot and not one.vanished) / 1024

    async def _live(self, task: Task) -> None:
        try:
            await Life(task, self._world()).run()
            await self._world().clock.sleep(self._parts.settings.timing.retention)
            self._tasks.pop(task.id, None)
        except Exception as error:
            # One task's trouble ends with it, but never silently.
            self._parts.mistakes.append(f"task {task.id}: {error!r}")
            _logger.exception("task %s", task.id)
            raise
        finally:
            self._lives.pop(task.id, None)

    def describe(self, given: Json) -> Json:
        """DescribeTasks."""
        cluster = self._parts.clusters.find(given.get("cluster"))
        names = given["tasks"]
        if not 1 <= len(names) <= 100:
            raise invalid("Tasks must have between 1 and 100 elements.")
        with_tags = "TAGS" in given.get("include", ())
        tasks, failures = [], []
        for name in names:
            task = self.find(name)
            if task is None or task.cluster_arn != cluster.arn:
                arn = self._world().place.arn(
                    "ecs", f"task/{cluster.name}/{name.rpartition('/')[2]}"
                )
                failures.append({"arn": arn, "reason": "MISSING"})
            else:
                tasks.append(describe(task, with_tags=with_tags))
        return {"tasks": tasks, "failures": failures}

    def list_arns(self, given: Json) -> Json:
        """ListTasks: by creation, 100 a page."""
        cluster = self._parts.clusters.find(given.get("cluster"))
        used = [name for name in _FILTERS if name in given]
        if "startedBy" in given and used:
            raise invalid(f"startedBy must be the only filter, found also {', '.join(used)}.")
        size = given.get("maxResults", 100)
        if not 1 <= size <= 100:
            raise invalid(f"maxResults must be between 1 and 100, found {size}.")
        after = paging.read(given["nextToken"], invalid) if "nextToken" in given else 0
        found = [
            one
            for one in self._tasks.values()
            if one.cluster_arn == cluster.arn
            and one.serial > after
            and self.find(one.id) is one
            and _matches(one, given)
        ]
        shown = found[:size]
        answer: Json = {"taskArns": [one.arn for one in shown]}
        if len(found) > size:
            answer["nextToken"] = paging.write(shown[-1].serial)
        return answer

    def stop(self, given: Json) -> Json:
        """StopTask: erases the task's tags."""
        cluster = self._parts.clusters.find(given.get("cluster"))
        task = self.find(given["task"])
        if task is None or task.cluster_arn != cluster.arn:
            raise invalid("The referenced task was not found.")
        task.tags.clear()
        reason = given.get("reason", "Task stopped by user")
        task.ask_to_stop("UserInitiated", reason, self._world().clock.now())
        return {"task": describe(task, with_tags=True)}


def _matches(task: Task, given: Json) -> bool:
    if "startedBy" in given:
        # By documentation the default filter of desiredStatus RUNNING applies here too.
        return task.started_by == given["startedBy"] and task.desired_status == "RUNNING"
    return (
        task.desired_status == given.get("desiredStatus", "RUNNING")
        and task.family == given.get("family", task.family)
        and given.get("launchType", "FARGATE") == "FARGATE"
        and not given.keys() & {"containerInstance", "serviceName", "daemonName"}
    )


def _shown_overrides(overrides: Json, definition: Json) -> Json:
    """As DescribeTasks has them: every container is named."""
    shown: Json = json.loads(json.dumps(overrides))
    given = {one.get("name"): one for one in shown.get("containerOverrides", ())}
    names = [one["name"] for one in definition["containerDefinitions"]]
    shown["containerOverrides"] = [given.get(name, {"name": name}) for name in names]
    shown.setdefault("inferenceAcceleratorOverrides", [])
    return shown


def _tags(given: Json, cluster: Cluster, definition: Definition) -> list[Json]:
    tags: dict[str, str] = {}
    if given.get("propagateTags") == "TASK_DEFINITION":
        tags |= {one["key"]: one.get("value", "") for one in definition.tags}
    tags |= {one["key"]: one.get("value", "") for one in given.get("tags", ())}
    if given.get("enableECSManagedTags"):
        tags["aws:ecs:clusterName"] = cluster.name
    return [{"key": key, "value": value} for key, value in tags.items()]
