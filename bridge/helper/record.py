"""What the helper leaves: its record, found and verified in the end of a log.

A record is lines `podbridge-record/1 <mark> <n>/<count> <base64>` and, last, the seal: an HMAC with
the pod's key. What a pod writes itself can look like one, but has no seal that holds.
"""

from __future__ import annotations

import hmac
import json
import re
import zlib
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from bridge.errors import Invalid, NotFound
from bridge.workload import ContainerState, Exit, Identity, Key, Notice, Running, State, Waiting

LONGEST = 16 * 1024
"""Bytes that a record takes at most at the end of a log."""
_LARGEST = 1024 * 1024
"""Bytes of a record's text; many times what a helper writes."""
_NOTICES = 8
"""Notices of a container; a helper keeps as many."""
_MOST_CODE, _MOST_SIGNAL, _MOST_RESTARTS = 255, 64, 2**31 - 1
_LONGEST_WORDS = 8192
"""Bytes of a reason or message that are kept: twice what Kubernetes shows."""
_LATEST = 253402300800.0
"""The end of the year 9999 (epoch seconds)."""
_LINE = re.compile(
    rb"podbridge-record/1 ([0-9a-f]{12}) (?:([0-9]{1,3})/([0-9]{1,3}) ([A-Za-z0-9+/=]+)"
    rb"|seal ([0-9a-f]{64}))"
)


@dataclass(frozen=True, slots=True)
class Record:
    """What a pod, or a container of it, came to."""

    by: str
    """`watch`: of the whole pod; `run`: of one container."""
    at: float
    """When it was written (epoch seconds)."""
    containers: tuple[ContainerState, ...]
    """One that neither runs nor ended was not started: its Waiting says why."""
    failed: bool = False
    """The pod failed as a whole for `reason`, whatever its containers' codes say."""
    reason: str = ""
    message: str = ""
    backoffs: Mapping[str, float] = field(default_factory=dict)
    """Seconds from the ends of containers to their next runs, of those that wait for one."""
    opening: frozenset[str] = frozenset()
    """Containers that run, and whose post-start hook is not over."""
    notices: tuple[Notice, ...] = ()
    """What befell the containers; told live only."""


def read(log: bytes, key: bytes, identity: Identity) -> Record:
    """The last record in `log` that was sealed with the pod's key, for this attempt of the pod.

    Raises NotFound where there is none that holds; the words say whether one was tried. Invalid
    where one holds and makes no sense: the helper is of another version.
    """
    tried = 0
    for mark, seal, parts in reversed(list(_candidates(log))):
        tried += 1
        text = _opened(mark, seal, parts, key)
        if text is None:
            continue
        record = parse(text, identity)
        if record is not None:
            return record
    what = f"{tried} that the pod's key did not seal" if tried else "none"
    raise NotFound(f"no record of the helper at the end of the log: there is {what}")


def _candidates(log: bytes) -> list[tuple[bytes, bytes, list[bytes]]]:
    """(mark, seal, pieces) of each record that seems whole, in the order of their seals.

    A driver may have put times before the lines, or lines of others between them.
    """
    pieces: dict[bytes, dict[int, bytes]] = {}
    counts: dict[bytes, int] = {}
    found = []
    for line in _LINE.finditer(log):
        mark, number, count, body, seal = line.groups()
        if seal is None:
            counts[mark] = int(count)
            pieces.setdefault(mark, {})[int(number)] = body
            continue
        parts = pieces.get(mark, {})
        wanted = range(1, counts.get(mark, 0) + 1)
        if parts and all(number in parts for number in wanted):
            found.append((mark, seal, [parts[number] for number in wanted]))
    return found


def _opened(mark: bytes, seal: bytes, parts: list[bytes], key: bytes) -> bytes | None:
    """A record's text; None where its seal does not hold."""
    try:
        packed = b64decode(b"".join(parts), validate=True)
    except ValueError:
        return None
    signed = b"podbridge record 1\n" + mark + b"\n" + packed
    expected = hmac.new(key, signed, sha256).hexdigest().encode()
    if not hmac.compare_digest(expected, seal):
        return None
    unpacking = zlib.decompressobj()
    try:
        return unpacking.decompress(packed, _LARGEST)
    except zlib.error:
        return None


def parse(text: bytes, identity: Identity | Key) -> Record | None:
    """A record's text; None where it is about another pod or attempt. Raises Invalid where it makes
    no sense."""
    _, uid, attempt = identity.key if isinstance(identity, Identity) else identity
    try:
        said = json.loads(text)
        if (said["uid"], said["attempt"]) != (uid, attempt):
            return None
        containers = said["containers"]
        return Record(
            by=_text(said["by"]),
            at=_seconds(said["at"]),
            containers=tuple(_state(one) for one in containers),
            failed=bool(said["failed"]),
            reason=_text(said.get("reason", "")),
            message=_text(said.get("message", "")),
            backoffs={
                _text(one["name"]): _seconds(delay)
                for one in containers
                if (delay := one.get("backoff"))
            },
            opening=frozenset(_text(one["name"]) for one in containers if one.get("opening")),
            notices=tuple(notice for one in containers for notice in _notices(one)),
        )
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise Invalid(f"the helper's record makes no sense here: {error!r}") from None


def _state(one: Mapping[str, Any]) -> ContainerState:
    previous = one.get("previous")
    return ContainerState(
        name=_text(one["name"]),
        state=_what(one),
        restart=_whole(one["restart"], _MOST_RESTARTS),
        previous=None if previous is None else _exit(previous),
        started=bool(one["started"]),
        ready=bool(one["ready"]),
    )


def _notices(one: Mapping[str, Any]) -> list[Notice]:
    return [
        Notice(
            _seconds(notice["at"]),
            _text(notice["reason"]),
            _text(notice["message"]),
            _text(one["name"]),
            warning=bool(notice.get("warning")),
        )
        for notice in (one.get("notices") or [])[-_NOTICES:]
    ]


def _seconds(said: object) -> float:
    """Seconds, or a time since the epoch. ValueError, TypeError: none that can be."""
    at = float(said)  # type: ignore[arg-type]
    if not 0 <= at < _LATEST:
        raise ValueError(f"{at} seconds")
    return at


def _whole(said: object, most: int) -> int:
    """A number that fits where it goes. ValueError: it does not."""
    if not isinstance(said, int) or not 0 <= said <= most:
        raise ValueError(f"{said!r} is no number between 0 and {most}")
    return said


def _text(said: object) -> str:
    """Words that can be told: of a length, and nothing that no encoding has."""
    return str(said).encode(errors="replace")[:_LONGEST_WORDS].decode(errors="ignore")


def _what(one: Mapping[str, Any]) -> State:
    match one["state"]:
        case "running":
            return Running(_seconds(one["since"]))
        case "ended":
            return _exit(one["exit"])
        case "waiting":
            return Waiting(_text(one.get("reason", "")), _text(one.get("message", "")))
    raise ValueError(f"state {one['state']!r}")


def _exit(one: Mapping[str, Any]) -> Exit:
    started = one.get("started_at")
    return Exit(
        code=_whole(one["code"], _MOST_CODE),
        finished_at=_seconds(one["finished_at"]),
        reason=_text(one["reason"]),
        signal=_whole(one.get("signal", 0), _MOST_SIGNAL),
        message=_text(one.get("message", "")),
        started_at=None if started is None else _seconds(started),
    )
