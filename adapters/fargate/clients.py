"""AWS's clients: boto3 in a bounded number of threads, each API family in its budget.

Temporary credentials in a file, or in a variable's file, are replaced by whoever refreshes them.
The SDK does not look again, so it is done here once they are refused.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from botocore import exceptions as sdk
from botocore.config import Config
from botocore.parsers import ResponseParserError

from adapters.fargate.errors import translated
from adapters.fargate.generation import Generation, is_stale
from bridge.adapter import Rate
from bridge.bucket import Budgets
from bridge.groups.skew import Skew

_log = logging.getLogger(__name__)

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
_AGAIN = 3.0
"""Seconds between two looks for other credentials than those that were refused."""


@dataclass(frozen=True, slots=True)
class Object:
    """An object of S3."""

    content: bytes = field(repr=False)
    tag: str


class Clients:
    """All clients of one backend. Calls raise only our own errors."""

    def __init__(
        self,
        region: str,
        endpoint: str,
        threads: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        # The SDK itself knows only the second; the AWS CLI and the other SDKs know the first too.
        self._region = region or os.environ.get("AWS_REGION") or None
        self._endpoint = endpoint or None
        self._count = threads
        self._threads = ThreadPoolExecutor(threads, "fargate")
        # Who waits for the queue must hold up nobody else.
        self._waiting = ThreadPoolExecutor(1, "fargate queue")
        self._current: Generation | None = None
        self._looked_at = -math.inf
        self._place = ""
        self.prepare: Callable[[Any], None] = lambda session: None
        """Is given the SDK's session before it makes a client: for who listens to its events. A
        session that takes its place is given too."""
        self._lock = asyncio.Lock()
        self._budgets = Budgets(FAMILIES)
        self._skew = Skew(clock, "AWS")

    @property
    def region(self) -> str:
        """The region in use. KeyError: no client was made yet."""
        if not self._place:
            raise KeyError("ecs")
        return self._place

    def now(self) -> float:
        """The time (epoch seconds) as AWS has it, as far as it has answered."""
        return self._skew.now()

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
        families = _BUDGETS.get(action, ()) if service in _PACED else ()
        for is_last in (False, True):
            once = partial(self._once, service, action, given, then, is_last=is_last)
            is_done, answer = await self._budgets.call(once, *families)
            if is_done:
                return answer
        raise AssertionError("the second try is the last")

    async def _once(
        self,
        service: str,
        action: str,
        given: Mapping[str, Any],
        then: Callable[[dict[str, Any]], Any],
        *,
        is_last: bool,
    ) -> tuple[bool, Any]:
        """(whether it was done, what came of it): it was not where its credentials were refused,
        and there are others by now."""
        # Nothing is waited for between this and the call: clients that nobody uses are closed.
        generation, client = await self._client(service)
        try:
            return True, await self._do(generation, client, action, given, then)
        except (sdk.ClientError, sdk.BotoCoreError, ResponseParserError) as error:
            # What was refused for its credentials was not done.
            if is_stale(error) and not is_last and await self._renewed(generation):
                return False, None
            raise translated(error, _shown(service, action), changes=_changes(action)) from None

    async def _do(
        self,
        generation: Generation,
        client: Any,
        action: str,
        given: Mapping[str, Any],
        then: Callable[[dict[str, Any]], Any],
    ) -> Any:
        def work() -> Any:
            began = self._skew.clock()
            try:
                answer = getattr(client, action)(**given)
            except sdk.ClientError as error:
                self._skew.learn(_date(error.response), began)
                raise
            self._skew.learn(_date(answer), began)
            return then(answer)

        pool = self._waiting if action == "receive_message" else self._threads
        return await asyncio.wrap_future(generation.submit(pool, work))

    async def _client(self, service: str) -> tuple[Generation, Any]:
        current = self._current
        if current is not None and (found := current.clients.get(service)) is not None:
            return current, found
        async with self._lock:
            loop = asyncio.get_running_loop()
            try:
                if self._current is None:
                    self._current = await loop.run_in_executor(self._threads, self._begin)
                current = self._current
                if (found := current.clients.get(service)) is None:
                    make = partial(current.make, service, self._config(service))
                    found = await loop.run_in_executor(self._threads, make)
                    current.clients[service] = found
                    if service == "ecs":
                        self._place = str(current.clients[service].meta.region_name)
            except (sdk.BotoCoreError, ValueError) as error:
                raise translated(error, service, changes=False) from None
        return current, found

    def _begin(self) -> Generation:
        made = Generation(self._region, self._endpoint, credentials(self._endpoint))
        self.prepare(made.session)
        return made

    async def _renewed(self, refused: Generation) -> bool:
        """Whether there are other credentials by now than those that were refused."""
        async with self._lock:
            if self._current is not refused:
                return True
            if time.monotonic() < self._looked_at + _AGAIN:
                return False
            self._looked_at = time.monotonic()
            loop = asyncio.get_running_loop()
            made = await loop.run_in_executor(self._threads, self._other, refused)
            if made is None:
                return False
            self._current = made
        refused.retire()
        _log.info("other credentials are used: those before them were refused")
        return True

    def _other(self, refused: Generation) -> Generation | None:
        try:
            made = Generation(self._region, self._endpoint, credentials(self._endpoint))
        except (sdk.BotoCoreError, ValueError) as error:
            _log.info("no other credentials: %s", error)
            return None
        # A client takes longer to make than its credentials take to read.
        if (keys := made.keys()) is None or keys == refused.keys():
            return None
        self.prepare(made.session)
        return made

    def _config(self, service: str) -> Config:
        # ECS is retried here, where the budgets are and where it is known what may be repeated.
        attempts = 1 if service == "ecs" else 3
        return Config(
            connect_timeout=CONNECT,
            read_timeout=READ,
            max_pool_connections=self._count + 1,
            retries={"total_max_attempts": attempts, "mode": "standard"},
            s3={"addressing_style": "path"} if self._endpoint else {},
            user_agent_extra="podbridge",
        )

    async def close(self) -> None:
        """Lets go of connections and threads."""
        loop = asyncio.get_running_loop()
        if self._current is not None:
            self._current.retire()
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


def _date(answer: Mapping[str, Any]) -> str:
    """When an answer was given, as it says itself; empty: it does not."""
    headers = (answer.get("ResponseMetadata") or {}).get("HTTPHeaders") or {}
    return str(headers.get("date", ""))


def _changes(action: str) -> bool:
    return not action.startswith(_READS)


def _shown(service: str, action: str) -> str:
    """`ecs.run_task` as AWS writes it."""
    return f"{service}:{''.join(word.title() for word in action.split('_'))}"
