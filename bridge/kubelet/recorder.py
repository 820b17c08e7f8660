"""Writes events in the background: v1.Event, named and counted as client-go's recorder does it.

An event that says what one before it said about the same object only raises that one's count.
Nobody waits for the API server here: what it cannot take now is tried again, for as long as there
is room. Only what it refuses is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from bridge.errors import BridgeError, NotFound, Throttled, Unavailable
from bridge.kubelet.client import AlreadyExists, ApiClient, Conflict, Forbidden, escaped
from bridge.pods import Manifest
from bridge.queue import KeyedQueue
from bridge.times import rfc3339

COMPONENT = "podbridge"
"""What writes them: source.component and reportingComponent."""
ROOM = 10_000
"""Events that wait to be written; about a kilobyte each."""
REMEMBERED = 4_096
"""Written events that can still be counted up (maxLruCacheEntries of client-go)."""
WRITERS = 8
"""Events that are written at the same time: a pod's life has one, and each takes some ms."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0
"""Seconds between tries: doubling from the first to the longest."""
FLUSH = 5.0
"""Seconds that `close` waits for what is still to be written."""
LONGEST_MESSAGE = 1_024
"""Characters of a message that the API server takes for sure (events.k8s.io's own limit)."""

_log = logging.getLogger(__name__)

Key = tuple[str, ...]
"""What two events that are one have in common."""


@dataclass(slots=True)
class _Event:
    """One event: what it says, how often it was said, and how often the API server knows."""

    body: Manifest
    count: int = 1
    last: float = 0.0
    written: int = 0
    failures: int = 0
    waiting: bool = field(default=False)


class Recorder:
    """Events about objects, written by one node. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        client: ApiClient,
        node: str,
        *,
        clock: Callable[[], float] = time.time,
        room: int = ROOM,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.dropped = 0
        """Events for which there was no room, or which the API server refused."""
        self._client = client
        self._node = node
        self._clock = clock
        self._room = room
        self._jitter = jitter
        self._events: OrderedDict[Key, _Event] = OrderedDict()
        self._waiting = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._stamp = 0
        self._queue: KeyedQueue[Key] = KeyedQueue(self._write, name="event", concurrency=WRITERS)

    def record(
        self, about: Manifest, kind: str, reason: str, message: str, field_path: str = ""
    ) -> None:
        """Tells people something about an object (a Pod where it does not say what it is): `kind`
        Normal or Warning. Returns at once."""
        if len(message) > LONGEST_MESSAGE:
            message = message[: LONGEST_MESSAGE - 3] + "..."
        metadata = about["metadata"]
        namespace, name = metadata.get("namespace") or "default", metadata["name"]
        uid = metadata.get("uid", "")
        key = (about.get("kind", "Pod"), namespace, name, uid, field_path, kind, reason, message)
        now = self._clock()
        known = self._events.get(key)
        if known is not None:
            known.count, known.last = known.count + 1, now
            self._events.move_to_end(key)
            self._wait(key, known)
            return
        if self._waiting >= self._room:
            if not self.dropped:
                _log.warning("events are dropped: %d wait to be written", self._waiting)
            self.dropped += 1
            return
        made = self._events[key] = _Event(
            self._body(about, key, now, metadata.get("resourceVersion", "")), last=now
        )
        self._wait(key, made)
        self._forget()

    async def flush(self, limit: float = FLUSH) -> bool:
        """Waits until all is written, at most `limit` seconds; whether it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._empty.wait()
        return self._empty.is_set()

    async def close(self, limit: float = FLUSH) -> None:
        """Writes what there still is, for at most `limit` seconds, and ends."""
        if not await self.flush(limit):
            _log.warning("%d events could not be written", self._waiting)
        await self._queue.close()

    def _wait(self, key: Key, event: _Event) -> None:
        if not event.waiting:
            event.waiting = True
            self._waiting += 1
            self._empty.clear()
            self._queue.add(key)

    def _done(self, event: _Event) -> None:
        event.waiting = False
        self._waiting -= 1
        if not self._waiting:
            self._empty.set()

    def _forget(self) -> None:
        """Those that were written longest ago; what still waits stays, and is bounded by `room`."""
        while len(self._events) - self._waiting > REMEMBERED:
            for key, event in self._events.items():
                if not event.waiting:
                    del self._events[key]
                    break

    def _body(self, about: Manifest, key: Key, now: float, version: str) -> Manifest:
        kind, namespace, name, uid, field_path, level, reason, message = key
        involved = {
            "apiVersion": about.get("apiVersion", "v1"),
            "kind": kind,
            "namespace": namespace if kind != "Node" else "",
            "name": name,
            "uid": uid,
            "resourceVersion": version,
            "fieldPath": field_path,
        }
        # Nanoseconds, as client-go names them; never twice the same.
        self._stamp = max(self._stamp + 1, int(now * 1e9))
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": namespace, "name": f"{name[:230]}.{self._stamp:x}"},
            "involvedObject": {field_: value for field_, value in involved.items() if value},
            "type": level,
            "reason": reason,
            "message": message,
            "source": {"component": COMPONENT, "host": self._node},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._node,
            "firstTimestamp": rfc3339(now),
        }

    async def _write(self, key: Key) -> float | None:
        """One try. Seconds until the next where it has to be tried again."""
        event = self._events.get(key)
        if event is None or not event.waiting:
            return None
        count = event.count
        try:
            await self._send(event)
        except (Unavailable, Throttled) as error:
            event.failures += 1
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(event.failures - 1, 10))
            if isinstance(error, Throttled) and error.retry_after is not None:
                pause = max(pause, min(error.retry_after, 60.0))
            return pause * (0.75 + 0.5 * self._jitter())
        except BridgeError as error:
            self._refused(key, error)
            return None
        event.failures, event.written = 0, count
        if event.count > count:
            return 0.0
        self._done(event)
        return None

    async def _send(self, event: _Event) -> None:
        metadata = event.body["metadata"]
        path = f"/api/v1/namespaces/{escaped(metadata['namespace'])}/events"
        changing = {"count": event.count, "lastTimestamp": rfc3339(event.last)}
        if event.written:
            with contextlib.suppress(NotFound):
                await self._client.patch(f"{path}/{escaped(metadata['name'])}", changing)
                return
            # Events live for an hour: this one is told anew.
        # Already there: the answer to an earlier try was lost.
        with contextlib.suppress(AlreadyExists):
            await self._client.post(path, {**event.body, **changing})

    def _refused(self, key: Key, error: BridgeError) -> None:
        event = self._events.pop(key)
        self._done(event)
        if isinstance(error, (NotFound, Conflict)) or _is_ending(error):
            # The namespace is gone, or about to: nobody will read it.
            return
        self.dropped += 1
        _log.warning("an event of %s was refused: %s", "/".join(key[1:3]), error)


def _is_ending(error: BridgeError) -> bool:
    return isinstance(error, Forbidden) and "because it is being terminated" in str(error)
