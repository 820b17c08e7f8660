"""Task definitions by their content: registered once, found again after a restart."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from adapters.fargate import names
from adapters.fargate.clients import Clients
from adapters.fargate.names import Json
from bridge.errors import NotFound

_log = logging.getLogger(__name__)

_CONTENT = (
    "taskRoleArn", "executionRoleArn", "networkMode", "containerDefinitions", "volumes",
    "requiresCompatibilities", "cpu", "memory", "pidMode", "ipcMode", "runtimePlatform",
    "ephemeralStorage",
)  # fmt: skip
"""What of a description is what was registered; the rest is ECS's own."""


_FILLED_IN = frozenset({"essential", "hostPort", "protocol"})
"""What ECS fills in by itself, besides what is empty or nothing."""


def says(found: Any, wanted: Any) -> bool:
    """Whether a description says what was registered, and nothing of its own. Pure."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            says(found.get(key), wanted[key]) if wanted.get(key) else not found.get(key)
            for key in {*wanted, *found} - (_FILLED_IN - wanted.keys())
        )
    if isinstance(wanted, list | tuple):
        return (
            isinstance(found, list) and len(found) == len(wanted) and all(map(says, found, wanted))
        )
    return bool(found == wanted)


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
                self._known[family] = await self._found(family, document) or await self._registered(
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
                self._known[family] = await self._found(family, document) or await self._registered(
                    family, document
                )
        self._locks.pop(family, None)
        return self._known[family]

    async def _found(self, family: str, document: Json) -> str:
        """The newest of a family, where it says the same: anybody in the account may register one
        under that name. Empty: there is none."""
        try:
            answer = await self._clients.call(
                "ecs", "describe_task_definition", taskDefinition=family
            )
        except NotFound:
            return ""
        said = answer["taskDefinition"]
        if not says({name: said[name] for name in _CONTENT if said.get(name)}, document):
            _log.warning("%s: it is not what its name says, and is not used", family)
            return ""
        return str(said["taskDefinitionArn"])

    async def _registered(self, family: str, document: Json) -> str:
        tags: Json = {"tags": self._tags} if self._tags else {}
        answer = await self._clients.call(
            "ecs", "register_task_definition", family=family, **document, **tags
        )
        return str(answer["taskDefinition"]["taskDefinitionArn"])
