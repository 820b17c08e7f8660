"""What WatchPods tells: the newest facts of each pod, by revision.

Facts are always whole, so a watcher that is behind needs only the newest of each pod: there is no
log to cut, and a slow watcher costs no memory. Only forgetting a pod compacts: whoever resumes from
before that gets a new snapshot.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass

from bridge.rpc.v1.pod_pb2 import PodFacts
from bridge.rpc.v1.provider_pb2 import (
    BackendSynced,
    SnapshotStarted,
    WatchPodsEvent,
    WatchPodsResponse,
)

BATCH = 256
"""Events in one message at the most."""
BATCH_BYTES = 4 * 1024 * 1024
"""Bytes in one message, unless one event has more: a quarter of what `bridge/rpc/channel.py`
allows."""
PAUSE = 0.01
"""Seconds between messages to one watcher: news after a quiet time is told at once, and what comes
in a flood is told together, each pod's newest facts only."""


@dataclass(slots=True)
class _Entry:
    revision: int
    facts: PodFacts


class Journal:
    """The facts of the pods of one (cluster, node), and the watchers waiting for them."""

    def __init__(self, epoch: str, backends: Iterable[str]) -> None:
        self.epoch = epoch
        self._backends = tuple(backends)
        self._synced: dict[str, int] = {}
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._revision = 0
        self._compacted = 0
        self._changed = asyncio.Event()

    def publish(self, facts: PodFacts) -> int:
        """Tells a pod's new facts; returns their revision."""
        uid = facts.pod.uid
        self._revision += 1
        self._entries[uid] = _Entry(self._revision, facts)
        self._entries.move_to_end(uid)
        self._wake()
        return self._revision

    def synced(self, backend: str) -> None:
        """Tells that all that this backend has is told."""
        if backend not in self._synced:
            self._revision += 1
            self._synced[backend] = self._revision
            self._wake()

    def forget(self, uid: str) -> None:
        """Drops a pod whose end is acknowledged."""
        if entry := self._entries.pop(uid, None):
            self._compacted = max(self._compacted, entry.revision)

    async def watch(self, epoch: str, revision: int) -> AsyncIterator[WatchPodsResponse]:
        """Everything after (epoch, revision), or a snapshot; then changes, for ever."""
        resumed = epoch == self.epoch and self._compacted <= revision <= self._revision
        cursor = revision if resumed else 0
        first: list[WatchPodsEvent] = []
        loop, told = asyncio.get_running_loop(), -PAUSE
        if not resumed:
            started = SnapshotStarted(backends=self._backends)
            first.append(WatchPodsEvent(revision=0, snapshot_started=started))
        while True:
            changed = self._changed
            events = first + self._since(cursor)
            first = []
            if events:
                cursor = max(cursor, events[-1].revision)
                told = loop.time()
            for batch in _batches(events):
                yield WatchPodsResponse(epoch=self.epoch, events=batch)
            if not events or self._revision == cursor:
                await changed.wait()
            if (early := told + PAUSE - loop.time()) > 0:
                await asyncio.sleep(early)

    def _since(self, cursor: int) -> list[WatchPodsEvent]:
        found: list[WatchPodsEvent] = []
        for entry in reversed(self._entries.values()):
            if entry.revision <= cursor:
                break
            found.append(WatchPodsEvent(revision=entry.revision, pod=entry.facts))
        found.reverse()
        return found + self._marks_since(cursor, found[-1].revision if found else 0)

    def _marks_since(self, cursor: int, last: int) -> list[WatchPodsEvent]:
        marks = []
        for backend, revision in self._synced.items():
            if revision <= cursor:
                continue
            if revision < last:
                # A pod that was told before the mark has changed since, and so stands behind it:
                # the mark is told anew, or the pod would read as absent in between.
                self._revision += 1
                self._synced[backend] = self._revision
            synced = BackendSynced(backend=backend)
            marks.append(WatchPodsEvent(revision=self._synced[backend], synced=synced))
        return sorted(marks, key=lambda mark: mark.revision)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _batches(events: Sequence[WatchPodsEvent]) -> Iterator[Sequence[WatchPodsEvent]]:
    start = size = 0
    for at, event in enumerate(events):
        own = event.ByteSize()
        if at > start and (at - start >= BATCH or size + own > BATCH_BYTES):
            yield events[start:at]
            start, size = at, 0
        size += own
    if events:
        yield events[start:]


def new_epoch() -> str:
    """A name for one life of a provider."""
    return uuid.uuid4().hex
