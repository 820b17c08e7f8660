"""From what a backend sees to what the contract tells: pure."""

from __future__ import annotations

import sys

from google.protobuf.timestamp_pb2 import Timestamp

from bridge.rpc.v1 import pod_pb2
from bridge.workload import ContainerState, Exit, Identity, Notice, Running, State, Waiting

TERMINATION_MAX = 4096
"""Bytes of how a run ended, in words: as much as the kubelet takes of a termination message."""
WAITING_MAX = 1024
"""Bytes of why a container waits: registries and runtimes may say any number."""


def bounded(words: str, size: int) -> str:
    """Their first bytes, at most `size`, cut between characters."""
    if len(words) * 4 <= size:
        return words
    return words.encode()[:size].decode(errors="ignore")


def identity_to_wire(identity: Identity) -> pod_pb2.PodIdentity:
    """An identity as the contract spells it."""
    return pod_pb2.PodIdentity(
        cluster=identity.cluster,
        node=identity.node,
        namespace=identity.namespace,
        name=identity.name,
        uid=identity.uid,
        attempt=identity.attempt,
    )


def identity_from_wire(pod: pod_pb2.PodIdentity) -> Identity:
    """An identity from the contract's. What many pods have in common is kept once."""
    cluster, node, namespace = map(sys.intern, (pod.cluster, pod.node, pod.namespace))
    return Identity(cluster, node, namespace, pod.name, pod.uid, pod.attempt)


def timestamp(seconds: float) -> Timestamp:
    """Seconds since the epoch as the contract spells a time."""
    nanoseconds = round(seconds * 1e9)
    return Timestamp(seconds=nanoseconds // 1_000_000_000, nanos=nanoseconds % 1_000_000_000)


def seconds(stamp: Timestamp) -> float:
    """A time of the contract as seconds since the epoch."""
    return stamp.seconds + stamp.nanos / 1e9


def notice_to_wire(notice: Notice) -> pod_pb2.Notice:
    """A notice as the contract spells it."""
    return pod_pb2.Notice(
        time=timestamp(notice.at),
        warning=notice.warning,
        reason=notice.reason,
        message=notice.message,
        container=notice.container,
    )


def exit_to_wire(end: Exit) -> pod_pb2.Terminated:
    """How a run ended, as the contract spells it."""
    wire = pod_pb2.Terminated(
        exit_code=end.code,
        signal=end.signal,
        reason=end.reason,
        message=bounded(end.message, TERMINATION_MAX),
        finished_at=timestamp(end.finished_at),
        container_id=end.container_id,
    )
    if end.started_at is not None:
        wire.started_at.CopyFrom(timestamp(end.started_at))
    return wire


def exit_from_wire(wire: pod_pb2.Terminated) -> Exit:
    """How a run ended, from the contract's."""
    return Exit(
        code=wire.exit_code,
        signal=wire.signal,
        reason=wire.reason,
        message=wire.message,
        finished_at=seconds(wire.finished_at),
        started_at=seconds(wire.started_at) if wire.HasField("started_at") else None,
        container_id=wire.container_id,
    )


def container_to_wire(
    state: ContainerState, waiting: Waiting | None = None
) -> pod_pb2.ContainerFacts:
    """A container's facts. `waiting` says that it is about to run again: then its last exit
    becomes the termination before this one."""
    wire = pod_pb2.ContainerFacts(
        name=state.name,
        restart_count=state.restart,
        container_id=state.container_id,
        image_id=state.image_id,
        started=state.started,
        ready=state.ready,
    )
    previous = state.previous
    shown: State = state.state
    if waiting is not None and not isinstance(shown, Running):
        if isinstance(shown, Exit):
            previous = shown
        shown = waiting
    if previous is not None:
        wire.last_termination.CopyFrom(exit_to_wire(previous))
    match shown:
        case Waiting(reason, message):
            words = bounded(message, WAITING_MAX)
            wire.waiting.CopyFrom(pod_pb2.Waiting(reason=reason, message=words))
        case Running(started_at):
            wire.running.started_at.CopyFrom(timestamp(started_at))
        case Exit():
            wire.terminated.CopyFrom(exit_to_wire(shown))
    return wire


def waiting_to_wire(name: str, waiting: Waiting) -> pod_pb2.ContainerFacts:
    """The facts of a container of which nothing has run."""
    return container_to_wire(ContainerState(name, waiting))
