"""The events that a kubelet would have written for what has changed, in its own words.

Reasons and wording are those of pkg/kubelet/events, kuberuntime and images in 1.36. Pulled and
Created are left out: they would double the calls of a short pod, and tell nothing that Started
does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from bridge.pods import Manifest
from bridge.pods.files import MOUNT_FAILED
from bridge.pods.phase import TERMINAL, is_sidecar
from bridge.rpc.v1 import pod_pb2

Event = tuple[str, str, str, str]
"""(type, reason, message, field path of the container; empty: the pod itself)."""

_OVER = (pod_pb2.POD_STAGE_ENDED, pod_pb2.POD_STAGE_GONE)
_GROUPS = ("initContainers", "containers", "ephemeralContainers")
_LISTS = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
_START_FAILED = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


def events(pod: Manifest, before: pod_pb2.PodFacts | None, after: pod_pb2.PodFacts) -> list[Event]:
    """What to tell about the step from `before` to `after`; one Started for each run begun.

    Without `before` (the first facts, or the agent has just started) the pod's recorded status
    says what was told already.
    """
    if before is None and (pod.get("status") or {}).get("phase") in TERMINAL:
        return []
    told = _from_status(pod)
    if before is not None:
        # Of a container that those facts leave out the record says what was told.
        told |= _from_facts(before)
    made = [*_notices(pod, before, after), *_pod_events(pod, before, after)]
    for facts in after.containers:
        place = _place(pod, facts.name)
        if place is not None:
            old = told.get(facts.name) or _Told()
            made.extend(_container_events(_Step(pod, *place, after, old), facts))
    # Every container that waits for one volume says so: the pod is told once.
    return [one for at, one in enumerate(made) if one[3] or one not in made[:at]]


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of a container, by what is known of it."""

    container_id: str
    started_at: int

    def among(self, others: tuple[_Run, ...]) -> bool:
        for other in others:
            if self.container_id and other.container_id:
                if self.container_id == other.container_id:
                    return True
            elif self.started_at == other.started_at:
                return True
        return False


@dataclass(frozen=True, slots=True)
class _Told:
    """What was known of a container before."""

    runs: tuple[_Run, ...] = ()
    waiting: tuple[str, str] = ("", "")
    running: bool = False
    ends: frozenset[int] = frozenset()
    """When its runs ended, in whole seconds."""


@dataclass(frozen=True, slots=True)
class _Step:
    pod: Manifest
    container: Manifest
    path: str
    after: pod_pb2.PodFacts
    told: _Told


def _place(pod: Manifest, name: str) -> tuple[Manifest, str] | None:
    for group in _GROUPS:
        for container in pod["spec"].get(group) or ():
            if container["name"] == name:
                return container, f"spec.{group}{{{name}}}"
    return None


def _from_facts(before: pod_pb2.PodFacts) -> dict[str, _Told]:
    return {
        one.name: _Told(
            _runs(one),
            (one.waiting.reason, one.waiting.message),
            one.WhichOneof("state") == "running",
            frozenset(end.finished_at.seconds for end in _ends(one)),
        )
        for one in before.containers
    }


def _from_status(pod: Manifest) -> dict[str, _Told]:
    status: Manifest = pod.get("status") or {}
    return {one["name"]: _from_record(one) for key in _LISTS for one in status.get(key) or ()}


def _from_record(one: Manifest) -> _Told:
    state: Manifest = one.get("state") or {}
    last = (one.get("lastState") or {}).get("terminated") or {}
    ended = state.get("terminated") or {}
    current = {"containerID": one.get("containerID"), **(state.get("running") or ended)}
    runs = tuple(
        _Run(run.get("containerID") or "", _epoch(run["startedAt"]))
        for run in (last, current)
        if run.get("startedAt")
    )
    ends = frozenset(_epoch(end["finishedAt"]) for end in (last, ended) if end.get("finishedAt"))
    waiting = state.get("waiting") or {}
    told = (waiting.get("reason") or "", waiting.get("message") or "")
    return _Told(runs, told, "running" in state, ends)


