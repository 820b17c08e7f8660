"""The one pod loop: brings what Kubernetes wants to the provider, and what is true back.

For each pod there is one entry, keyed by UID: the newest object from the cluster and the newest
facts from the provider. A step compares the two and does what is due: create, update, delete, patch
the status, acknowledge. Steps are level-triggered and idempotent, so a lost message, a restart of
either side or a repeated event only means another step.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from bridge.agent.cluster import Cluster, PodEvent
from bridge.agent.entry import Entry, Epoch
from bridge.agent.provider import ProviderClient
from bridge.agent.request import (
    ATTEMPT,
    PLACED_ON,
    Builder,
    identity,
    is_daemons,
    missing,
    version,
)
from bridge.agent.updates import Updater, passed
from bridge.errors import BridgeError, Invalid, Unavailable, Unsupported
from bridge.pods import Manifest
from bridge.pods.conditions import foreign_conditions
from bridge.pods.events import events
from bridge.pods.resize import Resize, in_force
from bridge.pods.status import rejected, same, status
from bridge.queue import KeyedQueue
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.times import rfc3339

RECONNECT_FIRST, RECONNECT_LONGEST = 0.1, 5.0
"""Seconds before a broken watch is opened again: doubling from the first to the longest."""

SYNC_PATIENCE = 2.0
"""Seconds that a pod waits for all backends' sync marks before the provider is asked to run it. The
provider itself waits for those that matter: this only saves asking what is about to be told."""

MISSING_RETRY = 10.0
"""Seconds before a pod that refers to something missing is asked for again."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProviderNote:
    """Something about the provider that people want to see: `lost` with why, or `back` with how
    many pods it runs on with (adopted)."""

    what: Literal["lost", "back"]
    message: str = ""
    adopted: int = 0


