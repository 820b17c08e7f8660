"""The contract's calls on its messages: what a server serves, and what a run calls directly."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace

import orjson

import bridge
from bridge import adapter as seam
from bridge import quantity
from bridge.errors import Invalid, NotFound, Unavailable, Unsupported, Violation
from bridge.pods import Manifest
from bridge.pods.schema import check
from bridge.provider.backend import Backend
from bridge.provider.capabilities import Assessment, judge
from bridge.provider.facts import exit_from_wire, identity_from_wire, seconds
from bridge.provider.health import RanBefore
from bridge.provider.placement import candidates, eligible, wanted
from bridge.provider.record import Record
from bridge.provider.stats import stats
from bridge.provider.streams import serve_attach, serve_exec, serve_port_forward
from bridge.provider.tracker import Tracker
from bridge.provider.translate import MARKERS, Request, translate
from bridge.provider.update import apply, assess, with_kept_files
from bridge.requests import pod_request
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.rpc.v1 import stream_pb2 as streams
from bridge.rpc.v1.stream_pb2 import STREAM_STDERR, STREAM_STDOUT
from bridge.workload import Identity, Waiting, Workload

DEFAULT_GRACE = 30.0
"""Seconds of grace where neither the pod nor its deletion says (API default)."""
MAX_RUN = 24 * 3600.0
"""Seconds after which a pod without activeDeadlineSeconds is stopped, unless the operator says
otherwise: nobody's forgotten pod bills for ever."""

_log = logging.getLogger(__name__)


