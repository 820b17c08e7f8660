"""AWS's clients: boto3 in a bounded number of threads, each API family in its budget."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore import exceptions as sdk
from botocore.config import Config
from botocore.parsers import ResponseParserError

from adapters.fargate.errors import translated
from bridge.adapter import Rate
from bridge.bucket import Bucket
from bridge.errors import Throttled

FAMILIES: Mapping[str, Rate] = {
    "definitions": Rate(1, 20),
    "describe-definition": Rate(20, 50),
    "tasks": Rate(40, 100),
    # Nothing but launches takes of these, and what is refused launches nothing.
    "run": Rate(20, 20, share=0.95),
    "read-tasks": Rate(20, 100),
    "read-logs": Rate(10, 10),
}
"""The documented limits of an account and region ("Request throttling for the Amazon ECS API",
"AWS Fargate throttling quotas", "CloudWatch Logs quotas", the lowest region)."""

_BUDGETS: Mapping[str, tuple[str, ...]] = {
    "register_task_definition": ("definitions",),
    "describe_task_definition": ("describe-definition",),
    "run_task": ("tasks", "run"),
    "stop_task": ("tasks",),
    "execute_command": ("tasks",),
    "describe_tasks": ("read-tasks",),
    "list_tasks": ("read-tasks",),
    "get_log_events": ("read-logs",),
}
_READS = ("describe", "list", "get", "head", "receive")
CONNECT, READ = 10.0, 30.0
"""Seconds for a connection, and for an answer."""
SIMULATED = "simulated"
"""The credentials for a simulator on this host."""
LONG_POLL = 5
"""Seconds that SQS may take to answer where nothing has happened; nobody closes sooner."""


@dataclass(frozen=True, slots=True)
class Object:
    """An object of S3."""

    content: bytes = field(repr=False)
    tag: str


class Clients:
    """All clients of one backend. Calls raise only our own errors."""

    def __init__(self, region: str, endpoint: str, threads: int) -> None:
        # The SDK itself knows only the second; the AWS CLI and the other SDKs know the first too.
        self._region = region or os.environ.get("AWS_REGION") or None
        self._endpoint = endpoint or None
        self._count = threads
        self._threads = ThreadPoolExecutor(threads, "fargate")
        # Who waits for the queue must hold up nobody else.
        self._waiting = ThreadPoolExecutor(1, "fargate queue")
        self._clients: dict[str, Any] = {}
        self._session: Any = None
        self.prepare: Callable[[Any], None] = lambda session: None
        """Is given the SDK's session before it makes a client: for who listens to its events."""
        self._lock = asyncio.Lock()
        self._buckets = {name: Bucket(rate) for name, rate in FAMILIES.items()}

    @property
    def region(self) -> str:
        """The region in use, once a client was made."""
        return str(self._clients["ecs"].meta.region_name)

    async def call(self, service: str, action: str, **given: Any) -> dict[str, Any]:
        """One call, within its family's budget.

        Raises Throttled, Unauthorized, NotFound, Conflict, OutOfCapacity, QuotaExceeded, Refused,
        Unavailable, and Ambiguous where it may have been done.
        """
        return dict(await self._call(service, action, given))

    async def read_object(self, **given: Any) -> Object:
        """s3:GetObject, with its content. Errors as of `call`."""

        def read(answer: dict[str, Any]) -> Object:
            with answer["Body"] as body:
                return Object(body.read(), str(answer["ETag"]))

        found: Object = await self._call("s3", "get_object", given, read)
        return found

    async def _call(
        self,
        service: str,
        action: str,
        given: Mapping[str, Any],
        then: Callable[[dict[str, Any]], Any] = dict,
    ) -> Any:
        client = await self._client(service)
        method = getattr(client, action)
        buckets = [self._buckets[name] for name in _BUDGETS.get(action, ()) if service in _PACED]
        for one in buckets:
            await one.take()
        pool = self._waiting if action == "receive_message" else self._threads
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(pool, lambda: then(method(**given)))
        except (sdk.ClientError, sdk.BotoCoreError, ResponseParserError) as error:
            found = translated(error, _shown(service, action), changes=_changes(action))
            if isinstance(found, Throttled):
                for one in buckets:
                    one.throttled()
            raise found from None

    async def _client(self, service: str) -> Any:
        if (found := self._clients.get(service)) is not None:
            return found
        async with self._lock:
            if service not in self._clients:
                loop = asyncio.get_running_loop()
                try:
                    made = await loop.run_in_executor(self._threads, self._make, service)
                except (sdk.BotoCoreError, ValueError) as error:
                    raise translated(error, service, changes=False) from None
                self._clients[service] = made
        return self._clients[service]

    def _make(self, service: str) -> Any:
        if self._session is None:
            self._session = boto3.session.Session(
                region_name=self._region, **credentials(self._endpoint)
            )
            self.prepare(self._session)
        # ECS is retried here, where the budgets are and where it is known what may be repeated.
        attempts = 1 if service == "ecs" else 3
        config = Config(
            connect_timeout=CONNECT,
            read_timeout=READ,
            max_pool_connections=self._count + 1,
            retries={"total_max_attempts": attempts, "mode": "standard"},
            s3={"addressing_style": "path"} if self._endpoint else {},
            user_agent_extra="podbridge",
        )
        return self._session.client(service, endpoint_url=self._endpoint, config=config)

    async def close(self) -> None:
        """Lets go of connections and threads."""
        loop = asyncio.get_running_loop()
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        for pool in (self._threads, self._waiting):
            end = partial(pool.shutdown, wait=True, cancel_futures=True)
            await loop.run_in_executor(None, end)


_PACED = frozenset({"ecs", "logs"})
_THIS_HOST = frozenset({"127.0.0.1", "localhost", "::1"})


def credentials(endpoint: str | None = None) -> dict[str, str]:
    """Real ones never reach a simulator on this host, whether `endpoint` or AWS_ENDPOINT_URL leads
    there; else it is the SDK's own chain that finds them."""
    parts = urlsplit(endpoint or os.environ.get("AWS_ENDPOINT_URL") or "")
    if parts.scheme != "http" or parts.hostname not in _THIS_HOST:
        return {}
    return {"aws_access_key_id": SIMULATED, "aws_secret_access_key": SIMULATED}


def _changes(action: str) -> bool:
    return not action.startswith(_READS)


def _shown(service: str, action: str) -> str:
    """`ecs.run_task` as AWS writes it."""
    return f"{service}:{''.join(word.title() for word in action.split('_'))}"
