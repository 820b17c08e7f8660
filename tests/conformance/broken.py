"""Providers that break the contract in one point each, as real ones have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from bridge.errors import BridgeError
from bridge.provider.record import Record
from bridge.provider.service import Provider
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.rpc.v1 import stream_pb2 as sp
from bridge.workload import ContainerState, Exit, Running

ENDED = pod_pb2.POD_STAGE_ENDED


class Broken(Provider):
    """What the defects share."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.began = asyncio.get_running_loop().time()

    def record(self, pod: pod_pb2.PodIdentity) -> Record | None:
        return self._tracker.records.get((pod.cluster, pod.uid))

    def is_deleted(self, pod: pod_pb2.PodIdentity) -> bool:
        record = self.record(pod)
        return record is not None and record.deleting

    async def delete_pod(self, request: pb.DeletePodRequest) -> pb.DeletePodResponse:
        answer = await super().delete_pod(request)
        record = self.record(request.pod)
        if record is not None and record.facts is not None:
            # No defect hides a pod from whoever removes it.
            journal = self._tracker.journal(request.pod.cluster, request.pod.node)
            record.revision = journal.publish(record.facts)
        return answer

    def event(self, event: pb.WatchPodsEvent, told: dict[str, Any]) -> bool:
        """Changes one event of WatchPods; False leaves it out. `told` is the stream's own."""
        return True

    async def watch_pods(self, request: pb.WatchPodsRequest) -> AsyncIterator[pb.WatchPodsResponse]:
        told: dict[str, Any] = {"request": request}
        async for message in super().watch_pods(request):
            copies = [pb.WatchPodsEvent.FromString(e.SerializeToString()) for e in message.events]
            if events := [one for one in copies if self.event(one, told)]:
                yield pb.WatchPodsResponse(epoch=message.epoch, events=events)


class RunsTwice(Broken):
    """A create that is repeated later launches the pod once more."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.asked: dict[str, float] = {}

    async def create_pod(self, request: pb.CreatePodRequest) -> pb.CreatePodResponse:
        answer = await super().create_pod(request)
        now = asyncio.get_running_loop().time()
        first = self.asked.setdefault(request.pod.uid, now)
        record = self.record(request.pod)
        if record is not None and now - first > 0.2 and record.observed is not None:
            (state,) = record.observed.containers
            if isinstance(state.state, Running) and state.restart == 0:
                assert record.backend is not None
                assert record.backend.containers is not None
                assert record.workload is not None
                await record.backend.containers.start(record.workload, state.name, 1)
        return answer


class LosesCode(Broken):
    """What ends with 3 is told as a success."""

    def event(self, event: pb.WatchPodsEvent, told: dict[str, Any]) -> bool:
        for one in event.pod.containers:
            if one.terminated.exit_code == 3:
                one.terminated.exit_code, one.terminated.reason = 0, "Completed"
        return True


class ForgetsRunning(Broken):
    """In its next life it does not know what runs."""

    def event(self, event: pb.WatchPodsEvent, told: dict[str, Any]) -> bool:
        unasked = event.pod.generation == 0 and not self.is_deleted(event.pod.pod)
        return not (unasked and any(one.HasField("running") for one in event.pod.containers))


class ForgetsEnds(Broken):
    """In its next life it does not know what has ended."""

    def event(self, event: pb.WatchPodsEvent, told: dict[str, Any]) -> bool:
        unasked = event.pod.generation == 0 and not self.is_deleted(event.pod.pod)
        return not (unasked and any(one.HasField("terminated") for one in event.pod.containers))


class GoesBack(Broken):
    """A stale list makes it tell for a moment that an ended pod runs."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ends: dict[str, pod_pb2.PodFacts] = {}

    def event(self, event: pb.WatchPodsEvent, told: dict[str, Any]) -> bool:
        facts, loop = event.pod, asyncio.get_running_loop()
        if facts.stage == ENDED and facts.pod.uid not in self.ends:
            self.ends[facts.pod.uid] = facts
            stale = pod_pb2.PodFacts.FromString(facts.SerializeToString())
            stale.stage = pod_pb2.POD_STAGE_ACTIVE
            for one in stale.containers:
                one.running.started_at.GetCurrentTime()
            loop.call_later(0.3, self._publish, stale)
        elif facts.stage == pod_pb2.POD_STAGE_ACTIVE and facts.pod.uid in self.ends:
            # Once that was told, or the one would take the other's place.
            loop.call_soon(self._publish, self.ends[facts.pod.uid])
        return True

    def _publish(self, facts: pod_pb2.PodFacts) -> None:
        record = self.record(facts.pod)
        if record is not None and not record.gone:
            self._tracker.journal(facts.pod.cluster, facts.pod.node).publish(facts)


