"""The objects of one run, as the API server would hold them: a Cluster made of manifests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bridge.agent.cluster import Lack, PodEvent
from bridge.errors import Unsupported
from bridge.pods import Manifest
from bridge.times import rfc3339

Kind = Literal["Pod", "Job", "Event", "Run"]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one object. `object` is whole: for an Event a v1.Event, for a Run
    `{"name", "phase", "message"}`. SYNCED (kind Run) ends what was there before."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "SYNCED"]
    kind: Kind
    object: Manifest


async def until(
    changes: AsyncIterator[Change], over: asyncio.Event
) -> AsyncGenerator[Change, None]:
    """The changes up to their end or until `over` is set: all that were told before that."""
    ending = asyncio.create_task(over.wait())
    following = asyncio.ensure_future(anext(changes, None))
    try:
        while True:
            await asyncio.wait([following, ending], return_when=asyncio.FIRST_COMPLETED)
            if not following.done() or (change := following.result()) is None:
                return
            yield change
            following = asyncio.ensure_future(anext(changes, None))
    finally:
        following.cancel()
        ending.cancel()


class Store:
    """Pods, Jobs and events in memory, and those who watch them.

    Implements `bridge.agent.cluster.Cluster`. `clock` gives seconds since the epoch. `on_ended` is
    called with a deleted pod before its last status is acknowledged to the provider:
    afterwards the backend may forget the pod, and only that record says that it has run.
    """

    def __init__(
        self,
        cluster: str,
        node: str,
        references: Iterable[Manifest] = (),
        *,
        clock: Callable[[], float] = time.time,
        on_ended: Callable[[Manifest], None] = lambda _: None,
    ) -> None:
        self.id = cluster
        self.node = node
        self.pods: dict[str, Manifest] = {}
        self.removed: dict[str, Manifest] = {}
        """Pods that were deleted and have ended, with their last status."""
        self.jobs: dict[str, Manifest] = {}
        self.events: list[Manifest] = []
        self.complete = False
        """Whether what is not here does not exist: while a run resumes it may not be here yet."""
        self._clock = clock
        self._on_ended = on_ended
        self._references = {
            (one["kind"], one["metadata"].get("namespace", "default"), one["metadata"]["name"]): one
            for one in references
        }
        self.version = 0
        """Rises with each change of a pod or Job."""
        self._watchers: set[asyncio.Queue[Change]] = set()

    # For whoever shows or controls the run.

    def changes(self) -> AsyncIterator[Change]:
        """All objects, SYNCED, then every change from the call on."""
        queue: asyncio.Queue[Change] = asyncio.Queue()
        for kind, objects in self._snapshot():
            for one in objects:
                queue.put_nowait(Change("ADDED", kind, one))
        queue.put_nowait(Change("SYNCED", "Run", {}))
        self._watchers.add(queue)
        return self._drain(queue)

    def add_pod(self, pod: Manifest, ended: Manifest | None = None) -> None:
        """Creates a pod, bound to our node. `ended`: its annotations and status at its deletion, as
        it had ended in an earlier life."""
        metadata = pod["metadata"]
        if ended is not None:
            metadata["annotations"] = ended["annotations"]
        metadata.setdefault("creationTimestamp", rfc3339(self._clock()))
        metadata.setdefault("generation", 1)
        pod["spec"]["nodeName"] = self.node
        pod["status"] = (
            ended["status"]
            if ended is not None
            else {
                "phase": "Pending",
                "conditions": [_scheduled(metadata["creationTimestamp"])],
            }
        )
        if ended is not None:
            self.removed[metadata["uid"]] = pod
        else:
            self.pods[metadata["uid"]] = pod
        self._tell("ADDED", "Pod", pod)

    def put_job(self, job: Manifest) -> None:
        """Creates or replaces a Job."""
        uid = job["metadata"]["uid"]
        known = uid in self.jobs
        self.jobs[uid] = job
        self._tell("MODIFIED" if known else "ADDED", "Job", job)

    def order_deletion(
        self, uid: str, grace: float | None = None, annotations: dict[str, str] | None = None
    ) -> None:
        """What `kubectl delete pod` does: a deletion timestamp; a later one may only be sooner."""
        pod = self.pods.get(uid)
        if pod is None:
            return
        if grace is None:
            grace = float(pod["spec"].get("terminationGracePeriodSeconds", 30))
        metadata = dict(pod["metadata"])
        before = metadata.get("deletionGracePeriodSeconds")
        if before is not None and before <= grace:
            return
        metadata["deletionGracePeriodSeconds"] = int(grace)
        metadata["deletionTimestamp"] = rfc3339(self._clock() + grace)
        metadata["annotations"] = {**metadata.get("annotations", {}), **(annotations or {})}
        self._replace({**pod, "metadata": metadata})

    def tell_run(self, run: Manifest) -> None:
        """Passes on news of the run itself."""
        self._tell("MODIFIED", "Run", run)

    def record_event(
        self, about: Manifest, kind: str, reason: str, message: str, field: str = ""
    ) -> None:
        """Adds a v1.Event; one with the same words about the same object is counted up."""
        metadata = about["metadata"]
        now = rfc3339(self._clock())
        involved = {
            "kind": about.get("kind", "Pod"),
            "namespace": metadata.get("namespace", "default"),
            "name": metadata["name"],
            "uid": metadata["uid"],
            **({"fieldPath": field} if field else {}),
        }
        for one in reversed(self.events[-50:]):
            if (one["involvedObject"], one["reason"], one["message"]) == (
                involved,
                reason,
                message,
            ):
                one["count"] += 1
                one["lastTimestamp"] = now
                self._tell("MODIFIED", "Event", one)
                return
        event: Manifest = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name']}.{len(self.events):x}",
                "namespace": metadata.get("namespace", "default"),
            },
            "involvedObject": involved,
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": "podbridge"},
        }
        self.events.append(event)
        self._tell("ADDED", "Event", event)

    # Cluster.

    async def watch(self) -> AsyncIterator[PodEvent]:
        """`Cluster.watch`."""
        async for change in self.changes():
            if change.type == "SYNCED":
                yield PodEvent("SYNCED", {})
            elif change.kind == "Pod" and change.object["metadata"]["uid"] not in self.removed:
                yield PodEvent(change.type, change.object)
            elif change.kind == "Pod" and change.type == "DELETED":
                yield PodEvent("DELETED", change.object)

    async def exists(self, namespace: str, name: str, uid: str) -> bool:
        """`Cluster.exists`."""
        return uid in self.pods or not (self.complete or uid in self.removed)

    async def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """`Cluster.get`."""
        return self._references.get((kind, namespace, name))

    async def service_variables(self, pod: Manifest) -> list[tuple[str, str]]:
        """`Cluster.service_variables`: there are no Services."""
        return []

    def allocatable(self) -> Mapping[str, str]:
        """`Cluster.allocatable`: nobody has measured anything."""
        return {}

    def host_ips(self) -> Sequence[str]:
        """`Cluster.host_ips`: only a backend knows where a pod is."""
        return ()

    async def refuses(self, pod: Manifest) -> tuple[str, str] | None:
        """`Cluster.refuses`: there is one node, and every pod is its own."""
        return None

    def lacks(self, pod: Manifest) -> Lack | None:
        """`Cluster.lacks`: pods wait for room, as nobody else could run them."""
        return None

    async def patch_status(
        self, pod: Manifest, status: Manifest, annotations: dict[str, str]
    ) -> Manifest | None:
        """`Cluster.patch_status`."""
        current = self.pods.get(pod["metadata"]["uid"])
        if current is None:
            return None
        metadata = dict(current["metadata"])
        if annotations:
            metadata["annotations"] = {**metadata.get("annotations", {}), **annotations}
        # A pod that a run came back to is older than its object here.
        metadata["creationTimestamp"] = min(
            metadata["creationTimestamp"], status.get("startTime", metadata["creationTimestamp"])
        )
        changed = {**current, "metadata": metadata, "status": status}
        if "deletionTimestamp" in current["metadata"] and status.get("phase") in (
            "Succeeded",
            "Failed",
        ):
            self._on_ended({**current, "metadata": metadata, "status": status})
        self._replace(changed)
        return changed

    async def annotate(self, pod: Manifest, annotations: dict[str, str]) -> Manifest | None:
        """`Cluster.annotate`."""
        current = self.pods.get(pod["metadata"]["uid"])
        if current is None:
            return None
        merged = {**current["metadata"].get("annotations", {}), **annotations}
        changed = {**current, "metadata": {**current["metadata"], "annotations": merged}}
        self._replace(changed)
        return changed

    async def event(
        self, pod: Manifest, kind: str, reason: str, message: str, field: str = ""
    ) -> None:
        """`Cluster.event`."""
        self.record_event(pod, kind, reason, message, field)

    async def token(self, pod: Manifest, audience: str, seconds: int) -> str:
        """`Cluster.token`: there is nobody here to issue one."""
        raise Unsupported("service account tokens need a cluster")

    async def delete(self, pod: Manifest) -> None:
        """`Cluster.delete`: a Job still counts the pod, so it is set aside, not dropped."""
        current = self.pods.pop(pod["metadata"]["uid"], None)
        if current is not None:
            self.removed[current["metadata"]["uid"]] = current
            self._tell("DELETED", "Pod", current)

    def _snapshot(self) -> list[tuple[Kind, list[Manifest]]]:
        pods = [*self.removed.values(), *self.pods.values()]
        return [("Job", list(self.jobs.values())), ("Pod", pods), ("Event", self.events)]

    def _replace(self, pod: Manifest) -> None:
        self.pods[pod["metadata"]["uid"]] = pod
        self._tell("MODIFIED", "Pod", pod)

    def _tell(
        self, what: Literal["ADDED", "MODIFIED", "DELETED"], kind: Kind, one: Manifest
    ) -> None:
        if kind in ("Pod", "Job"):
            self.version += 1
            one["metadata"]["resourceVersion"] = str(self.version)
        change = Change(what, kind, one)
        for watcher in self._watchers:
            watcher.put_nowait(change)

    async def _drain(self, queue: asyncio.Queue[Change]) -> AsyncIterator[Change]:
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.discard(queue)


def _scheduled(now: str) -> Manifest:
    return {
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": now,
    }
