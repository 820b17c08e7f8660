"""SQS: standard queues with visibility timeouts, retention and long polls."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from adapters.simulators.aws import paging
from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.names import Place
from adapters.simulators.aws.service import Handler
from adapters.simulators.aws.shapes import Json
from adapters.simulators.common.clock import Clock
from adapters.simulators.common.names import hex_id, uuid_id

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
_DEFAULTS = {
    "VisibilityTimeout": "30",
    "MaximumMessageSize": "262144",
    "MessageRetentionPeriod": "345600",
    "DelaySeconds": "0",
    "ReceiveMessageWaitTimeSeconds": "0",
    "SqsManagedSseEnabled": "true",
}
_RANGES = {
    "VisibilityTimeout": (0, 43_200),
    "MaximumMessageSize": (1024, 1_048_576),
    "MessageRetentionPeriod": (60, 1_209_600),
    "DelaySeconds": (0, 900),
    "ReceiveMessageWaitTimeSeconds": (0, 20),
}
"""Seconds, and bytes of a message; retention is at most 14 days."""


@dataclass(slots=True)
class Message:
    """One message."""

    id: str
    body: str
    sent: float
    visible_at: float
    received: int = 0
    first_received: float = 0.0
    receipt: str = ""


@dataclass(slots=True)
class Queue:
    """One queue."""

    name: str
    arn: str
    created: float
    attributes: dict[str, str]
    messages: dict[str, Message] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def number(self, attribute: str) -> int:
        """An attribute that is a number."""
        return int(self.attributes[attribute])


class Sqs:
    """All queues of the account. `base` says where this server is, for queues' URLs."""

    name: ClassVar[str] = "sqs"
    invalid: ClassVar[str] = "InvalidParameterValue"

    def __init__(self, place: Place, clock: Clock, base: Callable[[], str]) -> None:
        self._place = place
        self._clock = clock
        self._base = base
        self._queues: dict[str, Queue] = {}

    @property
    def operations(self) -> Mapping[str, Handler]:
        """All that is simulated."""
        return {
            "ChangeMessageVisibility": self._change,
            "CreateQueue": self._create,
            "DeleteMessage": self._delete_message,
            "DeleteMessageBatch": self._delete_batch,
            "DeleteQueue": self._delete,
            "GetQueueAttributes": self._attributes,
            "GetQueueUrl": self._get_url,
            "ListQueues": self._list,
            "PurgeQueue": self._purge,
            "ReceiveMessage": self._receive,
            "SendMessage": self._send,
            "SetQueueAttributes": self._set,
        }

    def _url(self, queue: Queue) -> str:
        return f"{self._base()}/{self._place.account}/{queue.name}"

    def _queue(self, given: Json) -> Queue:
        return self._named(given["QueueUrl"].rstrip("/").rpartition("/")[2])

    def _named(self, name: str) -> Queue:
        if name not in self._queues:
            raise ApiError(
                "com.amazonaws.sqs#QueueDoesNotExist",
                "The specified queue does not exist.",
                query_code="AWS.SimpleQueueService.NonExistentQueue",
            )
        return self._queues[name]

    def deliver(self, arn: str, body: str) -> bool:
        """A message from another service; False where there is no such queue."""
        for queue in self._queues.values():
            if queue.arn == arn:
                self._add(queue, body, 0)
                return True
        return False

    def _add(self, queue: Queue, body: str, delay: float) -> Message:
        now = self._clock.now()
        made = Message(uuid_id(), body, now, now + self._clock.real(delay))
        queue.messages[made.id] = made
        queue.arrived.set()
        queue.arrived = asyncio.Event()
        return made

    def _create(self, given: Json) -> Json:
        name, wanted = given["QueueName"], given.get("Attributes", {})
        if wanted.get("FifoQueue") == "true" or name.endswith(".fifo"):
            raise _refused("Only standard queues are simulated.")
        if not _NAME.fullmatch(name):
            raise _refused(
                "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80."
            )
        _check(wanted)
        found = self._queues.get(name)
        if found is not None:
            if any(found.attributes.get(key) != value for key, value in wanted.items()):
                raise ApiError(
                    "com.amazonaws.sqs#QueueNameExists",
                    "A queue already exists with the same name and a different value for attribute"
                    f" {next(k for k, v in wanted.items() if found.attributes.get(k) != v)}",
                    query_code="QueueAlreadyExists",
                )
        else:
            found = Queue(
                name, self._place.arn("sqs", name), self._clock.now(), {**_DEFAULTS, **wanted}
            )
            self._queues[name] = found
        return {"QueueUrl": self._url(found)}

    def _get_url(self, given: Json) -> Json:
        return {"QueueUrl": self._url(self._named(given["QueueName"]))}

    def _list(self, given: Json) -> Json:
        prefix = given.get("QueueNamePrefix", "")
        urls = [
            self._url(one) for name, one in sorted(self._queues.items()) if name.startswith(prefix)
        ]
        return paging.page(
            given, urls, "QueueUrls", limit=1000, refuse=_refused, names=("NextToken", "MaxResults")
        )

    def _attributes(self, given: Json) -> Json:
        queue = self._queue(given)
        messages, now = self._held(queue), self._clock.now()
        hidden = sum(one.visible_at > now and one.received > 0 for one in messages)
        delayed = sum(one.visible_at > now and not one.received for one in messages)
        known = {
            **queue.attributes,
            "QueueArn": queue.arn,
            "CreatedTimestamp": str(int(queue.created)),
            "LastModifiedTimestamp": str(int(queue.created)),
            "ApproximateNumberOfMessages": str(len(messages) - hidden - delayed),
            "ApproximateNumberOfMessagesNotVisible": str(hidden),
            "ApproximateNumberOfMessagesDelayed": str(delayed),
        }
        wanted = given.get("AttributeNames", ())
        shown = {key: value for key, value in known.items() if key in wanted or "All" in wanted}
        return {"Attributes": shown} if shown else {}

    def _set(self, given: Json) -> Json:
        _check(given["Attributes"])
        self._queue(given).attributes.update(given["Attributes"])
        return {}

    def _delete(self, given: Json) -> Json:
        del self._queues[self._queue(given).name]
        return {}

    def _purge(self, given: Json) -> Json:
        self._queue(given).messages.clear()
        return {}

    def _send(self, given: Json) -> Json:
        queue, body = self._queue(given), given["MessageBody"]
        if given.get("MessageAttributes"):
            raise _refused("Message attributes are not simulated.")
        if not 1 <= len(body.encode()) <= queue.number("MaximumMessageSize"):
            raise _refused("One or more parameters are invalid. Reason: Message must be shorter.")
        delay = given.get("DelaySeconds", queue.number("DelaySeconds"))
        made = self._add(queue, body, delay)
        return {"MessageId": made.id, "MD5OfMessageBody": _md5(body)}

    def _held(self, queue: Queue) -> list[Message]:
        """Messages whose retention is not over."""
        life = queue.number("MessageRetentionPeriod")
        for one in list(queue.messages.values()):
            if self._clock.passed(one.sent) > life:
                del queue.messages[one.id]
        return list(queue.messages.values())

    async def _receive(self, given: Json) -> Json:
        queue = self._queue(given)
        most = given.get("MaxNumberOfMessages", 1)
        wait = given.get("WaitTimeSeconds", queue.number("ReceiveMessageWaitTimeSeconds"))
        if not 1 <= most <= 10:
            raise _refused(f"Value {most} for parameter MaxNumberOfMessages is invalid.")
        if not 0 <= wait <= 20:
            raise _refused(f"Value {wait} for parameter WaitTimeSeconds is invalid.")
        until = self._clock.now() + self._clock.real(wait)
        while not (found := self._visible(queue)) and (left := until - self._clock.now()) > 0:
            soon = min((one.visible_at for one in queue.messages.values()), default=until)
            pause = max(0.001, min(left, soon - self._clock.now()))
            try:
                async with asyncio.timeout(pause):
                    await queue.arrived.wait()
            except TimeoutError:
                continue
        hide = given.get("VisibilityTimeout", queue.number("VisibilityTimeout"))
        names = {*given.get("AttributeNames", ()), *given.get("MessageSystemAttributeNames", ())}
        shown = [self._taken(one, hide, names) for one in found[:most]]
        return {"Messages": shown} if shown else {}

    def _visible(self, queue: Queue) -> list[Message]:
        now = self._clock.now()
        return [one for one in self._held(queue) if one.visible_at <= now]

    def _taken(self, one: Message, hide: float, names: set[str]) -> Json:
        now = self._clock.now()
        one.received += 1
        one.first_received = one.first_received or now
        one.visible_at = now + self._clock.real(hide)
        one.receipt = f"{one.id}/{hex_id(16)}"
        known = {
            "ApproximateReceiveCount": str(one.received),
            "SentTimestamp": str(int(one.sent * 1000)),
            "ApproximateFirstReceiveTimestamp": str(int(one.first_received * 1000)),
            "SenderId": "AIDASIMULATEDUSER0000",
        }
        shown = {key: value for key, value in known.items() if key in names or "All" in names}
        answer: Json = {
            "MessageId": one.id,
            "ReceiptHandle": one.receipt,
            "MD5OfBody": _md5(one.body),
            "Body": one.body,
        }
        return {**answer, "Attributes": shown} if shown else answer

    def _received(self, queue: Queue, receipt: str) -> Message | None:
        """The message of a receipt; None where it is deleted already. ReceiptHandleIsInvalid."""
        id_, slash, _ = receipt.partition("/")
        if not slash:
            raise ApiError(
                "com.amazonaws.sqs#ReceiptHandleIsInvalid",
                f'The input receipt handle "{receipt}" is not a valid receipt handle.',
                query_code="ReceiptHandleIsInvalid",
            )
        return queue.messages.get(id_)

    def _delete_message(self, given: Json) -> Json:
        queue = self._queue(given)
        found = self._received(queue, given["ReceiptHandle"])
        if found is not None:
            del queue.messages[found.id]
        return {}

    def _delete_batch(self, given: Json) -> Json:
        entries, queue = given["Entries"], self._queue(given)
        if not entries:
            raise _batch("EmptyBatchRequest", "There should be at least one entry.")
        if len(entries) > 10:
            raise _batch(
                "TooManyEntriesInBatchRequest", "Maximum number of entries per request are 10."
            )
        if len({one["Id"] for one in entries}) < len(entries):
            raise _batch("BatchEntryIdsNotDistinct", "Two or more batch entries have the same Id.")
        good: list[Json] = []
        bad: list[Json] = []
        for one in entries:
            try:
                self._delete_message({**one, "QueueUrl": self._url(queue)})
                good.append({"Id": one["Id"]})
            except ApiError as error:
                code = error.query_code
                bad.append(
                    {"Id": one["Id"], "SenderFault": True, "Code": code, "Message": error.message}
                )
        return {"Successful": good, "Failed": bad}

    def _change(self, given: Json) -> Json:
        found = self._received(self._queue(given), given["ReceiptHandle"])
        if not 0 <= given["VisibilityTimeout"] <= 43_200:
            raise _refused("Value for parameter VisibilityTimeout is invalid.")
        if found is None or found.receipt != given["ReceiptHandle"]:
            raise ApiError(
                "com.amazonaws.sqs#MessageNotInflight",
                "The message is not in flight.",
                query_code="AWS.SimpleQueueService.MessageNotInflight",
            )
        found.visible_at = self._clock.now() + self._clock.real(given["VisibilityTimeout"])
        return {}


def _refused(message: str) -> ApiError:
    return ApiError(
        "com.amazon.coral.service#InvalidParameterValueException",
        message,
        query_code="InvalidParameterValue",
    )


def _batch(code: str, message: str) -> ApiError:
    query = f"AWS.SimpleQueueService.{code}"
    return ApiError(f"com.amazonaws.sqs#{code}", message, query_code=query)


def _check(attributes: Mapping[str, str]) -> None:
    for name, (low, high) in _RANGES.items():
        text = attributes.get(name, str(low))
        if not text.isdigit() or not low <= int(text) <= high:
            raise ApiError(
                "com.amazonaws.sqs#InvalidAttributeValue",
                f"Invalid value for the parameter {name}.",
                query_code="InvalidAttributeValue",
            )


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