class Provider:
    """A provider over some backends. `run` must be running for anything to happen."""

    def __init__(self, tracker: Tracker, *, max_run: float = MAX_RUN) -> None:
        self._tracker = tracker
        self._max_run = max_run

    @property
    def read_only(self) -> bool:
        """Whether it looks and tells, and changes nothing at any backend."""
        return self._tracker.read_only

    async def run(self) -> None:
        """Sees to the pods until cancelled."""
        await self._tracker.run()

    async def settled(self) -> None:
        """Returns once every backend is listed and no pod has a step due now."""
        for backend in self._tracker.backends.values():
            await backend.synced.wait()
        await self._tracker.queue.settled()

    async def create_pod(self, request: pb.CreatePodRequest) -> pb.CreatePodResponse:
        """`CreatePod`."""
        identity = _checked(request.pod)
        known = self._tracker.records.get((identity.cluster, identity.uid))
        if known is not None and _gives_way(known, identity):
            known = None
        if known is not None and (known.gone or known.text is not None):
            # Also one that is gone already: a pod that has had its end never runs again.
            await self._catch_up(known, request)
            return _accepted(known, ())
        manifest = _manifest(request.manifest, identity)
        metadata = manifest.get("metadata") or {}
        ends = "deletionTimestamp" in metadata
        if ends and (known is None or known.launched_at is None):
            raise NotFound(f"pod {identity.uid} is being deleted, and nothing of it is here")
        if known is None and request.recorded.backend:
            self._look_elsewhere(manifest, request.recorded.backend)
        # Where it was found it stays, whatever was recorded.
        backends = self._eligible(manifest, _found_on(known) or request.recorded.backend)
        record = Record(identity, generation=request.generation)
        record.ask(request)
        _remember(record, request)
        # What runs already is adopted: only what has not begun can be refused.
        begun = known is not None and known.launched_at is not None
        judged = not (begun or request.recorded.started)
        unlisted = ", ".join(one.name for one in backends if not one.synced.is_set())
        try:
            able, approximations = self._place(record, request, manifest, backends, judged=judged)
        except (Invalid, Unsupported):
            if known is None and request.recorded.backend and unlisted:
                # It may run there already, and then nothing refuses it.
                raise Unavailable(f"waiting for {unlisted} to be listed") from None
            raise
        if len(able) > 1:
            if unlisted:
                # One of them may have the pod already.
                raise Unavailable(f"waiting for {unlisted} to be listed")
            return pb.CreatePodResponse(
                proposed=pb.Proposed(backend=able[0], attempt=identity.attempt)
            )
        if known is not None:
            if ends:
                # In one step: what has ended would be started again.
                grace = metadata.get("deletionGracePeriodSeconds")
                spec = record.workload.grace if record.workload else DEFAULT_GRACE
                self._tracker.order_stop(known, float(spec if grace is None else grace))
            self._take_over(known, record)
            return _accepted(known, approximations)
        record.backend = self._tracker.backends[able[0]]
        self._tracker.add(record)
        return _accepted(record, approximations)

    async def _catch_up(self, record: Record, request: pb.CreatePodRequest) -> None:
        """A repeated creation may bring other contents of what the pod refers to: nobody else tells
        of those that changed while the caller was away. Another generation is for UpdatePod, which
        the older one in the answer asks for."""
        other = request.generation != record.generation
        if record.ended or record.backend is None or self.read_only or other:
            return
        async with record.updating:
            try:
                await self._update(record, record.backend, request, record.identity)
            except (Invalid, Unsupported) as error:
                _log.warning("pod %s: %s", record.identity.uid, error)

    async def update_pod(self, request: pb.UpdatePodRequest) -> pb.UpdatePodResponse:
        """`UpdatePod`."""
        identity = _checked(request.pod)
        record = self._tracker.records.get((identity.cluster, identity.uid))
        if record is None or record.text is None or record.backend is None:
            raise NotFound(f"pod {identity.uid} is not known: create it first")
        async with record.updating:
            # One after the other: a slow older one must not undo a newer one.
            return await self._update(record, record.backend, request, identity)

    async def _update(
        self, record: Record, backend: Backend, request: Request, identity: Identity
    ) -> pb.UpdatePodResponse:
        if request.generation < record.generation:
            return pb.UpdatePodResponse(generation=record.generation)
        # The same generation may come with other contents: those of what the pod refers to.
        manifest = _manifest(request.manifest, identity)
        workload = self._translate(request, manifest, record.start_time, backend.adapter)
        if record.workload is not None and not workload.pull_credentials:
            # An update carries no credentials: those of the creation stay.
            kept = record.workload.pull_credentials
            workload = replace(workload, pull_credentials=kept)
        workload = with_kept_files(workload, record.workload)
        change = assess(record, backend.adapter, manifest, workload)
        await apply(record, backend, change)
        record.ask(request)
        record.generation = request.generation
        record.not_ready = _not_ready(request)
        self._tracker.changed(record)
        return pb.UpdatePodResponse(generation=record.generation)

    async def delete_pod(self, request: pb.DeletePodRequest) -> pb.DeletePodResponse:
        """`DeletePod`."""
        identity = _checked(request.pod)
        record = self._tracker.records.get((identity.cluster, identity.uid))
        is_asked = record is not None and record.text is not None
        if request.epoch not in ("", self._tracker.epoch) and not is_asked:
            raise Unavailable("the provider has started anew, and was not asked for the pod yet")
        if record is None:
            record = Record(identity)
            self._tracker.add(record)
        if request.HasField("grace_period_seconds"):
            grace = float(max(0, request.grace_period_seconds))
        else:
            grace = record.workload.grace if record.workload else DEFAULT_GRACE
        self._tracker.order_stop(record, grace)
        return pb.DeletePodResponse()

    async def ack_pods(self, request: pb.AckPodsRequest) -> pb.AckPodsResponse:
        """`AckPods`."""
        _require_uuid("cluster", request.cluster)
        if request.epoch == self._tracker.epoch:
            for ack in request.pods:
                record = self._tracker.records.get((request.cluster, ack.uid))
                if record is not None:
                    self._tracker.acknowledge(record, ack.revision)
        return pb.AckPodsResponse()

    async def watch_pods(self, request: pb.WatchPodsRequest) -> AsyncIterator[pb.WatchPodsResponse]:
        """`WatchPods`."""
        _require_uuid("cluster", request.cluster)
        journal = self._tracker.journal(request.cluster, request.node)
        async for message in journal.watch(request.epoch, request.revision):
            yield message

    async def watch_node(self, request: pb.WatchNodeRequest) -> AsyncIterator[pb.WatchNodeResponse]:
        """`WatchNode`."""
        last: pb.WatchNodeResponse | None = None
        while True:
            offer = self.offer()
            if offer != last:
                last = offer
                yield offer
            await asyncio.sleep(1.0)

    async def get_container_logs(
        self, request: pb.GetContainerLogsRequest
    ) -> AsyncIterator[pb.GetContainerLogsResponse]:
        """`GetContainerLogs`."""
        identity = _checked(request.pod)
        if request.HasField("since_seconds") and request.HasField("since_time"):
            raise Invalid("give since_seconds or since_time, not both")
        record = self._tracker.records.get((identity.cluster, identity.uid))
        backend = record.backend if record is not None else None
        if record is None or backend is None or record.launched_at is None:
            if self._tracker.read_only:
                # Another process runs it, perhaps since the last list.
                for one in self._tracker.backends.values():
                    one.refresh()
            raise NotFound(f"pod {identity.namespace}/{identity.name} has no log here (yet)")
        adapter = backend.adapter
        if not isinstance(adapter, seam.Logs):
            raise Unsupported(f"backend {backend.name} keeps no logs")
        options = self._log_options(request)
        async for piece in adapter.logs(record.identity, request.container, options):
            yield pb.GetContainerLogsResponse(content=piece)

    def exec(
        self, requests: AsyncIterator[streams.ExecRequest]
    ) -> AsyncGenerator[streams.ExecResponse, None]:
        """`Exec`."""
        return serve_exec(requests, self._placed)

    def attach(
        self, requests: AsyncIterator[streams.AttachRequest]
    ) -> AsyncGenerator[streams.AttachResponse, None]:
        """`Attach`."""
        return serve_attach(requests, self._placed)

    def port_forward(
        self, requests: AsyncIterator[streams.PortForwardRequest]
    ) -> AsyncGenerator[streams.PortForwardResponse, None]:
        """`PortForward`."""
        return serve_port_forward(requests, self._placed)

    async def get_stats(self, request: pb.GetStatsRequest) -> pb.GetStatsResponse:
        """`GetStats`."""
        _require_uuid("cluster", request.cluster)
        if not request.node:
            raise Invalid(violations=[Violation("node", "required")])
        return await stats(
            record
            for (cluster, uid), record in self._tracker.records.items()
            if cluster == request.cluster
            and record.identity.node == request.node
            and (not request.uids or uid in request.uids)
        )

    def offer(self) -> pb.WatchNodeResponse:
        """What the backends have together."""
        total: dict[str, int] = {}
        offer = pb.WatchNodeResponse(provider_version=bridge.__version__)
        for backend in self._tracker.backends.values():
            ready, message = backend.status()
            offer.backends.add(
                name=backend.name,
                type=backend.adapter.type,
                abilities=seam.abilities(backend.adapter),
                capacity=_quantities(backend.limits),
                ready=ready,
                message=message,
            )
            for name, limit in backend.limits.items():
                total[name] = total.get(name, 0) + limit
        offer.capacity.update(_quantities(total))
        offer.allocatable.update(_quantities(total))
        return offer

    def _eligible(self, manifest: Manifest, recorded: str) -> Sequence[Backend]:
        """The backends that the pod may run on: the recorded one, or those that may be chosen."""
        backends = self._tracker.backends
        if not recorded:
            places = [backend.place for backend in backends.values()]
            return [backends[place.name] for place in eligible(places, wanted(manifest))]
        if (backend := backends.get(recorded)) is None:
            found = f'found "{recorded}"; the backends are: {", ".join(backends)}'
            raise Invalid(violations=[Violation("recorded.backend", found)])
        return [backend]

    def _look_elsewhere(self, manifest: Manifest, recorded: str) -> None:
        """Unavailable as long as a pod which is said to have been placed may be on another backend:
        anybody who may change the pod can change that record."""
        backends = self._tracker.backends
        try:
            others = self._eligible(manifest, "")
        except Invalid:
            others = tuple(backends.values())
        unlisted = [one.name for one in others if one.name != recorded and not one.synced.is_set()]
        if unlisted:
            raise Unavailable(f"waiting for {', '.join(unlisted)} to be listed")

    def _placed(self, pod: pod_pb2.PodIdentity) -> tuple[Identity, Backend]:
        """Who a pod is to its backend, once that has it. Invalid, NotFound."""
        identity = _checked(pod)
        record = self._tracker.records.get((identity.cluster, identity.uid))
        if record is None or record.backend is None or record.launched_at is None:
            raise NotFound(f"pod {identity.namespace}/{identity.name} does not run here (yet)")
        return record.identity, record.backend

    def _place(
        self,
        record: Record,
        request: Request,
        manifest: Manifest,
        backends: Sequence[Backend],
        *,
        judged: bool,
    ) -> tuple[Sequence[str], Sequence[tuple[str, str]]]:
        """The backends that can run the pod, the first being chosen; its workload is set."""
        assessed: dict[str, Assessment] = {}
        workloads: dict[str, Workload] = {}
        for backend in backends:
            workload = self._translate(request, manifest, record.start_time, backend.adapter)
            assessed[backend.name] = (
                judge(backend.adapter, manifest, workload) if judged else Assessment()
            )
            workloads[backend.name] = workload
        size = pod_request(next(iter(workloads.values())))
        if not judged and len(backends) == 1:
            # It is there, whatever the operator's limits say by now.
            record.workload, record.size = workloads[backends[0].name], size
            return [backends[0].name], ()
        placed = candidates([backend.place for backend in backends], assessed, size)
        chosen = placed.names[0]
        record.workload, record.size = workloads[chosen], size
        return placed.names, assessed[chosen].approximations

    def _translate(
        self,
        request: Request,
        manifest: Manifest,
        start_time: float | None,
        adapter: seam.Adapter,
    ) -> Workload:
        late = MARKERS if isinstance(adapter, seam.FillsIn) else None
        workload = translate(request, manifest, start_time=start_time, late=late)
        return replace(workload, hard_stop=self._hard_stop(workload))

    def _hard_stop(self, workload: Workload) -> float:
        """Seconds after a container's start. Counted from the pod's it may come later than the
        deadline by what the pod waited, but it comes though nobody of us lives."""
        return min(self._max_run, workload.deadline or self._max_run)

    def _take_over(self, found: Record, asked: Record) -> None:
        """A pod that was found at its backend is now asked for: it is adopted, not started."""
        for name in (
            "text",
            "late",
            "generation",
            "workload",
            "size",
            "start_time",
            "seen_before",
            "ended_before",
            "ran_before",
            "not_ready",
        ):
            setattr(found, name, getattr(asked, name))
        self._tracker.changed(found)

    def _log_options(self, request: pb.GetContainerLogsRequest) -> seam.LogOptions:
        since: float | None = None
        if request.HasField("since_seconds"):
            since = self._tracker.clock() - request.since_seconds
        elif request.HasField("since_time"):
            since = seconds(request.since_time)
        streams = {STREAM_STDOUT: "stdout", STREAM_STDERR: "stderr"}
        return seam.LogOptions(
            follow=request.follow,
            previous=request.previous,
            since=since,
            timestamps=request.timestamps,
            tail_lines=request.tail_lines if request.HasField("tail_lines") else None,
            limit_bytes=request.limit_bytes if request.HasField("limit_bytes") else None,
            stream=streams.get(request.stream, ""),
        )


