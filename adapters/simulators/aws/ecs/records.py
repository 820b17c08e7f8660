"""What ECS knows of a task, and how DescribeTasks and the state change event tell it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters.simulators.aws.network import Interface
from adapters.simulators.aws.shapes import Json
from adapters.simulators.common import timestamps

PLATFORM = "1.4.0"
"""What LATEST is for Linux."""
MAX_REASON = 1024
_MOMENTS = (
    "createdAt",
    "connectivityAt",
    "pullStartedAt",
    "pullStoppedAt",
    "startedAt",
    "stoppingAt",
    "executionStoppedAt",
    "stoppedAt",
)


@dataclass(slots=True)
class ContainerRecord:
    """One container of a task."""

    definition: Json
    """As registered, with the launch's overrides applied."""
    arn: str
    last_status: str = "PENDING"
    exit_code: int | None = None
    reason: str = ""
    runtime_id: str = ""
    image_digest: str = ""
    health: str = "UNKNOWN"
    started: float = 0.0
    """When it began to run; 0: it has not."""

    @property
    def name(self) -> str:
        """Its name in the task definition."""
        return str(self.definition["name"])

    @property
    def essential(self) -> bool:
        """Whether the task ends with it."""
        return bool(self.definition.get("essential", True))

    def stop(self, code: int | None, reason: str = "") -> None:
        """It has ended, or never started."""
        self.last_status = "STOPPED"
        self.exit_code = code
        self.reason = reason[:MAX_REASON]


@dataclass(slots=True)
class Task:
    """One task. `serial` orders tasks by their creation."""

    id: str
    serial: int
    arn: str
    cluster_arn: str
    definition: Json
    overrides: Json
    cpu: int
    memory: int
    interface: Interface
    containers: list[ContainerRecord]
    provider: str = ""
    """FARGATE or FARGATE_SPOT where a strategy chose; empty: launchType FARGATE."""
    started_by: str = ""
    group: str = ""
    tags: list[Json] = field(default_factory=list)
    execute_command: bool = False
    storage: int = 20
    """GiB."""
    last_status: str = "PROVISIONING"
    desired_status: str = "RUNNING"
    version: int = 1
    stop_code: str = ""
    stopped_reason: str = ""
    moments: dict[str, float] = field(default_factory=dict)
    hidden_until: float = 0.0
    """Until then no list and no description shows it (eventual consistency)."""
    vanished: bool = False
    stop_wanted: asyncio.Event = field(default_factory=asyncio.Event)
    fate: Mapping[str, float] = field(default_factory=dict)
    """What was asked to go wrong with it: kind to seconds."""
    reclaimed: asyncio.Event = field(default_factory=asyncio.Event)
    """Its Spot capacity is wanted back."""
    taken_away: asyncio.Event = field(default_factory=asyncio.Event)
    """It is to vanish."""

    @property
    def is_spot(self) -> bool:
        """Whether it may be reclaimed."""
        return self.provider == "FARGATE_SPOT"

    @property
    def family(self) -> str:
        """Its definition's."""
        return str(self.definition["family"])

    def container(self, name: str) -> ContainerRecord:
        """By its name; StopIteration where there is none."""
        return next(one for one in self.containers if one.name == name)

    def ask_to_stop(self, code: str, reason: str, now: float) -> None:
        """The first who asks gives the reason."""
        if self.stop_wanted.is_set():
            return
        self.desired_status = "STOPPED"
        self.stop_code = self.stop_code or code
        self.stopped_reason = self.stopped_reason or reason
        self.moments.setdefault("stoppingAt", now)
        self.stop_wanted.set()


def describe(task: Task, *, with_tags: bool = False) -> Json:
    """The task as the model's shape Task has it."""
    answer: Json = {
        "attachments": [task.interface.attachment("ElasticNetworkInterface")],
        "attributes": [{"name": "ecs.cpu-architecture", "value": _architecture(task)}],
        "availabilityZone": task.interface.zone,
        "clusterArn": task.cluster_arn,
        "containers": [_container(task, one) for one in task.containers],
        "cpu": str(task.cpu),
        "desiredStatus": task.desired_status,
        "enableExecuteCommand": task.execute_command,
        "ephemeralStorage": {"sizeInGiB": task.storage},
        "fargateEphemeralStorage": {"sizeInGiB": task.storage},
        "group": task.group,
        "healthStatus": _health(task),
        "lastStatus": task.last_status,
        "launchType": "FARGATE",
        "memory": str(task.memory),
        "overrides": task.overrides,
        "platformFamily": "Linux",
        "platformVersion": PLATFORM,
        "taskArn": task.arn,
        "taskDefinitionArn": task.definition["taskDefinitionArn"],
        "version": task.version,
        **task.moments,
    }
    if "connectivityAt" in task.moments:
        answer["connectivity"] = "CONNECTED"
    optional = {
        "capacityProviderName": task.provider,
        "startedBy": task.started_by,
        "stopCode": task.stop_code,
        "stoppedReason": task.stopped_reason,
    }
    answer |= {name: value for name, value in optional.items() if value}
    if with_tags and task.tags:
        answer["tags"] = task.tags
    return answer


def _architecture(task: Task) -> str:
    platform = task.definition.get("runtimePlatform", {})
    return "arm64" if platform.get("cpuArchitecture") == "ARM64" else "x86_64"


def _health(task: Task) -> str:
    """UNHEALTHY where one essential container is, HEALTHY where all that have checks are."""
    found = {one.health for one in task.containers if one.essential and _has_check(one)}
    for status in ("UNHEALTHY", "UNKNOWN", "HEALTHY"):
        if status in found:
            return status
    return "UNKNOWN"


def _has_check(one: ContainerRecord) -> bool:
    return "healthCheck" in one.definition


def _container(task: Task, one: ContainerRecord) -> Json:
    answer: Json = {
        "containerArn": one.arn,
        "taskArn": task.arn,
        "name": one.name,
        "image": one.definition["image"],
        "lastStatus": one.last_status,
        "networkInterfaces": task.interface.of_container(),
        "healthStatus": one.health,
        "cpu": str(one.definition.get("cpu", 0)),
    }
    for name in ("memory", "memoryReservation"):
        if name in one.definition:
            answer[name] = str(one.definition[name])
    optional: dict[str, Any] = {
        "runtimeId": one.runtime_id,
        "imageDigest": one.image_digest,
        "reason": one.reason,
    }
    answer |= {name: value for name, value in optional.items() if value}
    if one.exit_code is not None:
        answer["exitCode"] = one.exit_code
    if task.execute_command:
        answer["managedAgents"] = [_agent(one)]
    return answer


def _agent(one: ContainerRecord) -> Json:
    status = one.last_status if one.last_status in ("RUNNING", "STOPPED") else "PENDING"
    answer: Json = {"name": "ExecuteCommandAgent", "lastStatus": status}
    return {**answer, "lastStartedAt": one.started} if one.started else answer


def event_detail(task: Task, now: float) -> Json:
    """The `detail` of "ECS Task State Change": like a Task, with ISO timestamps, attachment type
    `eni`, and no health."""
    detail = describe(task)
    for name in _MOMENTS:
        if name in detail:
            detail[name] = timestamps.iso(detail[name])
    detail.pop("healthStatus")
    for one in detail["containers"]:
        one.pop("healthStatus")
        for agent in one.get("managedAgents", ()):
            if "lastStartedAt" in agent:
                agent["lastStartedAt"] = timestamps.iso(agent["lastStartedAt"])
    detail["attachments"] = [task.interface.attachment("eni")]
    detail["updatedAt"] = timestamps.iso(now)
    return detail
