"""Task definitions by their content: registered once, found again after a restart."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping

from adapters.fargate import names
from adapters.fargate.clients import Clients
from adapters.fargate.names import Json
from bridge.errors import NotFound

_CONTENT = (
    "taskRoleArn", "executionRoleArn", "networkMode", "containerDefinitions", "volumes",
    "requiresCompatibilities", "cpu", "memory", "pidMode", "ipcMode", "runtimePlatform",
    "ephemeralStorage",
)  # fmt: skip
"""What of a description is what was registered; the rest is ECS's own."""


class Definitions:
    """One owner's families. None is ever deregistered: an account registers one a second."""

    def __init__(self, clients: Clients, owner: str, tags: Mapping[str, str]) -> None:
        self._clients = clients
        self._owner = owner
        self._tags = [{"key": key, "value": value} for key, value in tags.items()]
        self._known: dict[str, str] = {}
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def arn(self, document: Json) -> str:
        """The ARN of the definition that says this. Errors as of the clients' calls."""
        family = names.family(self._owner, document)
        # One asks, and registers; all others wait for that.
        async with self._locks[family]:
            if family not in self._known:
                self._known[family] = await self._found(family) or await self._registered(
                    family, document
                )
        self._locks.pop(family, None)
        return self._known[family]

    async def revived(self, arn: str) -> str:
        """The ARN of an active definition that says what this one says, which somebody else has
        deregistered. Errors as of the clients' calls."""
        answer = await self._clients.call("ecs", "describe_task_definition", taskDefinition=arn)
        said = answer["taskDefinition"]
        family = str(said["family"])
        async with self._locks[family]:
            # Whoever came first has done it for all.
            if self._known.get(family, arn) == arn:
                document = {name: said[name] for name in _CONTENT if said.get(name)}
                self._known[family] = await self._found(family) or await self._registered(
                    family, document
                )
        self._locks.pop(family, None)
        return self._known[family]

    async def _found(self, family: str) -> str:
        try:
            answer = await self._clients.call(
                "ecs", "describe_task_definition", taskDefinition=family
            )
        except NotFound:
            return ""
        return str(answer["taskDefinition"]["taskDefinitionArn"])

    async def _registered(self, family: str, document: Json) -> str:
        tags: Json = {"tags": self._tags} if self._tags else {}
        answer = await self._clients.call(
            "ecs", "register_task_definition", family=family, **document, **tags
        )
        return str(answer["taskDefinition"]["taskDefinitionArn"])