def _gives_way(known: Record, identity: Identity) -> bool:
    """Whether a pod that was never launched makes room for a later attempt."""
    return (
        identity.attempt > known.identity.attempt
        and known.text is not None
        and known.launched_at is None
        and not (known.tried or known.seen_before or known.ended or known.deleting)
    )


def _remember(record: Record, request: pb.CreatePodRequest) -> None:
    """What Kubernetes has on record of the pod, and what of it cannot start yet."""
    recorded = request.recorded
    if recorded.HasField("start_time"):
        record.start_time = seconds(recorded.start_time)
    record.seen_before = recorded.started
    record.not_ready = _not_ready(request)
    record.ran_before = {
        one.container: RanBefore(one.container_id, one.started, one.ready)
        for one in recorded.running
    }
    record.ended_before = {one.container: exit_from_wire(one.terminated) for one in recorded.ended}


def _not_ready(request: Request) -> dict[str, Waiting]:
    """By container: what it refers to is missing."""
    return {
        one.container: Waiting(one.not_ready.reason, one.not_ready.message)
        for one in request.environment
        if one.HasField("not_ready")
    }


def _accepted(record: Record, approximations: Sequence[tuple[str, str]]) -> pb.CreatePodResponse:
    accepted = pb.Accepted(
        backend=record.backend.name if record.backend else "",
        attempt=record.identity.attempt,
        generation=record.generation,
    )
    for field, message in approximations:
        accepted.approximations.add(field=field, message=message)
    return pb.CreatePodResponse(accepted=accepted)


