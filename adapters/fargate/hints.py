"""EventBridge's news of tasks, from an SQS queue: hints of where to look, and no more.

They may come late, twice, in any order or not at all; what they say of a task is not used.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

from adapters.fargate import names
from adapters.fargate.clients import LONG_POLL, Clients
from adapters.fargate.names import Json
from adapters.fargate.options import Options
from adapters.fargate.watch import Watch
from bridge.errors import BridgeError

_log = logging.getLogger(__name__)

_FIRST, _LONGEST = 1.0, 60.0
"""Seconds before the queue is asked again that did not answer: doubling."""


class Hints:
    """The reader of one queue."""

    def __init__(self, clients: Clients, options: Options, watch: Watch) -> None:
        self._clients = clients
        self._options = options
        self._watch = watch

    async def run(self) -> None:
        """Reads until cancelled. Without a queue there is nothing to read."""
        pause = _FIRST
        while self._options.queue_url:
            try:
                await self._read()
                pause = _FIRST
            except BridgeError as error:
                _log.warning("the queue of events: %s", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST)

    async def _read(self) -> None:
        url = self._options.queue_url
        answer = await self._clients.call(
            "sqs",
            "receive_message",
            QueueUrl=url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=LONG_POLL,
        )
        messages: list[Json] = answer.get("Messages") or []
        for one in messages:
            if mark := _mark(one, self._options.owner):
                self._watch.look_at(mark)
        if messages:
            entries = [
                {"Id": str(at), "ReceiptHandle": one["ReceiptHandle"]}
                for at, one in enumerate(messages)
            ]
            await self._clients.call("sqs", "delete_message_batch", QueueUrl=url, Entries=entries)


def _mark(message: Mapping[str, Any], owner: str) -> str:
    """The mark of the pod that a message is about; empty: of none of ours, or of no sense."""
    try:
        return names.mark_of(owner, str(json.loads(message["Body"])["detail"]["startedBy"]))[0]
    except (ValueError, KeyError, TypeError):
        return ""
