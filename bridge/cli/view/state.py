"""One pod and one Job as people see them: read from manifests, nothing kept but what is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from bridge.agent.request import PLACED_ON
from bridge.local.jobs.backoff import FIRST_BACKOFF, LONGEST_BACKOFF
from bridge.local.jobs.model import (
    DELETED_FOR_ANNOTATION,
    INDEX_KEY,
    RELEASING_REASONS,
    SERIAL_ANNOTATION,
)
from bridge.local.outcome import condition
from bridge.pods import Manifest
from bridge.times import parse_rfc3339

STARTING, RESTARTING, BACK_OFF, SUSPENDED = "starting", "restart back-off", "back-off", "suspended"
"""Reasons to wait that are not the API's own words."""

Standing = Literal["waiting", "running", "succeeded", "failed", "stopping", "stopped"]
"""How a pod stands. Stopping: being deleted, not ended yet. Stopped: ended because nobody wanted it
any more, which is no failure."""

_PLAIN_WAITS = ("", "ContainerCreating", "PodInitializing")
_LISTS = (("initContainerStatuses", True), ("containerStatuses", False))


@dataclass(frozen=True, slots=True)
class ContainerState:
    """One container. Times are seconds since the epoch; None: unknown. `exit_code`, `signal` and
    `finished` are those of the newest run that has ended, also while it waits to run again."""

    name: str
    init: bool
    state: Literal["waiting", "running", "terminated"]
    reason: str = ""
    message: str = ""
    restarts: int = 0
    exit_code: int | None = None
    signal: int = 0
    end_reason: str = ""
    end_message: str = ""
    started: float | None = None
    """When its first known run began."""
    finished: float | None = None

    @property
    def ended_badly(self) -> bool:
        """Whether its newest end was a failure."""
        return self.exit_code is not None and (self.exit_code != 0 or self.signal != 0)


