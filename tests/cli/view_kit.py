"""Pods, Jobs and changes as the store tells them, shaped as the kubelet's."""

from __future__ import annotations

import io
from typing import Any

from bridge.cli.view.model import RunModel
from bridge.local.store import Change
from bridge.pods import Manifest
from bridge.times import rfc3339

T0 = 1_700_000_000.0
"""2023-11-14T22:13:20Z."""
SYNCED = Change("SYNCED", "Run", {})
INDEX = "batch.kubernetes.io/job-completion-index"


class Clock:
    """A clock that only a test moves."""

    def __init__(self, now: float = T0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def stream() -> io.TextIOWrapper:
    """A stream in memory, like sys.stdout."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def text_of(one: io.TextIOWrapper) -> str:
    """What was written to it."""
    return bytes_of(one).decode()


def bytes_of(one: io.TextIOWrapper) -> bytes:
    """What was written to it."""
    buffer = one.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue()


def running(at: float = 0.0) -> Manifest:
    """A container's state."""
    return {"running": {"startedAt": rfc3339(T0 + at)}}


def waiting(reason: str, message: str = "") -> Manifest:
    """A container's state."""
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def ended(
    code: int = 0, at: float = 2.0, *, began: float = 0.0, reason: str = "", **more: Any
) -> Manifest:
    """A container's state."""
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason or ("Error" if code else "Completed"),
            "startedAt": rfc3339(T0 + began),
            "finishedAt": rfc3339(T0 + at),
            **more,
        }
    }


def a_pod(
    name: str,
    state: Manifest | None = None,
    phase: str = "",
    *,
    job: str = "",
    index: int | None = None,
    serial: int = 0,
    backend: str = "process",
    restarts: int = 0,
    last: Manifest | None = None,
    created: float = 0.0,
    containers: dict[str, Manifest] | None = None,
    reason: str = "",
    message: str = "",
    deleted_for: str | None = None,
    annotations: dict[str, str] | None = None,
) -> Manifest:
    """A pod of one container "main", or of `containers` with their states."""
    states = containers or {"main": state or waiting("ContainerCreating")}
    given = {"podbridge.io/placed-on": backend} if backend else {}
    given |= {"podbridge.io/serial": str(serial)} if job else {}
    given |= {INDEX: str(index)} if index is not None else {}
    metadata: Manifest = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "annotations": {**given, **(annotations or {})},
        "creationTimestamp": rfc3339(T0 + created),
    }
    if job:
        metadata["ownerReferences"] = [{"kind": "Job", "name": job, "uid": f"uid-{job}"}]
    if deleted_for is not None:
        metadata["deletionTimestamp"] = rfc3339(T0 + 30)
        metadata["annotations"] |= {"podbridge.io/deleted-for": deleted_for} if deleted_for else {}
    statuses = [
        {
            "name": key,
            "state": one,
            "lastState": last or {},
            "restartCount": restarts,
            "ready": "running" in one,
            "image": "busybox",
        }
        for key, one in states.items()
    ]
    if not phase:
        kinds = {next(iter(one)) for one in states.values()}
        codes = [one["terminated"]["exitCode"] for one in states.values() if "terminated" in one]
        phase = "Pending" if kinds == {"waiting"} else "Running"
        if kinds == {"terminated"}:
            phase = "Failed" if any(codes) else "Succeeded"
    status: Manifest = {"phase": phase, "containerStatuses": statuses}
    status |= {"reason": reason} if reason else {}
    status |= {"message": message} if message else {}
    spec = {
        "containers": [
            {"name": key, "image": "busybox", "env": [{"name": "TOKEN", "value": "hunter2"}]}
            for key in states
        ]
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def a_job(
    name: str = "wordcount",
    *,
    completions: int | None = 3,
    parallelism: int = 2,
    indexed: bool = True,
    ended_as: tuple[str, str, str] | None = None,
    succeeded: int = 0,
    **spec: Any,
) -> Manifest:
    """A Job; `ended_as`: (Complete or Failed, reason, message)."""
    status: Manifest = {"succeeded": succeeded}
    if ended_as:
        kind, reason, message = ended_as
        status["conditions"] = [
            {"type": kind, "status": "True", "reason": reason, "message": message}
        ]
    spec = {"parallelism": parallelism, **spec}
    spec |= {"completions": completions} if completions is not None else {}
    spec |= {"completionMode": "Indexed"} if indexed else {}
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}"}
    return {"kind": "Job", "metadata": metadata, "spec": spec, "status": status}


def added(one: Manifest) -> Change:
    """It is new."""
    return Change("ADDED", one["kind"], one)


def modified(one: Manifest) -> Change:
    """It is as it is now."""
    return Change("MODIFIED", one["kind"], one)


def model_of(*objects: Manifest) -> RunModel:
    """A model that knows these."""
    model = RunModel()
    model.apply(SYNCED)
    for one in objects:
        model.apply(added(one))
    return model


def a_failed_run() -> list[Manifest]:
    """An Indexed Job that fails: index 0 succeeds, 1 at the second try, 2 fails twice."""
    job = "wordcount"
    return [
        a_job(ended_as=("Failed", "FailedIndexes", "indexes failed: 1 of 3"), succeeded=2),
        a_pod("wordcount-0-aaaaa", ended(0, 4), job=job, index=0),
        a_pod("wordcount-1-bbbbb", ended(3, 1), job=job, index=1),
        a_pod("wordcount-2-ccccc", ended(137, 2), job=job, index=2),
        a_pod("wordcount-1-ddddd", ended(0, 12, began=11), job=job, index=1, serial=1, created=11),
        a_pod(
            "wordcount-2-eeeee", ended(137, 13, began=12), job=job, index=2, serial=1, created=12
        ),
    ]