class Agent:
    """Runs the pods of one cluster's node on one provider."""

    def __init__(
        self,
        cluster: Cluster,
        provider: ProviderClient,
        *,
        clock: Callable[[], float] = time.time,
        note: Callable[[ProviderNote], None] = lambda _: None,
        concurrency: int = 64,
    ) -> None:
        self._cluster = cluster
        self._provider = provider
        self._clock = clock
        self._note = note
        self._builder = Builder(cluster)
        self._updater = Updater(cluster, provider, self._builder)
        self._entries: dict[str, Entry] = {}
        self._queue: KeyedQueue[str] = KeyedQueue(
            self._step, name="agent pod", concurrency=concurrency
        )
        self._epoch = Epoch()
        self._cluster_synced = asyncio.Event()
        self._provider_synced = asyncio.Event()
        self._left = asyncio.Event()
        self._news = asyncio.Event()
        self._acks: dict[str, pb.PodAck] = {}
        self._ack_now = asyncio.Event()

    async def run(self) -> None:
        """Runs until cancelled. Invalid: the provider speaks another contract; everything else that
        either side answers is tried again."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch_cluster(), name="watch cluster")
                tasks.create_task(self._watch_provider(), name="watch provider")
                tasks.create_task(self._send_acks(), name="acknowledge")
        except* BridgeError as group:
            # One of them cannot go on (another contract): the others were cancelled for it.
            raise group.exceptions[0] from None
        finally:
            await self._queue.close()

    def refers_to_news(self, uid: str) -> None:
        """Something that the pod refers to (a ConfigMap, a Secret, a token) is not what it was."""
        if (entry := self._entries.get(uid)) is not None:
            entry.stale = True
            self._queue.add(uid)

    async def settled(self) -> None:
        """Returns once both sides were heard in full and no pod has a step due now."""
        await self._cluster_synced.wait()
        await self._provider_synced.wait()
        await self._queue.settled()

    async def answered(self, uids: Iterable[str]) -> None:
        """Returns once the provider has told how each of these pods stands, knowing its manifest,
        and their statuses say so."""
        await self._until_each(uids, self._is_answered)

    async def asked(self, uids: Iterable[str]) -> None:
        """Returns once the provider, in its present life, was asked for each of these pods that is
        not over."""
        await self._until_each(uids, self._is_asked)

    async def _until_each(self, uids: Iterable[str], true: Callable[[str], bool]) -> None:
        waiting = set(uids)
        while waiting := {uid for uid in waiting if not true(uid)}:
            self._news.clear()
            await self._news.wait()

    def _is_asked(self, uid: str) -> bool:
        entry = self._entries.get(uid)
        if entry is None or entry.pod is None:
            return False
        asked = self._epoch.synced and entry.accepted == self._epoch.name
        return asked or self._is_answered(uid)

    def _is_answered(self, uid: str) -> bool:
        entry = self._entries.get(uid)
        if entry is None or entry.pod is None:
            return False
        if entry.pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return True
        return entry.facts is not None and entry.facts.generation > 0 and entry.told is entry.facts

    async def emptied(self) -> None:
        """Returns once neither side has a pod."""
        while self._entries:
            self._left.clear()
            await self._left.wait()

    # What comes in.

    async def _watch_cluster(self) -> None:
        delay = RECONNECT_FIRST
        while True:
            listed: set[str] | None = set()
            try:
                async for event in self._cluster.watch():
                    delay = RECONNECT_FIRST
                    if event.type == "SYNCED":
                        if listed is not None:
                            self._cluster_listed(listed)
                        listed = None
                        continue
                    if listed is not None and event.type != "DELETED":
                        listed.add(event.pod["metadata"]["uid"])
                    self._pod_changed(event)
            except BridgeError as error:
                _log.warning("watching the cluster: %s", error)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RECONNECT_LONGEST)

    def _pod_changed(self, event: PodEvent) -> None:
        uid = event.pod["metadata"]["uid"]
        entry = self._entries.get(uid)
        if event.type == "DELETED":
            if entry is not None:
                entry.pod = None
                self._queue.add(uid)
            return
        if entry is None:
            entry = self._entries[uid] = Entry(
                identity(self._cluster.id, self._cluster.node, event.pod)
            )
        entry.pod = event.pod
        self._queue.add(uid)

    def _cluster_listed(self, listed: set[str]) -> None:
        for uid, entry in self._entries.items():
            if uid not in listed and entry.pod is not None:
                entry.pod = None
                self._queue.add(uid)
        self._cluster_synced.set()
        self._find_orphans()

    async def _watch_provider(self) -> None:
        delay, lost = RECONNECT_FIRST, False
        while True:
            request = pb.WatchPodsRequest(
                cluster=self._cluster.id,
                node=self._cluster.node,
                epoch=self._epoch.name if self._epoch.synced else "",
                revision=self._epoch.revision,
            )
            try:
                async for message in self._provider.watch_pods(request):
                    for event in message.events:
                        self._heard(message.epoch, event)
                    if self._epoch.synced:
                        if lost:
                            self._say_back()
                        delay, lost = RECONNECT_FIRST, False
                problem: BridgeError | None = None
            except BridgeError as error:
                if isinstance(error, Invalid):
                    raise
                problem = error
            if not lost:
                lost = True
                self._note(ProviderNote("lost", str(problem or "it closed the stream")))
            await asyncio.sleep(delay)
            delay = min(delay * 2, RECONNECT_LONGEST)

    def _heard(self, epoch: str, event: pb.WatchPodsEvent) -> None:
        kind = event.WhichOneof("event")
        if kind != "snapshot_started" and epoch != self._epoch.name:
            raise Unavailable(f"facts of epoch {epoch!r} came without a snapshot")
        match kind:
            case "snapshot_started":
                self._new_snapshot(epoch, set(event.snapshot_started.backends))
            case "synced":
                self._epoch.pending.discard(event.synced.backend)
                self._queue_all_unaccepted()
            case "pod":
                self._facts_changed(event.revision, event.pod)
        self._epoch.revision = max(self._epoch.revision, event.revision)
        if not self._epoch.pending and not self._epoch.synced:
            self._epoch.synced = True
            self._provider_synced.set()
            self._news.set()
            self._find_orphans()

    def _new_snapshot(self, epoch: str, backends: set[str]) -> None:
        self._epoch = Epoch(epoch, 0, backends, since=self._clock())
        self._provider_synced.clear()
        for uid, entry in self._entries.items():
            # What we know stays what the status says; only who must be told starts anew.
            entry.facts, entry.revision, entry.acked = None, 0, 0
            self._queue.add(uid)

    def _queue_all_unaccepted(self) -> None:
        for uid, entry in self._entries.items():
            if entry.accepted != self._epoch.name:
                self._queue.add(uid)

    def _facts_changed(self, revision: int, facts: pod_pb2.PodFacts) -> None:
        uid = facts.pod.uid
        if (facts.pod.cluster, facts.pod.node) != (self._cluster.id, self._cluster.node):
            _log.warning("the provider told of pod %s of another cluster or node", uid)
            return
        entry = self._entries.get(uid)
        if entry is None:
            entry = self._entries[uid] = Entry(facts.pod)
        elif entry.pod is not None and facts.pod.attempt < entry.who.attempt:
            # An attempt that was given up: not what the pod's status is about.
            return
        entry.facts, entry.revision = facts, revision
        self._queue.add(uid)

    def _find_orphans(self) -> None:
        """Work that belongs to us and to no pod: only once both sides were heard in full."""
        if not (self._cluster_synced.is_set() and self._epoch.synced):
            return
        for uid, entry in self._entries.items():
            if entry.pod is None:
                self._queue.add(uid)

    def _say_back(self) -> None:
        adopted = sum(
            1
            for entry in self._entries.values()
            if entry.facts is not None
            and entry.facts.stage in (pod_pb2.POD_STAGE_ACTIVE, pod_pb2.POD_STAGE_ENDED)
            and entry.pod is not None
            and entry.pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        )
        self._note(ProviderNote("back", adopted=adopted))

    # One step of one pod.

    async def _step(self, uid: str) -> float | None:
        entry = self._entries.get(uid)
        if entry is None or not self._epoch.name:
            return None
        if entry.pod is None:
            return await self._without_pod(uid, entry)
        if (patience := self._epoch.since + SYNC_PATIENCE - self._clock()) > 0 and (
            not self._epoch.synced and entry.accepted != self._epoch.name
        ):
            # What the backends have of it is about to be told: when it began, above all.
            return patience
        deleting = "deletionTimestamp" in entry.pod["metadata"]
        over = entry.pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        wake: float | None = None
        if deleting:
            if not (entry.has_ended and self._was_ended(entry)):
                await self._adopt(entry)
                await self._end(entry, _grace(entry.pod))
        elif not over:
            wake = await self._keep(entry)
        elif entry.runs and (entry.accepted == self._epoch.name or entry.is_seen_running):
            # Somebody else has written its end: nothing of it may run on. What a provider that has
            # started anew tells of before it was asked may have ended all the same.
            await self._end(entry, _grace(entry.pod))
        await self._report(entry)
        # An end that came while something older was being written waits for the next step.
        told = entry.told is entry.facts
        if entry.pod is not None and deleting and told and entry.has_ended:
            await self._cluster.delete(entry.pod)
        return wake

    async def _without_pod(self, uid: str, entry: Entry) -> float | None:
        """The cluster has no such pod: nothing of it may stay at the provider."""
        facts = entry.facts
        if facts is not None and facts.stage == pod_pb2.POD_STAGE_GONE:
            self._ack(uid, entry)
            del self._entries[uid]
            self._queue.forget(uid)
            self._left.set()
            return None
        if not (self._cluster_synced.is_set() and self._epoch.synced):
            return None
        who = entry.who
        if not entry.orphan and await self._cluster.exists(who.namespace, who.name, who.uid):
            # A cache was behind; the watch will tell. Looked at again in case it does not.
            return RECONNECT_LONGEST
        entry.orphan = True
        await self._end(entry, 0.0)
        if facts is not None and facts.stage == pod_pb2.POD_STAGE_ENDED:
            self._ack(uid, entry)
        return None

    async def _keep(self, entry: Entry) -> float | None:
        """Makes sure that the provider has the pod, as it is now. Seconds after which to look
        again, where something that the pod refers to is missing."""
        pod = entry.pod
        assert pod is not None
        try:
            if entry.accepted != self._epoch.name or entry.incomplete:
                if (refusal := await self._refusal(entry)) is not None:
                    await self._reject(entry, *refusal)
                    # A pod that is held rather than failed may find room later.
                    return MISSING_RETRY
                entry.stale = False
                await self._create(entry)
            due = entry.stale or entry.sent != version(pod)
            if entry.accepted and (due or (entry.resize is not None and entry.resize.may_come)):
                await self._update(entry, again=not due)
        except (Invalid, Unsupported) as error:
            await self._refused(entry, error)
        may_come = entry.resize is not None and entry.resize.may_come
        return MISSING_RETRY if entry.incomplete or entry.stale or may_come else None

    async def _update(self, entry: Entry, *, again: bool) -> None:
        """Tells the provider of the pod as it is now; `again`: of what it asks for only."""
        pod = entry.pod
        assert pod is not None
        entry.stale = False
        try:
            entry.resize = await self._updater.bring(
                pod, entry.who, entry.facts, filled=not entry.incomplete, again=again
            )
        except BridgeError as error:
            entry.stale = not error.permanent
            raise
        entry.sent = version(pod)
        if words := self._builder.kept.pop(entry.who.uid, ""):
            # As the kubelet has it: all else is in force, and this is tried again.
            entry.stale = True
            await self._tell_once(entry, "FailedMount", words)

    async def _adopt(self, entry: Entry) -> None:
        """A provider that has started anew learns what it is to end: its hooks, and its containers'
        order. Where that cannot be told, it ends all the same."""
        pod = entry.pod
        assert pod is not None
        if entry.runs and entry.accepted != self._epoch.name and _grace(pod) > 0:
            try:
                await self._create(entry)
            except BridgeError as error:
                _log.info("pod %s is ended as it is: %s", entry.who.uid, error)

    async def _create(self, entry: Entry) -> None:
        pod = entry.pod
        assert pod is not None
        epoch = self._epoch.name
        if entry.started is None:
            entry.started = self._clock()
            if entry.facts is not None and entry.facts.HasField("accepted_at"):
                # It runs since an earlier life of ours, whose record of it is lost.
                entry.started = float(entry.facts.accepted_at.seconds)
        given = in_force(pod)
        request = await self._builder.create(given, entry.who, entry.started)
        response = await self._provider.create_pod(request)
        if response.HasField("proposed"):
            placed = {
                PLACED_ON: response.proposed.backend,
                ATTEMPT: str(response.proposed.attempt),
            }
            changed = await self._cluster.annotate(pod, placed)
            if changed is None:
                entry.pod = None
                return
            entry.pod = pod = given = changed
            entry.who.attempt = response.proposed.attempt
            request = await self._builder.create(pod, entry.who, entry.started)
            response = await self._provider.create_pod(request)
        first = not entry.accepted and "startTime" not in pod.get("status", {})
        entry.accepted = epoch
        self._news.set()
        entry.sent = None
        if given is pod and response.accepted.generation == request.generation:
            entry.sent = version(pod)
        entry.incomplete = bool(missing(request))
        for words in self._builder.skipped.pop(entry.who.uid, ()):
            await self._tell_once(entry, "InvalidEnvironmentVariableNames", words)
        for one in response.accepted.approximations if first else ():
            await self._cluster.event(
                pod, "Warning", "FieldApproximated", f"{one.field}: {one.message}"
            )

    async def _tell_once(self, entry: Entry, reason: str, message: str) -> None:
        if entry.pod is not None and message != entry.problem:
            entry.problem = message
            await self._cluster.event(entry.pod, "Warning", reason, message)

    async def _refused(self, entry: Entry, error: Invalid | Unsupported) -> None:
        pod = entry.pod
        assert pod is not None
        if entry.accepted or entry.runs:
            # Only a change was refused: the pod runs on as it was.
            entry.sent = version(pod)
            if in_force(pod) is not pod:
                entry.resize = Resize("Infeasible", pod["metadata"]["generation"], error.message)
            await self._cluster.event(pod, "Warning", "UpdateRefused", error.message)
            return
        await self._reject(entry, error.kind, error.message)

    async def _reject(self, entry: Entry, reason: str, message: str) -> None:
        pod = entry.pod
        assert pod is not None
        if is_daemons(pod):
            # Its controller would make a failed one anew, for ever: it waits, and says why.
            await self._tell_once(entry, reason, message)
            self._news.set()
            return
        await self._cluster.event(pod, "Warning", reason, message)
        await self._patch(entry, rejected(pod, reason, message, self._clock()))
        self._news.set()

    async def _refusal(self, entry: Entry) -> tuple[str, str] | None:
        """Why the node does not admit a pod that is new: one that has begun is never put out."""
        pod = entry.pod
        assert pod is not None
        if entry.accepted or entry.facts is not None or "startTime" in (pod.get("status") or {}):
            return None
        return await self._cluster.refuses(pod)

    async def _end(self, entry: Entry, grace: float) -> None:
        sent = entry.delete_sent
        if sent is not None and sent[0] == self._epoch.name and sent[1] <= grace:
            return
        await self._provider.delete_pod(
            pb.DeletePodRequest(
                pod=entry.who, grace_period_seconds=int(grace), epoch=self._epoch.name
            )
        )
        entry.delete_sent = (self._epoch.name, grace)

    async def _report(self, entry: Entry) -> None:
        """Brings the newest facts into the pod's status; acknowledges what must not be lost."""
        pod, facts, revision = entry.pod, entry.facts, entry.revision
        if pod is None or facts is None or not self._tells_something(entry, facts):
            return
        gates = foreign_conditions(pod)
        shown = (passed(entry.resize, facts), entry.sent)
        told = facts is entry.told and gates == entry.gates and shown == entry.shown
        if not told or self._placement(entry, pod):
            if entry.resize is not None and shown[0] is None:
                await self._updater.completed(pod)
            entry.resize = shown[0]
            settled = entry.resize is None and entry.sent == version(pod)
            given = pod if settled else in_force(pod)
            hosts = self._cluster.host_ips()
            new = status(given, facts, self._clock(), entry.resize, hosts)
            await self._patch(entry, new)
            entry.gates, entry.shown = gates, shown
            for one in events(pod, entry.told, facts):
                await self._cluster.event(pod, *one)
            entry.told = facts
            self._news.set()
        if facts.stage in (pod_pb2.POD_STAGE_ENDED, pod_pb2.POD_STAGE_GONE) and (
            entry.revision == revision
        ):
            self._ack(facts.pod.uid, entry)

    def _tells_something(self, entry: Entry, facts: pod_pb2.PodFacts) -> bool:
        """A pod found at a backend is told before we asked for it: its restarts and its end are
        not decided yet, so its status waits for the provider to have the pod's manifest."""
        if facts.stage in (pod_pb2.POD_STAGE_ENDED, pod_pb2.POD_STAGE_GONE):
            return True
        return entry.accepted == self._epoch.name or entry.delete_sent is not None

    async def _patch(self, entry: Entry, new: Manifest) -> None:
        pod = entry.pod
        assert pod is not None
        if entry.started is not None and "startTime" not in pod.get("status", {}):
            # What the provider was told: the deadline counts from it.
            new["startTime"] = rfc3339(entry.started)
        placed = self._placement(entry, pod)
        if not placed and same(pod.get("status", {}), new):
            return
        changed = await self._cluster.patch_status(pod, new, placed)
        if changed is None:
            entry.pod = None
        elif entry.pod is pod:
            # A newer object may have come by the watch meanwhile: that one stays.
            entry.pod = changed

    def _placement(self, entry: Entry, pod: Manifest) -> dict[str, str]:
        """Where the pod runs, unless the pod says just that itself: others can write there too."""
        backend = entry.facts.backend if entry.facts is not None else ""
        if not backend or (pod["metadata"].get("annotations") or {}).get(PLACED_ON) == backend:
            return {}
        return {PLACED_ON: backend, ATTEMPT: str(entry.who.attempt)}

    def _was_ended(self, entry: Entry) -> bool:
        """Whether the provider, in its present life, was told to end it."""
        return entry.delete_sent is not None and entry.delete_sent[0] == self._epoch.name

    def _ack(self, uid: str, entry: Entry) -> None:
        if entry.revision > entry.acked:
            entry.acked = entry.revision
            self._acks[uid] = pb.PodAck(uid=uid, attempt=entry.who.attempt, revision=entry.revision)
            self._ack_now.set()

    async def _send_acks(self) -> None:
        while True:
            await self._ack_now.wait()
            self._ack_now.clear()
            acks, self._acks = self._acks, {}
            epoch = self._epoch.name
            try:
                await self._provider.ack_pods(
                    pb.AckPodsRequest(
                        cluster=self._cluster.id, epoch=epoch, pods=list(acks.values())
                    )
                )
            except BridgeError as error:
                _log.info("acknowledging: %s", error)
                if epoch == self._epoch.name:
                    self._acks = {**acks, **self._acks}
                    self._ack_now.set()
                await asyncio.sleep(RECONNECT_FIRST)


def _grace(pod: Manifest) -> float:
    seconds = pod["metadata"].get("deletionGracePeriodSeconds")
    if seconds is None:
        seconds = pod["spec"].get("terminationGracePeriodSeconds", 30)
    return float(seconds)
