"""ExecuteCommand: a new process, with a terminal, in a container that runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping

from adapters.simulators.aws.ecs.clusters import Clusters
from adapters.simulators.aws.ecs.records import ContainerRecord, Task
from adapters.simulators.aws.ecs.refusals import invalid
from adapters.simulators.aws.ecs.tasks import Tasks
from adapters.simulators.aws.ecs.workloads import identity_of
from adapters.simulators.aws.ecs.world import World
from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.service import Handler
from adapters.simulators.aws.sessions import Sessions
from adapters.simulators.aws.shapes import Json
from bridge.adapter import Channel

NOT_ENABLED = (
    "The execute command failed because execute command was not enabled when the task was run or"
    " the execute command agent isn\u2019t running. Wait and try again or run a new task with"
    " execute command enabled and try again."
)


class Commands:
    """ECS Exec. `base` says where this server is."""

    def __init__(
        self, clusters: Clusters, tasks: Tasks, world: Callable[[], World], base: Callable[[], str]
    ) -> None:
        self._clusters = clusters
        self._tasks = tasks
        self._world = world
        self._base = base
        self.sessions = Sessions(world().clock)

    @property
    def operations(self) -> Mapping[str, Handler]:
        """Those of ECS that run commands."""
        return {"ExecuteCommand": self._execute}

    def _execute(self, given: Json) -> Json:
        cluster = self._clusters.find(given.get("cluster"))
        task = self._tasks.find(given["task"])
        if task is None or task.cluster_arn != cluster.arn:
            raise invalid("The referenced task was not found.")
        if not given["interactive"]:
            raise invalid("Interactive is the only mode supported currently.")
        if not task.execute_command:
            raise invalid(NOT_ENABLED)
        container = _container(task, given.get("container"))
        if container.last_status != "RUNNING" or task.last_status != "RUNNING":
            raise ApiError("TargetNotConnectedException", NOT_ENABLED)
        command = shlex.split(given["command"])
        if not command:
            raise invalid("The command must not be empty.")
        return {
            "clusterArn": cluster.arn,
            "containerArn": container.arn,
            "containerName": container.name,
            "interactive": True,
            "session": self.sessions.offer(
                lambda: self._open(task, container.name, command), self._base()
            ),
            "taskArn": task.arn,
        }

    async def _open(self, task: Task, container: str, command: list[str]) -> Channel:
        world = self._world()
        return await world.runner.terminal(identity_of(task, world.owner), container, command)


def _container(task: Task, name: str | None) -> ContainerRecord:
    if name is None and len(task.containers) > 1:
        raise invalid("A container name must be given where the task has several containers.")
    for one in task.containers:
        if name in (None, one.name):
            return one
    raise invalid(f"The container {name} is not in the task.")
