"""Tasks as ECS tells of them, by hundreds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from adapters.fargate.clients import Clients
from adapters.fargate.names import Json

_BATCH = 100
"""Tasks that one call describes."""


class Tasks:
    """The tasks of one cluster. Errors as of the clients' calls."""

    def __init__(self, clients: Clients, cluster: str) -> None:
        self._clients = clients
        self._cluster = cluster

    async def describe(self, arns: Sequence[str]) -> Mapping[str, Json]:
        """By ARN, of those that ECS has; it is silent of the others."""
        batches = [list(arns[at : at + _BATCH]) for at in range(0, len(arns), _BATCH)]
        found: dict[str, Json] = {}
        for answer in await asyncio.gather(*map(self._batch, batches)):
            found |= {one["taskArn"]: one for one in answer["tasks"]}
        return found

    async def _batch(self, arns: list[str]) -> Json:
        return await self._clients.call("ecs", "describe_tasks", cluster=self._cluster, tasks=arns)

    async def all(self) -> set[str]:
        """The ARNs of everything in the cluster that can still be described."""
        running, stopped = await asyncio.gather(
            self._listed(desiredStatus="RUNNING"), self._listed(desiredStatus="STOPPED")
        )
        return {*running, *stopped}

    async def started_by(self, who: str) -> Sequence[str]:
        """The ARNs of what `startedBy` names and nobody has stopped."""
        # As a filter it must be the only one; what has stopped is then left out.
        return await self._listed(startedBy=who)

    async def _listed(self, **which: str) -> Sequence[str]:
        found: list[str] = []
        more: dict[str, str] = {}
        while True:
            answer = await self._clients.call(
                "ecs", "list_tasks", cluster=self._cluster, maxResults=_BATCH, **which, **more
            )
            found += answer["taskArns"]
            if not answer.get("nextToken"):
                return found
            more = {"nextToken": answer["nextToken"]}

    async def run(self, request: Json) -> Json:
        """RunTask's answer."""
        return await self._clients.call("ecs", "run_task", cluster=self._cluster, **request)

    async def stop(self, arn: str, reason: str) -> None:
        """Begins to end a task: its containers' stop signal, then `stopTimeout`, then SIGKILL."""
        await self._clients.call("ecs", "stop_task", cluster=self._cluster, task=arn, reason=reason)
