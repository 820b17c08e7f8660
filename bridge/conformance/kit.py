"""What a check works with: a node of its own, pods on it, and what the provider says of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from bridge.conformance.model import CORE, Broken, Settings, Skipped, expect
from bridge.conformance.pods import Json, Pod, container, new_uid, words
from bridge.conformance.watching import Watch
from bridge.conformance.wire import Refusal, Wire
from bridge.errors import BridgeError, NotFound, Unsupported
from bridge.rpc.v1 import pod_pb2, stream_pb2
from bridge.rpc.v1 import provider_pb2 as pb

T = TypeVar("T")

CLEAN = 15.0
"""Seconds in which a check's pods must be gone after it: two of a kubelet's shortest graces, and
a list of the backend."""
FRAME = 32 * 1024
"""Bytes that one message of a log or a stream may hold."""

Facts = pod_pb2.PodFacts

_NOT_NOW = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "PERMISSION_DENIED")
"""Codes of errors that say nothing about the pod: the same call may succeed later."""


class Kit:
    """One check's own place at the provider; nothing of another check is seen there."""

    def __init__(
        self, wire: Wire, settings: Settings, offer: pb.WatchNodeResponse, needs: str = CORE
    ) -> None:
        self.wire = wire
        self.settings = settings
        self.offer = offer
        self.cluster = new_uid()
        self.node = f"conformance-{uuid.uuid4().hex[:8]}"
        self.expected = "an answer"
        """What is waited for now, for a check whose time runs out."""
        self.errors: list[str] = []
        """Every refusal of CreatePod, whole."""
        self._needs = needs
        self._pods: list[Pod] = []
        self._watches: list[Watch] = []
        self._main: Watch | None = None

    # Pods.

    def pod(self, script: str = "exit 0", **spec: Any) -> Pod:
        """A pod of one container "main" that runs a script; it is not created yet. `containers`
        gives others instead."""
        containers = spec.pop("containers", None) or [self.container("main", script)]
        return self.of(
            {
                "containers": containers,
                "restartPolicy": spec.pop("restart", "Never"),
                "terminationGracePeriodSeconds": spec.pop("grace", 5),
                **spec,
            }
        )

    def of(self, spec: Json, name: str = "") -> Pod:
        """A pod of that spec."""
        identity = pod_pb2.PodIdentity(
            cluster=self.cluster,
            node=self.node,
            namespace="conformance",
            name=name or f"pod-{len(self._pods)}",
            uid=new_uid(),
        )
        made = Pod(identity, spec)
        self._pods.append(made)
        return made

    def container(self, name: str, script: str, **more: Any) -> Json:
        """A container that runs a script in the image of these checks."""
        return container(name, script, self.settings.image, **more)

    async def create(self, pod: Pod) -> pb.Accepted:
        """Has the provider take the pod, by a proposal where it makes one. What may be refused by
        field and is, skips the check."""
        self.watch()
        while True:
            with self.waiting("CreatePod accepts the pod"):
                try:
                    answer = await self.wire.unary("CreatePod", pod.create())
                except Unsupported as error:
                    if self._needs == CORE:
                        raise Broken(
                            "CreatePod accepts the pod", f"{error.kind}: {error}"
                        ) from None
                    raise Skipped(f"refused by field: {error.message}") from None
                except BridgeError as error:
                    if error.permanent:
                        raise Broken(
                            "CreatePod accepts the pod", f"{error.kind}: {error}"
                        ) from None
                    # Not now; nothing is known to be wrong.
                    await asyncio.sleep(0.2)
                    continue
            if answer.WhichOneof("result") == "accepted":
                accepted: pb.Accepted = answer.accepted
                return accepted
            expect(answer.HasField("proposed"), "`accepted` or `proposed`", "neither")
            placed = pod.recorded.backend
            expect(not placed, "no proposal for a recorded placement", f"one, for {placed}")
            proposed = answer.proposed
            pod.identity.attempt = proposed.attempt
            pod.recorded.backend, pod.recorded.attempt = proposed.backend, proposed.attempt

    async def refused(self, pod: Pod) -> Refusal | None:
        """How CreatePod refuses the pod for good; None where it takes it."""
        self.watch()
        with self.waiting("CreatePod accepts the pod, or refuses it for good"):
            while (said := await self.wire.refused("CreatePod", pod.create())) is not None:
                self.errors.append(said.text)
                if said.code not in _NOT_NOW:
                    break
                await asyncio.sleep(0.2)
        return said

    async def delete(self, pod: Pod, grace: int | None = None) -> None:
        """`DeletePod`."""
        with self.waiting("DeletePod answers"):
            request = pb.DeletePodRequest(pod=pod.identity, grace_period_seconds=grace)
            await self.wire.unary("DeletePod", request)

    async def ack(self, pod: Pod, watch: Watch | None = None) -> None:
        """Says that the newest facts of the pod are safe."""
        watch = watch or self.watch()
        event = watch.newest(pod.uid)
        if event is None:
            return
        ack = pb.PodAck(uid=pod.uid, attempt=event.pod.pod.attempt, revision=event.revision)
        request = pb.AckPodsRequest(epoch=watch.epoch, pods=[ack], cluster=self.cluster)
        with self.waiting("AckPods answers"):
            await self.wire.unary("AckPods", request)

    # What is said of them.

    def watch(self) -> Watch:
        """The check's own WatchPods, open since it was first asked for."""
        if self._main is None:
            self._main = self.new_watch()
        return self._main

    def new_watch(self, epoch: str = "", revision: int = 0, node: str = "") -> Watch:
        """Another WatchPods."""
        request = pb.WatchPodsRequest(
            cluster=self.cluster, node=node or self.node, epoch=epoch, revision=revision
        )
        made = Watch(self.wire, request, self)
        self._watches.append(made)
        return made

    def reconnect(self) -> Watch:
        """Another WatchPods that takes the first one's place."""
        self._main = self.new_watch()
        return self._main

    async def until(self, pod: Pod, true: Callable[[Facts], object], expected: str) -> Facts:
        """The first facts of the pod of which that is true."""
        watch = self.watch()

        def found() -> Facts | None:
            facts = watch.facts(pod.uid)
            return facts if facts is not None and true(facts) else None

        return await watch.until(found, expected)

    async def running(self, pod: Pod, name: str = "main") -> Facts:
        """Facts of the pod once that container runs."""
        return await self.until(
            pod, lambda one: state(one, name) == "running", f"{name} is told to run"
        )

    async def began(self, pod: Pod, name: str = "main") -> Facts:
        """Facts of the pod once that container runs or has run: what ends by itself may have ended
        before a busy backend tells of it."""
        return await self.until(
            pod,
            lambda one: state(one, name) in ("running", "terminated"),
            f"{name} is told to run, or how it ended",
        )

    async def ended(self, pod: Pod) -> Facts:
        """Facts of the pod once it has ended."""
        return await self.until(
            pod, lambda one: one.stage == pod_pb2.POD_STAGE_ENDED, "the pod's end is told"
        )

    async def gone(self, pod: Pod) -> Facts:
        """Facts of the pod once nothing of it is left. Acknowledges its end."""
        await self.until(
            pod, lambda one: one.stage >= pod_pb2.POD_STAGE_ENDED, "the pod's end is told"
        )
        await self.ack(pod)
        return await self.until(
            pod, lambda one: one.stage == pod_pb2.POD_STAGE_GONE, "the pod is told gone"
        )

    async def log(self, pod: Pod, name: str = "main", **options: Any) -> bytes:
        """A container's log."""
        return b"".join([piece async for piece in self.log_pieces(pod, name, **options)])

    async def log_pieces(
        self, pod: Pod, name: str = "main", **options: Any
    ) -> AsyncGenerator[bytes, None]:
        """A container's log as it comes. Errors of `bridge.errors`; Broken for a frame too long."""
        request = pb.GetContainerLogsRequest(pod=pod.identity, container=name, **options)
        with self.waiting(f"the log of {name}, to its end"):
            async for message in self.wire.stream("GetContainerLogs", request):
                size = len(message.content)
                expect(size <= FRAME, f"at most {FRAME} bytes in one message", f"{size} bytes")
                yield message.content

    async def has_no_log(self, pod: Pod, name: str = "main") -> None:
        """Broken unless the log is refused as NotFound."""
        try:
            found = await self.log(pod, name)
        except NotFound:
            return
        except BridgeError as error:
            raise Broken("the log is NotFound", f"{error.kind}: {error}") from None
        raise Broken("the log is NotFound", f"{len(found)} bytes of a log")

    def can(self, ability: str) -> bool:
        """Whether every backend has that ability: no check knows where its pods will run."""
        return bool(self.offer.backends) and all(
            ability in one.abilities for one in self.offer.backends
        )

    @contextmanager
    def waiting(self, expected: str) -> Any:
        """Says what is waited for."""
        before, self.expected = self.expected, expected
        yield
        self.expected = before

    def seen(self) -> str:
        """What was told last, for a check whose time ran out."""
        if self._main is None:
            return "no answer"
        if self._main.failure:
            return self._main.failure
        told = [words(self._main.facts(one.uid)) for one in self._pods]
        return " | ".join(told) if told else f"{len(self._main.events)} events of WatchPods"

    async def close(self) -> Sequence[str]:
        """Deletes every pod of the check; returns those that may be left, in words."""
        left: dict[str, Pod] = {one.uid: one for one in self._pods}
        problem = "not told gone"
        try:
            # Who gives checks more time has a backend that needs it for this too.
            limit = self.settings.timeout
            async with asyncio.timeout(min(max(CLEAN, limit / 2), limit)):
                await self._clean(left)
        except TimeoutError:
            pass
        except BridgeError as error:
            problem = f"{error.kind}: {error.message}"
        finally:
            for watch in self._watches:
                await watch.close()
        return [f"{one.identity.name} ({uid}): {problem}" for uid, one in left.items()]

    async def _clean(self, left: dict[str, Pod]) -> None:
        if not left:
            return
        watch = self.new_watch()
        for pod in list(left.values()):
            await self.delete(pod, grace=0)
        safe: dict[str, int] = {}
        while left:
            changed = watch.changed
            for uid, pod in list(left.items()):
                event = watch.newest(uid)
                if event is None or event.pod.stage < pod_pb2.POD_STAGE_ENDED:
                    continue
                if safe.get(uid) != event.revision:
                    safe[uid] = event.revision
                    await self.ack(pod, watch)
                if event.pod.stage == pod_pb2.POD_STAGE_GONE:
                    del left[uid]
            if left:
                await changed.wait()


def state(facts: Facts, name: str = "main") -> str:
    """ "waiting", "running" or "terminated"; empty where nothing is told."""
    for one in facts.containers:
        if one.name == name:
            return str(one.WhichOneof("state") or "")
    return ""


def of(facts: Facts, name: str = "main") -> pod_pb2.ContainerFacts:
    """The facts of that container. Broken where there are none."""
    for one in facts.containers:
        if one.name == name:
            return one
    raise Broken(f"facts of the container {name}", words(facts))


def code(facts: Facts, name: str = "main") -> int | None:
    """The exit code of that container; None where it has not ended."""
    one = of(facts, name)
    return one.terminated.exit_code if one.HasField("terminated") else None


STDOUT = stream_pb2.STREAM_STDOUT
STDERR = stream_pb2.STREAM_STDERR
