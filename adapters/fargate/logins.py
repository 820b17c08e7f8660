"""Logins for registries in Secrets Manager: one secret for all pods with the same login."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping

from adapters.fargate import names
from adapters.fargate.clients import Clients
from adapters.fargate.errors import Conflict
from adapters.fargate.names import Json
from adapters.fargate.options import Options
from bridge.errors import NotFound
from bridge.registry import logins, parse
from bridge.workload import PullCredential, Workload


class Logins:
    """The secrets of one owner, and which pods use them. `key` goes into their names."""

    def __init__(self, clients: Clients, options: Options) -> None:
        self._clients = clients
        self._owner = options.owner
        self._kms: Json = {"KmsKeyId": options.kms_key} if options.kms_key else {}
        self._users: dict[str, set[str]] = {}
        self._made: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def needed(
        self, workload: Workload, images: Mapping[str, str], mark: str, key: bytes
    ) -> Mapping[str, str]:
        """The names of the secrets that the pod's containers need, by container; they are there
        then, and stay until the pod lets go of them."""
        found: dict[str, str] = {}
        for one in workload.containers:
            fitting = logins(parse(images[one.name]).repository, workload.pull_credentials)
            if fitting:
                found[one.name] = name = names.secret(self._owner, key, fitting[0])
                await self._make(name, fitting[0], mark)
        return found

    def used(self, secrets: Iterable[str], mark: str) -> None:
        """That pod uses them."""
        for name in secrets:
            self._users.setdefault(name, set()).add(mark)

    def of(self, mark: str) -> set[str]:
        """What that pod is known to use."""
        return {name for name, users in self._users.items() if mark in users}

    async def _make(self, name: str, login: PullCredential, mark: str) -> None:
        async with self._locks[name]:
            self.used([name], mark)
            if name in self._made:
                return
            text = json.dumps({"username": login.username, "password": login.password})
            # One that is there has the same content: its name says so.
            with contextlib.suppress(Conflict):
                await self._clients.call(
                    "secretsmanager", "create_secret", Name=name, SecretString=text, **self._kms
                )
            self._made.add(name)

    def is_last(self, secrets: Iterable[str], mark: str) -> bool:
        """Whether nobody else is known to use one of them."""
        return any(self._users.get(name, set()) <= {mark} for name in secrets)

    async def release(self, secrets: Iterable[str], mark: str) -> None:
        """The pod is gone: what it was the last to use is deleted for good."""
        for name in secrets:
            async with self._locks[name]:
                users = self._users.get(name, set())
                users.discard(mark)
                if users:
                    continue
                self._made.discard(name)
                with contextlib.suppress(NotFound):
                    await self._clients.call(
                        "secretsmanager",
                        "delete_secret",
                        SecretId=name,
                        ForceDeleteWithoutRecovery=True,
                    )
                self._users.pop(name, None)
