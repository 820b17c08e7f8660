"""EventBridge's news of tasks, from an SQS queue: hints of where to look.

They may come late, twice, in any order or not at all. What they say of a task counts only where ECS
no longer says anything: it forgets a stopped task after an hour. So the event of a task's end is
kept with the pod's order before it leaves the queue.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

from adapters.fargate import names
from adapters.fargate.clients import LONG_POLL, Clients
from adapters.fargate.ends import Ends
from adapters.fargate.names import Json
from adapters.fargate.options import Options
from adapters.fargate.poll import Poll

_log = logging.getLogger(__name__)

_FIRST, _LONGEST = 1.0, 60.0
"""Seconds before the queue is asked again that did not answer: doubling."""
_DRAIN = 60.0
"""Seconds that are spent at most on what has gathered in the queue."""


class Hints:
    """The reader of one queue."""

    def __init__(self, clients: Clients, options: Options, poll: Poll, ends: Ends) -> None:
        self._clients = clients
        self._options = options
        self._poll = poll
        self._ends = ends
        self._reading = asyncio.Lock()
        """What one reader has in hand, another does not find."""

    async def run(self) -> None:
        """Reads until cancelled. Without a queue there is nothing to read."""
        pause = _FIRST
        while self._options.queue_url:
            try:
                await self._read(LONG_POLL)
                pause = _FIRST
            except Exception as error:  # noqa: BLE001 - who reads the queue must go on
                _log.warning("the queue of events: %s", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST)

    async def drain(self) -> None:
        """Reads what there is, since somebody looks for ends that ECS has forgotten."""
        if self._options.queue_url:
            deadline = asyncio.get_running_loop().time() + _DRAIN
            # Without a wait SQS asks only some of its servers.
            while await self._read(1) and asyncio.get_running_loop().time() < deadline:
                pass

    async def _read(self, wait: int) -> bool:
        """Whether there was anything."""
        async with self._reading:
            return await self._take(wait)

    async def _take(self, wait: int) -> bool:
        url = self._options.queue_url
        answer = await self._clients.call(
            "sqs",
            "receive_message",
            QueueUrl=url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=wait,
        )
        self._poll.answered()
        messages: list[Json] = answer.get("Messages") or []
        await asyncio.gather(*(self._hand_on(_detail(one)) for one in messages))
        if messages:
            entries = [
                {"Id": str(at), "ReceiptHandle": one["ReceiptHandle"]}
                for at, one in enumerate(messages)
            ]
            await self._clients.call("sqs", "delete_message_batch", QueueUrl=url, Entries=entries)
        return bool(messages)

    async def _hand_on(self, detail: Json) -> None:
        mark, nonce = names.mark_of(self._options.owner, str(detail.get("startedBy", "")))
        if mark:
            await self._ends.heard(mark, nonce, detail)


def _detail(message: Mapping[str, Any]) -> Json:
    """The task that a message is about; empty: it is of no sense."""
    try:
        return dict(json.loads(message["Body"])["detail"])
    except (ValueError, KeyError, TypeError):
        return {}
