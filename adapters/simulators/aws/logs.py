"""CloudWatch Logs: groups, streams, and events that are read in pages.

Source: the API reference of PutLogEvents and GetLogEvents for sizes and tokens.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from adapters.simulators.aws import paging
from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.names import Place
from adapters.simulators.aws.service import Handler
from adapters.simulators.aws.shapes import Json
from adapters.simulators.common.clock import Clock
from adapters.simulators.common.names import hex_id

MAX_PAGE = 1024 * 1024
"""Bytes of messages in a page."""
OVERHEAD = 26
"""Bytes that each event counts beside its message."""
MAX_BATCH = 1_048_576
MAX_EVENTS = 10_000
_DAY = 24 * 3600.0
_RETENTIONS = frozenset(
    {1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557}
    | {2922, 3288, 3653}
)


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """One event; ordered by time, then by arrival."""

    timestamp: int
    number: int
    message: str = field(compare=False)
    ingested: int = field(compare=False)

    @property
    def size(self) -> int:
        """Bytes as the limits count them."""
        return len(self.message.encode()) + OVERHEAD


@dataclass(slots=True)
class Stream:
    """One log stream."""

    name: str
    arn: str
    created: int
    events: list[Event] = field(default_factory=list)


@dataclass(slots=True)
class Group:
    """One log group."""

    name: str
    arn: str
    created: int
    retention: int | None = None
    kms_key: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    streams: dict[str, Stream] = field(default_factory=dict)


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterException", message)


def _missing(what: str) -> ApiError:
    return ApiError("ResourceNotFoundException", f"The specified log {what} does not exist.")


def _exists(what: str) -> ApiError:
    return ApiError("ResourceAlreadyExistsException", f"The specified log {what} already exists")


class Logs:
    """All groups of the account. `comes_empty` says whether a page is to be empty for no reason."""

    name: ClassVar[str] = "logs"
    invalid: ClassVar[str] = "InvalidParameterException"

    def __init__(self, place: Place, clock: Clock, comes_empty: Callable[[], bool]) -> None:
        self._place = place
        self._clock = clock
        self._comes_empty = comes_empty
        self._groups: dict[str, Group] = {}
        self._numbers = 0

    @property
    def operations(self) -> Mapping[str, Handler]:
        """All that is simulated."""
        return {
            "CreateLogGroup": self._create_group,
            "CreateLogStream": self._create_stream,
            "DeleteLogGroup": self._delete_group,
            "DeleteLogStream": self._delete_stream,
            "DescribeLogGroups": self._describe_groups,
            "DescribeLogStreams": self._describe_streams,
            "FilterLogEvents": self._filter,
            "GetLogEvents": self._get,
            "ListTagsForResource": self._list_tags,
            "PutLogEvents": self._put,
            "PutRetentionPolicy": self._retain,
            "DeleteRetentionPolicy": self._retain,
            "TagResource": self._tag,
            "UntagResource": self._untag,
        }

    def _now(self) -> int:
        return int(self._clock.now() * 1000)

    def _group(self, given: Json) -> Group:
        name = given.get("logGroupName")
        if name is None and "logGroupIdentifier" in given:
            name = given["logGroupIdentifier"].removesuffix(":*").rpartition(":log-group:")[2]
        if name is None:
            raise _invalid("Exactly one of logGroupName and logGroupIdentifier is required.")
        if name not in self._groups:
            raise _missing("group")
        return self._groups[name]

    def _stream(self, given: Json) -> Stream:
        group = self._group(given)
        found = group.streams.get(given["logStreamName"])
        if found is None:
            raise _missing("stream")
        self._expire(group, found)
        return found

    def _expire(self, group: Group, stream: Stream) -> None:
        if group.retention is None:
            return
        oldest = (self._clock.now() - self._clock.real(group.retention * _DAY)) * 1000
        del stream.events[: bisect.bisect_left(stream.events, oldest, key=lambda e: e.timestamp)]

    def open_stream(self, group: str, stream: str, create_group: bool) -> None:
        """What the awslogs driver does first. ApiError."""
        if create_group and group not in self._groups:
            self._create_group({"logGroupName": group})
        if stream not in self._group({"logGroupName": group}).streams:
            self._create_stream({"logGroupName": group, "logStreamName": stream})

    def _create_group(self, given: Json) -> Json:
        name = given["logGroupName"]
        if name in self._groups:
            raise _exists("group")
        arn = self._place.arn("logs", f"log-group:{name}")
        self._groups[name] = Group(
            name, arn, self._now(), None, given.get("kmsKeyId", ""), dict(given.get("tags", {}))
        )
        return {}

    def _create_stream(self, given: Json) -> Json:
        group, name = self._group(given), given["logStreamName"]
        if name in group.streams:
            raise _exists("stream")
        group.streams[name] = Stream(name, f"{group.arn}:log-stream:{name}", self._now())
        return {}

    def _delete_group(self, given: Json) -> Json:
        del self._groups[self._group(given).name]
        return {}

    def _delete_stream(self, given: Json) -> Json:
        del self._group(given).streams[self._stream(given).name]
        return {}

    def _retain(self, given: Json) -> Json:
        days = given.get("retentionInDays")
        if days is not None and days not in _RETENTIONS:
            raise _invalid(f"Invalid retentionInDays: {days}")
        self._group(given).retention = days
        return {}

    def _describe_groups(self, given: Json) -> Json:
        prefix = given.get("logGroupNamePrefix", "")
        pattern = given.get("logGroupNamePattern", "").lower()
        found = [
            self._shown_group(one)
            for name, one in sorted(self._groups.items())
            if name.startswith(prefix) and pattern in name.lower()
        ]
        asked = {"limit": 50, **given}
        names = ("nextToken", "limit")
        return paging.page(asked, found, "logGroups", limit=50, refuse=_invalid, names=names)

    def _shown_group(self, one: Group) -> Json:
        answer: Json = {
            "logGroupName": one.name,
            "creationTime": one.created,
            "metricFilterCount": 0,
            "arn": f"{one.arn}:*",
            "logGroupArn": one.arn,
            "storedBytes": sum(e.size for s in one.streams.values() for e in s.events),
            "logGroupClass": "STANDARD",
        }
        if one.retention is not None:
            answer["retentionInDays"] = one.retention
        if one.kms_key:
            answer["kmsKeyId"] = one.kms_key
        return answer

    def _describe_streams(self, given: Json) -> Json:
        group = self._group(given)
        prefix, by_time = (
            given.get("logStreamNamePrefix", ""),
            given.get("orderBy") == "LastEventTime",
        )
        if prefix and by_time:
            raise _invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
        streams = [one for name, one in sorted(group.streams.items()) if name.startswith(prefix)]
        if by_time:
            streams.sort(key=lambda one: one.events[-1].timestamp if one.events else 0)
        if given.get("descending"):
            streams.reverse()
        shown = [_shown_stream(one) for one in streams]
        asked = {"limit": 50, **given}
        names = ("nextToken", "limit")
        return paging.page(asked, shown, "logStreams", limit=50, refuse=_invalid, names=names)

    def _put(self, given: Json) -> Json:
        stream = self._stream(given)
        events = [(one["timestamp"], one["message"]) for one in given["logEvents"]]
        if any(a[0] > b[0] for a, b in itertools.pairwise(events)):
            raise _invalid(
                "Log events in a single PutLogEvents request must be in chronological order."
            )
        if sum(len(message.encode()) + OVERHEAD for _, message in events) > MAX_BATCH:
            raise _invalid("Upload too large: 1048576 bytes are allowed.")
        return {"nextSequenceToken": hex_id(56), **self._accept(stream, events)}

    def append(self, group: str, stream: str, events: Sequence[tuple[int, str]]) -> None:
        """PutLogEvents for the awslogs driver. ApiError."""
        found = self._stream({"logGroupName": group, "logStreamName": stream})
        self._accept(found, sorted(events, key=lambda one: one[0]))

    def _accept(self, stream: Stream, events: Sequence[tuple[int, str]]) -> Json:
        now = self._now()
        old, new = now - 14 * _DAY * 1000, now + 2 * 3600 * 1000
        too_old = sum(at < old for at, _ in events)
        first_new = next((n for n, (at, _) in enumerate(events) if at > new), len(events))
        for at, message in events[too_old:first_new]:
            self._numbers += 1
            bisect.insort(stream.events, Event(at, self._numbers, message, now))
        rejected: Json = {}
        if too_old:
            rejected["tooOldLogEventEndIndex"] = too_old
        if first_new < len(events):
            rejected["tooNewLogEventStartIndex"] = first_new
        return {"rejectedLogEventsInfo": rejected} if rejected else {}

    def _get(self, given: Json) -> Json:
        events = self._stream(given).events
        low, high = given.get("startTime", 0), given.get("endTime")
        limit = given.get("limit", MAX_EVENTS)
        token = given.get("nextToken")
        if token is None:
            head = given.get("startFromHead", False)
            place = (low, -1) if head else (1 << 62, 1 << 62)
            forward = head
        else:
            forward, place = _read_token(token)
        if self._comes_empty():
            # Another token for the same place: there may be more.
            return {
                "events": [],
                "nextForwardToken": f"{_token('f', place)}/{hex_id(8)}",
                "nextBackwardToken": f"{_token('b', place)}/{hex_id(8)}",
            }
        wanted = [one for one in events if one.timestamp >= low and not _after(one, high)]
        if forward:
            rest = [one for one in wanted if (one.timestamp, one.number) > place]
            page = list(_fill(rest, limit))
        else:
            rest = [one for one in reversed(wanted) if (one.timestamp, one.number) < place]
            page = list(_fill(rest, limit))[::-1]
        first = (page[0].timestamp, page[0].number) if page else place
        last = (page[-1].timestamp, page[-1].number) if page else place
        return {
            "events": [_shown_event(one) for one in page],
            "nextForwardToken": _token("f", last),
            "nextBackwardToken": _token("b", first),
        }

    def _filter(self, given: Json) -> Json:
        group = self._group(given)
        prefix, names = given.get("logStreamNamePrefix"), given.get("logStreamNames")
        if prefix is not None and names is not None:
            raise _invalid("logStreamNames and logStreamNamePrefix cannot both be given.")
        low, high = given.get("startTime", 0), given.get("endTime")
        matches = _matcher(given.get("filterPattern", ""))
        found = sorted(
            (event, name)
            for name, stream in group.streams.items()
            if name.startswith(prefix or "") and (names is None or name in names)
            for event in stream.events
            if event.timestamp >= low and not _after(event, high) and matches(event.message)
        )
        shown = [
            {**_shown_event(event), "logStreamName": name, "eventId": f"{event.number:056d}"}
            for event, name in found
        ]
        asked = {"limit": MAX_EVENTS, **given}
        answer = paging.page(
            asked, shown, "events", limit=MAX_EVENTS, refuse=_invalid, names=("nextToken", "limit")
        )
        return {**answer, "searchedLogStreams": []}

    def _tags_of(self, arn: str) -> dict[str, str]:
        name = arn.removesuffix(":*").rpartition(":log-group:")[2]
        if name not in self._groups:
            raise _missing("group")
        return self._groups[name].tags

    def _tag(self, given: Json) -> Json:
        self._tags_of(given["resourceArn"]).update(given["tags"])
        return {}

    def _untag(self, given: Json) -> Json:
        for key in given["tagKeys"]:
            self._tags_of(given["resourceArn"]).pop(key, None)
        return {}

    def _list_tags(self, given: Json) -> Json:
        return {"tags": dict(self._tags_of(given["resourceArn"]))}


def _shown_stream(one: Stream) -> Json:
    answer: Json = {
        "logStreamName": one.name,
        "creationTime": one.created,
        "arn": one.arn,
        "storedBytes": 0,
    }
    if one.events:
        answer["firstEventTimestamp"] = one.events[0].timestamp
        answer["lastEventTimestamp"] = one.events[-1].timestamp
        answer["lastIngestionTime"] = max(event.ingested for event in one.events)
    return answer


def _shown_event(one: Event) -> Json:
    return {"timestamp": one.timestamp, "message": one.message, "ingestionTime": one.ingested}


def _after(event: Event, end: int | None) -> bool:
    return end is not None and event.timestamp >= end


def _fill(events: Sequence[Event], limit: int) -> Iterator[Event]:
    """As many as a page may have."""
    room = MAX_PAGE
    for one in events[:limit]:
        room -= one.size
        if room < 0:
            return
        yield one


def _token(kind: str, place: tuple[int, int]) -> str:
    return f"{kind}/{place[0]:020d}/{place[1]:020d}"


def _read_token(token: str) -> tuple[bool, tuple[int, int]]:
    kind, _, place = token.partition("/")
    timestamp, _, rest = place.partition("/")
    number = rest.partition("/")[0]
    try:
        if kind in ("f", "b"):
            return kind == "f", (int(timestamp), int(number))
    except ValueError:
        pass
    raise _invalid("The specified nextToken is invalid.")


def _matcher(pattern: str) -> _Matcher:
    if pattern.strip()[:1] in ("{", "[", "%"):
        raise _invalid("Only patterns of terms are simulated: JSON, columns and %regex% are not.")
    return _Matcher(pattern)


class _Matcher:
    """Terms that all have to be there; `-term` may not, of `?term` one has to."""

    def __init__(self, pattern: str) -> None:
        terms = [one.strip('"') for one in _words(pattern)]
        self._none = [one[1:] for one in terms if one.startswith("-")]
        self._any = [one[1:] for one in terms if one.startswith("?")]
        self._all = [one for one in terms if one[:1] not in ("-", "?")]

    def __call__(self, message: str) -> bool:
        return (
            all(one in message for one in self._all)
            and not any(one in message for one in self._none)
            and (not self._any or any(one in message for one in self._any))
        )


def _words(pattern: str) -> list[str]:
    words: list[str] = []
    for number, part in enumerate(pattern.split('"')):
        words += [part] if number % 2 else part.split()
    return [one for one in words if one]