@dataclass(frozen=True, slots=True)
class PodState:
    """One pod at one moment. `job`: the UID of its Job, empty for a pod of its own."""

    manifest: Manifest
    uid: str
    namespace: str
    name: str
    job: str
    job_name: str
    index: int | None
    serial: int
    """Which attempt of its index it is, or which pod of a Job without indexes; from 0."""
    backend: str
    standing: Standing
    phase: str
    why: str
    """Why it waits; empty where it does not."""
    reason: str
    message: str
    deleted_for: str
    deleting: bool
    created: float
    containers: tuple[ContainerState, ...]
    accepted: float | None = None
    """status.startTime."""

    @property
    def over(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.standing in ("succeeded", "failed", "stopped")

    @property
    def restarts(self) -> int:
        """Restarts of its containers in place."""
        return sum(one.restarts for one in self.containers)

    @property
    def started(self) -> float | None:
        """When its first container began."""
        return min((one.started for one in self.containers if one.started), default=None)

    @property
    def finished(self) -> float | None:
        """When its last container ended; None while it is not over."""
        if not self.over:
            return None
        return max((one.finished for one in self.containers if one.finished), default=None)

    @property
    def culprit(self) -> ContainerState | None:
        """The container that failed first."""
        bad = [one for one in self.containers if one.ended_badly]
        return min(bad, key=lambda one: (not one.init, one.finished or float("inf")), default=None)

    @property
    def crashed(self) -> ContainerState | None:
        """A container that has ended and waits to run again."""
        for one in self.containers:
            if one.state == "waiting" and one.exit_code is not None:
                return one
        return None

    @property
    def exit_code(self) -> int | None:
        """The culprit's exit code; 0 for a pod that succeeded; None: none is known."""
        if self.standing == "succeeded":
            return 0
        culprit = self.culprit
        if culprit is not None:
            return culprit.exit_code
        codes = [one.exit_code for one in self.containers if not one.init]
        return codes[0] if codes and self.over else None

    @property
    def several(self) -> bool:
        """Whether it has more than one container, so that a log must say whose it is."""
        spec = self.manifest["spec"]
        return len(spec.get("containers") or ()) + len(spec.get("initContainers") or ()) > 1


def pod_state(pod: Manifest, *, gone: bool = False) -> PodState:
    """Reads a pod. `gone`: its object was deleted."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    annotations = metadata.get("annotations") or {}
    containers = tuple(_containers(status))
    phase = status.get("phase") or "Pending"
    deleting = "deletionTimestamp" in metadata
    deleted_for = annotations.get(DELETED_FOR_ANNOTATION, "")
    standing = _standing(phase, containers, deleting=deleting, deleted_for=deleted_for, gone=gone)
    job_uid, job_name = _owner(metadata)
    index = annotations.get(INDEX_KEY, "")
    serial = annotations.get(SERIAL_ANNOTATION, "")
    created = metadata.get("creationTimestamp")
    return PodState(
        manifest=pod,
        uid=metadata["uid"],
        namespace=metadata.get("namespace", "default"),
        name=metadata["name"],
        job=job_uid,
        job_name=job_name,
        index=int(index) if index.isdecimal() else None,
        serial=int(serial) if serial.isdecimal() else 0,
        backend=annotations.get(PLACED_ON, ""),
        standing=standing,
        phase=phase,
        why=_why(status, containers) if standing == "waiting" else "",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        deleted_for=deleted_for,
        deleting=deleting,
        created=parse_rfc3339(created) if created else 0.0,
        containers=containers,
        accepted=parse_rfc3339(accepted) if (accepted := status.get("startTime")) else None,
    )


def _owner(metadata: Manifest) -> tuple[str, str]:
    for one in metadata.get("ownerReferences") or ():
        if one.get("kind") == "Job":
            return one["uid"], one["name"]
    return "", ""


def _containers(status: Manifest) -> Iterator[ContainerState]:
    for key, init in _LISTS:
        for one in status.get(key) or ():
            yield _container(one, init)


def _container(one: Manifest, init: bool) -> ContainerState:
    state = one.get("state") or {}
    last = (one.get("lastState") or {}).get("terminated") or {}
    kind: Literal["waiting", "running", "terminated"] = "waiting"
    if "running" in state:
        kind = "running"
    elif "terminated" in state:
        kind = "terminated"
    now = state.get(kind) or {}
    end = now if kind == "terminated" else last
    began = last.get("startedAt") or now.get("startedAt")
    finished = end.get("finishedAt")
    return ContainerState(
        name=one["name"],
        init=init,
        state=kind,
        reason=now.get("reason") or "",
        message=now.get("message") or "",
        restarts=one.get("restartCount") or 0,
        exit_code=end.get("exitCode"),
        signal=end.get("signal") or 0,
        end_reason=end.get("reason") or "",
        end_message=end.get("message") or "",
        started=parse_rfc3339(began) if began else None,
        finished=parse_rfc3339(finished) if finished else None,
    )


def _standing(
    phase: str,
    containers: tuple[ContainerState, ...],
    *,
    deleting: bool,
    deleted_for: str,
    gone: bool,
) -> Standing:
    if phase == "Succeeded":
        return "succeeded"
    if phase == "Failed":
        return "stopped" if deleted_for in RELEASING_REASONS else "failed"
    if gone:
        return "stopped"
    if deleting:
        return "stopping"
    crashing = any(one.state == "waiting" and one.exit_code is not None for one in containers)
    if not crashing and any(one.state == "running" for one in containers):
        return "running"
    # Between two containers nothing runs, but the pod is at work.
    return "running" if phase == "Running" and not crashing else "waiting"


def _why(status: Manifest, containers: tuple[ContainerState, ...]) -> str:
    for one in containers:
        if one.state == "waiting" and one.reason == "CrashLoopBackOff":
            return RESTARTING
        if one.state == "waiting" and one.reason not in _PLAIN_WAITS:
            return one.reason
    return str(status.get("reason") or STARTING)


@dataclass(slots=True)
class JobState:
    """One Job: what it is, and what its pods add up to, kept up to date by `RunModel`."""

    uid: str
    namespace: str
    name: str
    manifest: Manifest
    counts: dict[Standing, int] = field(default_factory=dict)
    """Pods by how they stand."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Waiting pods by why."""
    indexes: set[int] = field(default_factory=set)
    """Indexes that have succeeded."""
    failures: dict[str, float] = field(default_factory=dict)
    """When pods failed, by UID; seconds since the epoch."""
    replaced: int = 0
    """Failed pods in whose place another was created."""
    restarts: int = 0
    last_success: float = 0.0

    @property
    def _spec(self) -> Manifest:
        found: Manifest = self.manifest.get("spec") or {}
        return found

    @property
    def total(self) -> int | None:
        """How many completions it wants; None: a work queue."""
        found: int | None = self._spec.get("completions")
        return found

    @property
    def indexed(self) -> bool:
        """Whether each pod has an index."""
        return self._spec.get("completionMode") == "Indexed"

    @property
    def phase(self) -> Literal["Complete", "Failed", "Suspended", "Running"]:
        """How it stands."""
        if condition(self.manifest, "Complete"):
            return "Complete"
        if condition(self.manifest, "Failed"):
            return "Failed"
        return "Suspended" if self._spec.get("suspend") else "Running"

    @property
    def over(self) -> bool:
        """Whether it is Complete or Failed."""
        return self.phase in ("Complete", "Failed")

    @property
    def end(self) -> tuple[str, str]:
        """(reason, message) of its end."""
        found = condition(self.manifest, "Complete") or condition(self.manifest, "Failed") or {}
        return found.get("reason") or "", found.get("message") or ""

    @property
    def done(self) -> int:
        """Completions reached."""
        counted = (self.manifest.get("status") or {}).get("succeeded") or 0
        seen = len(self.indexes) if self.indexed else self.counts.get("succeeded", 0)
        return max(counted, seen)

    @property
    def running(self) -> int:
        """Pods at work, those that are being stopped included."""
        return self.counts.get("running", 0) + self.counts.get("stopping", 0)

    @property
    def failed(self) -> int:
        """Pods that have failed, replaced or not."""
        return self.counts.get("failed", 0)

    @property
    def retried(self) -> int:
        """Pods created in place of failed ones, and containers restarted in place."""
        return self.replaced + self.restarts

    def waiting(self, now: float) -> dict[str, int]:
        """How many wait, by why; pods that are to replace failed ones among them."""
        found = dict(self.reasons)
        if self.phase == "Suspended":
            found[SUSPENDED] = max(0, (self.total or 1) - self.done)
        elif not self.over and self.failures and (missing := self._missing()):
            at = self._retry_at()
            words = f"{BACK_OFF} {at - now:.0f}s" if at > now + 0.5 else STARTING
            found[words] = found.get(words, 0) + missing
        return {why: count for why, count in found.items() if count}

    def _missing(self) -> int:
        parallelism: int = self._spec.get("parallelism", 1)
        wanted = parallelism if self.total is None else min(parallelism, self.total - self.done)
        if self.total is None and self.done:
            return 0
        active = self.running + self.counts.get("waiting", 0)
        # What failed for good is not tried again, so it is not missed.
        return max(0, min(wanted - active, len(self.failures) - self.replaced))

    def _retry_at(self) -> float:
        """The Job controller's back-off, as `bridge.local.jobs.backoff` has it; for Jobs with a
        back-off for each index it is that of a first failure."""
        times = [time for time in self.failures.values() if time > self.last_success]
        if self._spec.get("backoffLimitPerIndex") is not None:
            times = times[-1:]
        if not times:
            return 0.0
        return max(times) + min(FIRST_BACKOFF * 2.0 ** min(len(times) - 1, 10), LONGEST_BACKOFF)