class Leaks(Broken):
    """Of what is to be killed at once it tells the end without having killed anything."""

    async def delete_pod(self, request: pb.DeletePodRequest) -> pb.DeletePodResponse:
        record = self.record(request.pod)
        at_once = request.HasField("grace_period_seconds") and not request.grace_period_seconds
        if record is None or record.observed is None or record.ended or not at_once:
            return await super().delete_pod(request)
        end = Exit(137, self._tracker.clock(), "Error", 9)
        states = tuple(_over(state, end) for state in record.observed.containers)
        record.observed = replace(record.observed, containers=states, ended=True)
        record.plan, record.tried, record.launched_at = None, False, None
        record.ended = record.deleting = True
        self._tracker._settle(record)
        return pb.DeletePodResponse()


def _over(state: ContainerState, end: Exit) -> ContainerState:
    if isinstance(state.state, Exit):
        return state
    return replace(state, state=replace(end, container_id=state.container_id))


class DropsField(Broken):
    """A volume that it does not know is left out, and the pod runs without."""

    async def create_pod(self, request: pb.CreatePodRequest) -> pb.CreatePodResponse:
        manifest = json.loads(request.manifest) if request.manifest[-1:] == b"}" else {}
        volumes = manifest.get("spec", {}).get("volumes", ())
        if len(volumes) == 1 and "nfs" in volumes[0]:
            del manifest["spec"]["volumes"]
            for one in manifest["spec"]["containers"]:
                one.pop("volumeMounts", None)
            request.manifest = json.dumps(manifest).encode()
        return await super().create_pod(request)


class ConfusesNames(Broken):
    """It looks facts up by namespace and name."""

    def event(self, event: pb.WatchPodsEvent, told: dict[str, Any]) -> bool:
        if not event.HasField("pod"):
            return True
        name = event.pod.pod.name
        if told.setdefault(name, event.pod.pod.uid) == event.pod.pod.uid:
            told[f"containers of {name}"] = list(event.pod.containers)
        else:
            del event.pod.containers[:]
            event.pod.containers.extend(told[f"containers of {name}"])
        return True


class ConfusesLogs(Broken):
    """It looks logs up by namespace and name."""

    async def get_container_logs(
        self, request: pb.GetContainerLogsRequest
    ) -> AsyncIterator[pb.GetContainerLogsResponse]:
        for record in self._tracker.records.values():
            who = record.identity
            if (who.cluster, who.name) == (request.pod.cluster, request.pod.name) and (
                request.pod.name == "namesake" and self.record(request.pod) is not None
            ):
                request.pod.uid = who.uid
                break
        async for piece in super().get_container_logs(request):
            yield piece


class NeverSyncs(Broken):
    """Its marks do not come."""

    def event(self, event: pb.WatchPodsEvent, told: dict[str, Any]) -> bool:
        return not event.HasField("synced")


class DropsEnd(Broken):
    """A new snapshot leaves out what has ended and was told once."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.told: set[str] = set()

    def event(self, event: pb.WatchPodsEvent, told: dict[str, Any]) -> bool:
        before = told.setdefault("before", set(self.told))
        if event.pod.stage != ENDED or self.is_deleted(event.pod.pod):
            return True
        self.told.add(event.pod.pod.uid)
        return bool(told["request"].epoch) or event.pod.pod.uid not in before


class MixesStreams(Broken):
    """Whoever asks for stdout gets both."""

    async def get_container_logs(
        self, request: pb.GetContainerLogsRequest
    ) -> AsyncIterator[pb.GetContainerLogsResponse]:
        if request.stream == sp.STREAM_STDOUT:
            request.ClearField("stream")
        async for piece in super().get_container_logs(request):
            yield piece


class ExitsEarly(Broken):
    """After much output the exit overtakes the last bytes."""

    def exec(
        self, requests: AsyncIterator[sp.ExecRequest]
    ) -> AsyncGenerator[sp.ExecResponse, None]:
        return self._reordered(super().exec, requests)

    async def _reordered(
        self, serve: Callable[..., Any], requests: AsyncIterator[sp.ExecRequest]
    ) -> AsyncGenerator[sp.ExecResponse, None]:
        held, size = None, 0
        async for message in serve(requests):
            if message.HasField("data"):
                size += len(message.data.content)
                if held is not None:
                    yield held
                held = message
                if size < 2 * 1024 * 1024:
                    yield held
                    held = None
            else:
                yield message
        if held is not None:
            yield held


class TellsSecret(Broken):
    """An error about a made-up class shows the environment."""

    async def create_pod(self, request: pb.CreatePodRequest) -> pb.CreatePodResponse:
        try:
            return await super().create_pod(request)
        except BridgeError as error:
            if any("runtimeClassName" in one.field for one in error.violations):
                shown = ", ".join(
                    f"{one.name}={one.secret.value}"
                    for container in request.environment
                    for one in container.variables
                )
                words = f"{error.message}; environment: {shown}"
                raise type(error)(words, violations=error.violations) from None
            raise
