"""What a run looks like, kept up to date by the changes of its objects. No output, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from bridge.cli.view.state import ContainerState, JobState, PodState, pod_state
from bridge.cost.tariff import FREE
from bridge.local.store import Change
from bridge.pods import Manifest


@dataclass(frozen=True, slots=True)
class News:
    """One thing that has changed. `phase`: a pod's or container's phase, the Job's phase, the type
    of an event. `retry`: the pod was created in place of one that failed."""

    kind: Literal["run", "job", "pod", "container", "event"]
    phase: str = ""
    pod: PodState | None = None
    job: JobState | None = None
    container: ContainerState | None = None
    reason: str = ""
    message: str = ""
    retry: bool = False


class RunModel:
    """All Jobs and pods of a run. Each change costs the same however many there are."""

    def __init__(self) -> None:
        self.tariff = FREE
        """What its pods cost; set before the first change."""
        self.simulated: tuple[str, ...] = ()
        """Its backends, where all of them are simulators."""
        self.pods: dict[str, PodState] = {}
        self.jobs: dict[str, JobState] = {}
        self.waited: dict[str, PodState] = {}
        """Pods that never started, as they waited before they were deleted: what ends them says
        nothing of why."""
        self.deleted = False
        """Whether the run is being deleted: afterwards nobody can be asked about it."""
        self.synced = False
        """Whether what was there before is told: only what comes after it is new."""

    @property
    def bare(self) -> list[PodState]:
        """Pods of their own, in their order."""
        return [one for one in self.pods.values() if not one.job]

    @property
    def single(self) -> PodState | None:
        """The pod, where the run is one pod of its own with one container."""
        if self.jobs or len(self.pods) != 1:
            return None
        only = next(iter(self.pods.values()))
        return None if only.job or only.several else only

    def where(self, pod: PodState) -> str:
        """The backend that a pod is on, as people see it; empty where that is not said."""
        if not self.simulated:
            return pod.backend
        only = self.simulated[0] if len(self.simulated) == 1 else ""
        return f"{pod.backend or only} (simulated)".lstrip()

    def cost(self, pod: PodState) -> Decimal | None:
        """What a pod has cost, in US dollars, by the times of its containers; None: it is not over,
        never ran, or is on a backend without prices."""
        finished, started = pod.finished, pod.started
        if not self.tariff.rates or finished is None or started is None:
            return None
        if pod.restarts > 1:
            # Of earlier runs nothing is left but the pod's own start.
            started = min(started, pod.accepted or started)
        kind, name = ("Job", pod.job_name) if pod.job else ("Pod", pod.name)
        owner = f"{kind}/{pod.namespace}/{name}"
        return self.tariff.cost(pod.backend, owner, max(0.0, finished - started))

    @property
    def total_cost(self) -> Decimal | None:
        """What all pods have cost; None: nothing is known of any price."""
        costs = [cost for pod in self.pods.values() if (cost := self.cost(pod)) is not None]
        return sum(costs, Decimal(0)) if costs else None

    def of_job(self, uid: str) -> Iterable[PodState]:
        """The pods of a Job."""
        return (one for one in self.pods.values() if one.job == uid)

    def apply(self, change: Change) -> list[News]:
        """Takes one change in; returns what it tells."""
        if change.type == "SYNCED":
            self.synced = True
            return []
        match change.kind:
            case "Pod":
                return list(self._pod(change))
            case "Job":
                return self._job(change.object)
            case "Event":
                return self._event(change)
            case "Run":
                one = change.object
                phase, message = one.get("phase", ""), one.get("message", "")
                self.deleted = self.deleted or phase == "Deleting"
                return [News("run", phase, message=message)]

    def _job(self, job: Manifest) -> list[News]:
        metadata = job["metadata"]
        found = self.jobs.get(metadata["uid"])
        if found is None:
            namespace = metadata.get("namespace", "default")
            found = JobState(metadata["uid"], namespace, metadata["name"], job)
            self.jobs[found.uid] = found
        found.manifest = job
        reason, message = found.end
        return [News("job", found.phase, job=found, reason=reason, message=message)]

    def _event(self, change: Change) -> list[News]:
        event = change.object
        involved = event["involvedObject"]
        pod, job = self.pods.get(involved["uid"]), self.jobs.get(involved["uid"])
        if change.type != "ADDED":
            return []
        return [
            News("event", event["type"], pod, job, reason=event["reason"], message=event["message"])
        ]

    def _pod(self, change: Change) -> Iterator[News]:
        new = pod_state(change.object, gone=change.type == "DELETED")
        old = self.pods.get(new.uid)
        self.pods[new.uid] = new
        if new.started is not None:
            self.waited.pop(new.uid, None)
        elif new.why and not new.deleting:
            self.waited[new.uid] = new
        job = self._job_of(new)
        retry = False
        if job is not None:
            retry = old is None and _replaces(job, new)
            _count(job, old, new)
            job.replaced += retry
        if old is None or _differ(old, new):
            yield News(
                "pod",
                new.standing,
                new,
                job,
                reason=new.reason or new.why,
                message=new.message,
                retry=retry,
            )
        before = {one.name: one for one in old.containers} if old is not None else {}
        for one in new.containers:
            known = before.get(one.name)
            if known is None or (known.state, known.reason, known.restarts) != (
                one.state,
                one.reason,
                one.restarts,
            ):
                yield News("container", one.state, new, job, one, one.reason, one.message)

    def _job_of(self, pod: PodState) -> JobState | None:
        if not pod.job:
            return None
        found = self.jobs.get(pod.job)
        if found is None:
            found = JobState(pod.job, pod.namespace, pod.job_name, {"spec": {}})
            self.jobs[pod.job] = found
        return found


def _differ(old: PodState, new: PodState) -> bool:
    return (old.standing, old.why, old.reason, old.backend) != (
        new.standing,
        new.why,
        new.reason,
        new.backend,
    )


def _replaces(job: JobState, pod: PodState) -> bool:
    if pod.index is not None:
        return pod.serial > 0
    # Pods without an index are alike: the one created after a failure stands in for it.
    return sum(time <= pod.created for time in job.failures.values()) > job.replaced


def _count(job: JobState, old: PodState | None, new: PodState) -> None:
    if old is not None:
        job.counts[old.standing] -= 1
        job.restarts -= old.restarts
        if old.why:
            job.reasons[old.why] -= 1
    job.counts[new.standing] = job.counts.get(new.standing, 0) + 1
    job.restarts += new.restarts
    if new.why:
        job.reasons[new.why] = job.reasons.get(new.why, 0) + 1
    if new.standing == "succeeded":
        job.last_success = max(job.last_success, new.finished or 0.0)
        if new.index is not None:
            job.indexes.add(new.index)
    elif new.standing == "failed" and new.uid not in job.failures:
        job.failures[new.uid] = new.finished or new.created
