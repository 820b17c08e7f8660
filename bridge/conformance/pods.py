"""Makes the pods that checks run, and the requests that carry them. Pure."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb

Json = dict[str, Any]

ENDLESS = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
"""A script that runs until it is told to stop, and then ends by itself."""
STUBBORN = "trap '' TERM; while :; do sleep 0.1; done"
"""A script that only a kill ends."""


def literal(text: str) -> str:
    """A text as it must stand in `command` or `args`, so that `$(NAME)` expands nothing in it."""
    return text.replace("$", "$$")


def container(name: str, script: str, image: str, **more: Any) -> Json:
    """A container that runs a script."""
    command = ["sh", "-c", literal(script)]
    return {"name": name, "image": image, "command": command, **more}


@dataclass(slots=True)
class Pod:
    """A pod of a check, as Kubernetes' side has it."""

    identity: pod_pb2.PodIdentity
    spec: Json
    environment: dict[str, Sequence[pod_pb2.EnvVar]] = field(default_factory=dict)
    services: Sequence[pod_pb2.EnvVar] = ()
    """Service variables of every container."""
    volumes: list[pod_pb2.VolumeContent] = field(default_factory=list)
    not_ready: Mapping[str, str] = field(default_factory=dict)
    """Containers that cannot start yet, and why."""
    generation: int = 1
    recorded: pod_pb2.Recorded = field(default_factory=pod_pb2.Recorded)
    """What Kubernetes' side has recorded; nothing: the pod is new."""

    @property
    def uid(self) -> str:
        """metadata.uid."""
        return self.identity.uid

    @property
    def containers(self) -> list[str]:
        """Names of its containers in the manifest's order, init ones first."""
        groups = ("initContainers", "containers")
        return [str(one["name"]) for group in groups for one in self.spec.get(group, ())]

    def acknowledged(self, backend: str = "") -> None:
        """Records that a node has acknowledged the pod now, and where it is placed."""
        self.recorded.start_time.GetCurrentTime()
        self.recorded.backend = backend or self.recorded.backend
        self.recorded.attempt = self.identity.attempt

    def manifest(self) -> bytes:
        """The v1.Pod."""
        who = self.identity
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": who.name,
                    "namespace": who.namespace,
                    "uid": who.uid,
                    "generation": self.generation,
                },
                "spec": self.spec,
            }
        ).encode()

    def create(self) -> pb.CreatePodRequest:
        """`CreatePod`."""
        request = pb.CreatePodRequest(
            pod=self.identity,
            manifest=self.manifest(),
            generation=self.generation,
            environment=self._environment(),
            volumes=self.volumes,
        )
        if self.recorded.ByteSize():
            request.recorded.CopyFrom(self.recorded)
        return request

    def update(self) -> pb.UpdatePodRequest:
        """`UpdatePod`."""
        return pb.UpdatePodRequest(
            pod=self.identity,
            manifest=self.manifest(),
            generation=self.generation,
            environment=self._environment(),
            volumes=self.volumes,
        )

    def _environment(self) -> list[pod_pb2.ContainerEnvironment]:
        made = []
        for name in self.containers:
            one = pod_pb2.ContainerEnvironment(
                container=name,
                variables=self.environment.get(name, ()),
                service_variables=self.services,
            )
            if words := self.not_ready.get(name):
                one.not_ready.reason = "CreateContainerConfigError"
                one.not_ready.message = words
            made.append(one)
        return made


def new_uid() -> str:
    """A UUID in its canonical form."""
    return str(uuid.uuid4())


def words(facts: pod_pb2.PodFacts | None) -> str:
    """Facts in one line, for people."""
    if facts is None:
        return "nothing of the pod"
    stage = pod_pb2.PodStage.Name(facts.stage).removeprefix("POD_STAGE_").lower()
    parts = [f"{facts.pod.name} {stage}"]
    if facts.reason:
        parts.append(f"reason {facts.reason}: {facts.message}")
    parts += [_container_words(one) for one in facts.containers]
    return "; ".join(parts)


def _container_words(one: pod_pb2.ContainerFacts) -> str:
    match one.WhichOneof("state"):
        case "waiting":
            state = f"waiting ({one.waiting.reason}: {one.waiting.message})"
        case "running":
            state = "running"
        case "terminated":
            end = one.terminated
            state = f"ended with {end.exit_code}, signal {end.signal}, {end.reason} {end.message}"
        case _:
            state = "state not told"
    return f"{one.name} {state.strip()}, restarts {one.restart_count}"
