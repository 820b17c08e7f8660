"""A pod as the Job controller sees it: read once a decision, cheap enough for thousands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.local.jobs.model import (
    DELETED_FOR_ANNOTATION,
    FAILURE_REASONS,
    FAILURES_KEY,
    IGNORED_FAILURES_KEY,
    INDEX_KEY,
    MAX_INT32,
    RELEASING_REASONS,
    SERIAL_ANNOTATION,
    JobView,
)
from bridge.pods import Manifest
from bridge.times import parse_rfc3339

NO_INDEX = -1


@dataclass(slots=True)
class PodView:
    """One pod: `ended` is a terminal phase; `index` is NO_INDEX where it has none (or a bad one).

    `tracked`: counts for the Job, that is, its index is valid and the Job has not let go of it.
    `failed`: counts as a failed pod, unless podFailurePolicy ignores it.
    """

    pod: Manifest
    uid: str
    phase: str
    index: int
    serial: int
    ended: bool
    deleting: bool
    deleted_for: str
    tracked: bool
    failed: bool

    @property
    def succeeded(self) -> bool:
        """Ended well, and counts so."""
        return self.phase == "Succeeded" and not self.failed

    def annotated_count(self, key: str) -> int:
        """Read a failure count of the index from an annotation; 0 where it is absent or bad."""
        count = _whole(self.pod["metadata"].get("annotations") or {}, key)
        return count if 0 < count <= MAX_INT32 else 0

    @property
    def failures_before(self) -> int:
        """How many pods of this index failed before this one, ignored failures included."""
        return self.annotated_count(FAILURES_KEY) + self.annotated_count(IGNORED_FAILURES_KEY)


def view_pod(job: JobView, pod: Manifest) -> PodView:
    """Read what matters about one pod."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    annotations = metadata.get("annotations") or {}
    phase = status.get("phase") or "Pending"
    ended = phase in {"Succeeded", "Failed"}
    deleting = bool(metadata.get("deletionTimestamp"))
    deleted_for = annotations.get(DELETED_FOR_ANNOTATION, "")
    index = _whole(annotations, INDEX_KEY) if job.indexed else NO_INDEX
    valid = not job.indexed or 0 <= index < (job.completions or 0)
    view = PodView(
        pod=pod,
        uid=metadata["uid"],
        phase=phase,
        index=index,
        serial=_whole(annotations, SERIAL_ANNOTATION),
        ended=ended,
        deleting=deleting,
        deleted_for=deleted_for,
        tracked=valid and deleted_for not in RELEASING_REASONS,
        failed=phase == "Failed",
    )
    if deleting and not view.failed:
        view.failed = _lost(job, view)
    return view


def _lost(job: JobView, view: PodView) -> bool:
    """Whether a deleted pod counts as failed although its phase does not say so.

    A pod that the failing Job deleted was counted as failed then, and so was a pod that someone
    else deleted, where a replacement is not to wait for its end: what becomes of it later changes
    no count, or its work would be done twice.
    """
    if view.deleted_for in FAILURE_REASONS:
        return True
    if job.replaces_only_ended:
        return False
    # Times are whole seconds. In the same second deletion came first: pods that have ended are
    # not deleted.
    return not view.ended or finish_time(view.pod) >= _deletion_request(view.pod)


def is_ready(pod: Manifest) -> bool:
    """Whether the pod's Ready condition is True."""
    ready = _ready_condition(pod)
    return ready is not None and ready["status"] == "True"


def finish_time(pod: Manifest) -> float:
    """When a pod ended (epoch seconds), by the best evidence that there is.

    The newest end of its containers if all have ended; else when it ceased to be ready; else
    when its deletion was asked for; else its creation.
    """
    status = pod.get("status") or {}
    finished = _newest_end(status.get("containerStatuses") or (), None)
    # Sidecars outlive the main containers.
    finished = _newest_end(_sidecar_statuses(pod), finished)
    if finished is not None:
        return finished
    ready = _ready_condition(pod)
    if ready is not None and ready["status"] == "False" and ready.get("lastTransitionTime"):
        return parse_rfc3339(ready["lastTransitionTime"])
    if pod["metadata"].get("deletionTimestamp"):
        return _deletion_request(pod)
    return created_at(pod)


def created_at(pod: Manifest) -> float:
    """Epoch seconds of the pod's creation, 0.0 where it is not recorded."""
    created = pod["metadata"].get("creationTimestamp")
    return parse_rfc3339(created) if created else 0.0


def removal_order(view: PodView) -> tuple[float, ...]:
    """Sort key: which of several pods is missed least, and so is deleted first.

    Unassigned before assigned, Pending before Unknown before Running, unready before ready, ready
    for less time, restarted more often, newer.
    """
    pod = view.pod
    status = pod.get("status") or {}
    condition = _ready_condition(pod)
    ready_since = 0.0
    if condition is not None and condition["status"] == "True":
        since = condition.get("lastTransitionTime")
        # An unknown time counts as the newest.
        ready_since = parse_rfc3339(since) if since else float("inf")
    return (
        bool(pod["spec"].get("nodeName")),
        ("Pending", "Unknown", "Running").index(view.phase),
        condition is not None and condition["status"] == "True",
        -ready_since,
        -_most_restarts(status.get("containerStatuses") or ()),
        -_most_restarts(_sidecar_statuses(pod)),
        -(created_at(pod) or float("inf")),
        -view.serial,
    )


def restarts(pod: Manifest) -> int:
    """How often containers of the pod were restarted in place, init containers included."""
    status = pod.get("status") or {}
    return sum(
        container.get("restartCount", 0)
        for key in ("initContainerStatuses", "containerStatuses")
        for container in status.get(key) or ()
    )


def _whole(annotations: Mapping[str, str], key: str) -> int:
    text = annotations.get(key)
    if text is None:
        return NO_INDEX
    return int(text) if text.isdecimal() else NO_INDEX


def _ready_condition(pod: Manifest) -> Mapping[str, Any] | None:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Ready":
            found: Mapping[str, Any] = condition
            return found
    return None


def _sidecar_statuses(pod: Manifest) -> list[Mapping[str, Any]]:
    sidecars = {
        container["name"]
        for container in pod["spec"].get("initContainers") or ()
        if container.get("restartPolicy") == "Always"
    }
    if not sidecars:
        return []
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or ()
    return [status for status in statuses if status["name"] in sidecars]


def _newest_end(statuses: Iterable[Mapping[str, Any]], newest: float | None) -> float | None:
    for container in statuses:
        ended = (container.get("state") or {}).get("terminated") or {}
        if not ended.get("finishedAt"):
            return None
        finished = parse_rfc3339(ended["finishedAt"])
        newest = finished if newest is None else max(newest, finished)
    return newest


def _deletion_request(pod: Manifest) -> float:
    metadata = pod["metadata"]
    grace: int = metadata.get("deletionGracePeriodSeconds") or 0
    # A deletionTimestamp is the moment at which the grace period ends.
    return parse_rfc3339(metadata["deletionTimestamp"]) - grace


def _most_restarts(statuses: Iterable[Mapping[str, Any]]) -> int:
    return max((one.get("restartCount", 0) for one in statuses), default=0)