def _found_on(known: Record | None) -> str:
    """The backend at which a pod was found: it stays there, whatever would be chosen now."""
    if known is None or known.backend is None:
        return ""
    return known.backend.name


def _checked(pod: pod_pb2.PodIdentity) -> Identity:
    wrong = [
        Violation(f"pod.{name}", "required")
        for name in ("node", "namespace", "name")
        if not getattr(pod, name)
    ]
    if pod.attempt < 0:
        wrong.append(Violation("pod.attempt", f"found {pod.attempt}; allowed: 0 or more"))
    if wrong:
        raise Invalid(violations=wrong)
    _require_uuid("pod.cluster", pod.cluster)
    _require_uuid("pod.uid", pod.uid)
    return identity_from_wire(pod)


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def _require_uuid(field: str, text: str) -> None:
    if not _UUID.fullmatch(text):
        raise Invalid(violations=[Violation(field, f'found "{text[:64]}"; allowed: a UUID')])


def _manifest(text: bytes, identity: Identity) -> Manifest:
    """The pod, shaped as a pod; Invalid where it is not, or is another pod than the identity's."""
    try:
        manifest = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Invalid(violations=[Violation("manifest", f"not JSON: {error}")]) from None
    if not isinstance(manifest, dict) or manifest.get("kind", "Pod") != "Pod":
        raise Invalid(violations=[Violation("manifest", "allowed: one v1.Pod")])
    if wrong := check(manifest, "Pod"):
        raise Invalid(violations=wrong)
    metadata = manifest.get("metadata") or {}
    for name in ("uid", "name", "namespace"):
        told = metadata.get(name)
        if told and told != getattr(identity, name):
            field = f"manifest.metadata.{name}"
            raise Invalid(violations=[Violation(field, f"differs from pod.{name}")])
    return manifest


def _quantities(amounts: Mapping[str, int]) -> dict[str, str]:
    return {
        name: quantity.format_cpu(amount) if name == "cpu" else str(amount)
        for name, amount in amounts.items()
    }