def _epoch(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def _runs(facts: pod_pb2.ContainerFacts) -> tuple[_Run, ...]:
    """The runs that these facts tell of, oldest first; one that could not start is none."""
    runs = []
    last = facts.last_termination
    if last.HasField("started_at") and last.reason != "StartError":
        runs.append(_Run(last.container_id, last.started_at.seconds))
    state = facts.WhichOneof("state")
    if state == "running":
        runs.append(_Run(facts.container_id, facts.running.started_at.seconds))
    elif state == "terminated":
        ended = facts.terminated
        if ended.HasField("started_at") and ended.reason != "StartError":
            identifier = ended.container_id or facts.container_id
            runs.append(_Run(identifier, ended.started_at.seconds))
    return tuple(runs)


def _ends(facts: pod_pb2.ContainerFacts) -> Iterator[pod_pb2.Terminated]:
    if facts.HasField("last_termination"):
        yield facts.last_termination
    if facts.WhichOneof("state") == "terminated":
        yield facts.terminated


def _notices(
    pod: Manifest, before: pod_pb2.PodFacts | None, after: pod_pb2.PodFacts
) -> Iterator[Event]:
    """What the provider has noted since; of a pod with a record and no `before`, nothing: it may
    have been told."""
    if before is None and any((pod.get("status") or {}).get(key) for key in _LISTS):
        return
    told = max((_moment(one) for one in before.notices), default=(0, 0)) if before else (0, 0)
    for one in after.notices:
        place = _place(pod, one.container) if one.container else None
        if _moment(one) > told:
            kind = "Warning" if one.warning else "Normal"
            yield kind, one.reason, one.message, place[1] if place else ""


def _moment(one: pod_pb2.Notice) -> tuple[int, int]:
    return one.time.seconds, one.time.nanos


def _pod_events(
    pod: Manifest, before: pod_pb2.PodFacts | None, after: pod_pb2.PodFacts
) -> Iterator[Event]:
    if not after.reason or any(one.reason == after.reason for one in after.notices):
        return  # A notice says it, each time that it happens.
    if before is not None:
        known = (before.reason, before.failed)
    else:
        known = ((pod.get("status") or {}).get("reason", ""), False)
    # The message may count a queue down: only the reason makes it news.
    if known[0] == after.reason and (not after.failed or known[1]):
        return
    kind = "Normal" if after.reason == "DeadlineExceeded" else "Warning"
    yield kind, after.reason, after.message or after.reason, ""


def _container_events(step: _Step, facts: pod_pb2.ContainerFacts) -> Iterator[Event]:
    newest = max((run.started_at for run in step.told.runs), default=0)
    for run in _runs(facts):
        if run.started_at >= newest and not run.among(step.told.runs):
            yield "Normal", "Started", "Container started", step.path
    for end in _ends(facts):
        if end.reason == "StartError" and end.finished_at.seconds not in step.told.ends:
            yield "Warning", "Failed", f"Error: {end.message}", step.path
    state = facts.WhichOneof("state")
    if state == "waiting":
        reason, message = facts.waiting.reason, facts.waiting.message
        if step.told.waiting != (reason, message):
            yield from _waiting_events(step, reason, message)
    elif state == "terminated" and step.told.running and _was_stopped(step):
        yield "Normal", "Killing", f"Stopping container {facts.name}", step.path


def _waiting_events(step: _Step, reason: str, message: str) -> Iterator[Event]:
    image = step.container.get("image", "")
    if message.startswith(MOUNT_FAILED):
        yield "Warning", "FailedMount", message, ""
    elif reason == "CrashLoopBackOff":
        metadata = step.pod["metadata"]
        name = f"{metadata['name']}_{metadata.get('namespace', '')}({metadata.get('uid', '')})"
        text = f"Back-off restarting failed container {step.container['name']} in pod {name}"
        yield "Warning", "BackOff", text, step.path
    elif reason in _START_FAILED:
        yield "Warning", "Failed", f"Error: {message}", step.path
    elif (image_event := _image_event(reason, image, message)) is not None:
        yield *image_event, step.path
        # The image manager has said what is wrong; that nothing starts without it says the rest.
        yield "Warning", "Failed", f"Error: {reason}", step.path


def _image_event(reason: str, image: str, message: str) -> tuple[str, str, str] | None:
    match reason:
        case "ErrImagePull":
            return "Warning", "Failed", f'Failed to pull image "{image}": {message}'
        case "ImagePullBackOff":
            return "Normal", "BackOff", f'Back-off pulling image "{image}"'
        case "InvalidImageName":
            return "Warning", "InspectFailed", message
        case "ErrImageNeverPull":
            return "Warning", "ErrImageNeverPull", message
    return None


def _was_stopped(step: _Step) -> bool:
    """Somebody stopped it: it did not end by itself, as far as facts can tell."""
    return (
        "deletionTimestamp" in step.pod["metadata"]
        or step.after.failed
        or (step.after.stage in _OVER and is_sidecar(step.container))
    )
