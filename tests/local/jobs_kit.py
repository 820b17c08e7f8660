"""Jobs and pods for the tests of the Job controller, and a small world that runs them."""

from __future__ import annotations

import copy
from typing import Any

from bridge.local.jobs import DELETED_FOR_ANNOTATION, SERIAL_ANNOTATION, Decision, reconcile
from bridge.pods import Manifest
from bridge.times import rfc3339

JOB_UID = "6a1f0d0e-3c51-4c7e-9f6b-0f2f3c1f7a10"
INDEX = "batch.kubernetes.io/job-completion-index"
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"
T0 = 1_700_000_000.0
START = {"startTime": rfc3339(T0)}


def a_job(*, restart: str = "Never", name: str = "work", **spec: Any) -> Manifest:
    """A defaulted Job of 3 completions, 2 at a time, that retries 6 times."""
    defaults: Manifest = {
        "completions": 3,
        "parallelism": 2,
        "completionMode": "NonIndexed",
        "backoffLimit": 6,
        "suspend": False,
        "podReplacementPolicy": "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed",
        "template": {
            "metadata": {"labels": {"app": "demo"}},
            "spec": {
                "restartPolicy": restart,
                "containers": [{"name": "main", "image": "busybox"}],
            },
        },
    }
    merged = {key: value for key, value in (defaults | spec).items() if value is not None}
    metadata = {"name": name, "namespace": "batch", "uid": JOB_UID}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": merged}


def indexed(**spec: Any) -> Manifest:
    """The same Job, Indexed."""
    return a_job(completionMode="Indexed", **spec)


def a_pod(
    phase: str = "Running",
    *,
    index: int | None = None,
    serial: int = 0,
    code: int | None = None,
    finished: float | None = None,
    deleted: float | None = None,
    deleted_for: str = "",
    restarts: int = 0,
    ready: bool = False,
    failures: int | None = None,
    ignored: int | None = None,
    conditions: tuple[Manifest, ...] = (),
    created: float = T0,
    node: str = "local",
) -> Manifest:
    """A pod of the Job; its uid tells index and serial."""
    annotations = {SERIAL_ANNOTATION: str(serial)}
    given = {INDEX: index, FAILURES: failures, IGNORED: ignored}
    annotations |= {key: str(value) for key, value in given.items() if value is not None}
    if deleted_for:
        annotations[DELETED_FOR_ANNOTATION] = deleted_for
    stem = "" if index is None else index
    metadata: Manifest = {
        "name": f"work-{stem}-{serial}",
        "uid": f"{stem}/{serial}",
        "annotations": annotations,
        "creationTimestamp": rfc3339(created),
    }
    if deleted is not None:
        metadata |= {"deletionTimestamp": rfc3339(deleted), "deletionGracePeriodSeconds": 0}
    container: Manifest = {"name": "main", "restartCount": restarts, "state": {"running": {}}}
    if phase in {"Succeeded", "Failed"}:
        ended = {
            "exitCode": code if code is not None else int(phase == "Failed"),
            "finishedAt": rfc3339(T0 if finished is None else finished),
        }
        container["state"] = {"terminated": ended}
    status = {"phase": phase, "containerStatuses": [container]}
    if ready or conditions:
        status["conditions"] = [
            *([{"type": "Ready", "status": "True"}] if ready else []),
            *conditions,
        ]
    spec: Manifest = {"containers": [{"name": "main"}]} | ({"nodeName": node} if node else {})
    return {"metadata": metadata, "spec": spec, "status": status}


def settled(name: str, reason: str = "Why") -> Manifest:
    """A status with one true condition."""
    condition = {"type": name, "status": "True", "reason": reason, "message": "m"}
    return START | {"conditions": [condition | {"lastTransitionTime": rfc3339(T0 + 5)}]}


def conditions_of(decision: Decision) -> dict[str, tuple[str, str]]:
    """The conditions as type -> (status, reason)."""
    conditions = decision.status.get("conditions", [])
    return {one["type"]: (one["status"], one["reason"]) for one in conditions}


def reasons_of(decision: Decision) -> list[str]:
    """The reasons of the events, in order."""
    return [event.reason for event in decision.events]


def created_indexes(decision: Decision) -> list[int]:
    """The indexes of the pods to create."""
    return [int(order.manifest["metadata"]["annotations"][INDEX]) for order in decision.create]


class World:
    """Carries decisions out: what `run` does, without running anything."""

    def __init__(self, job: Manifest) -> None:
        self.job = copy.deepcopy(job)
        self.pods: dict[str, Manifest] = {}
        self.now = T0
        self.last = Decision({})
        self.settle()

    def settle(self) -> Decision:
        """Decide until nothing is left to do at this moment; return the last decision."""
        for _ in range(20):
            self.last = reconcile(self.job, list(self.pods.values()), self.now)
            self.job["status"] = {
                key: self.last.status[key]
                for key in ("startTime", "conditions")
                if key in self.last.status
            }
            if not self._carry_out(self.last):
                return self.last
        raise AssertionError("the controller does not come to rest")

    def _carry_out(self, decision: Decision) -> bool:
        due = [order for order in decision.create if order.not_before <= self.now]
        for order in due:
            pod = copy.deepcopy(order.manifest)
            uid = pod["metadata"]["uid"]
            assert uid not in self.pods, "the same pod was created twice"
            pod["metadata"]["creationTimestamp"] = rfc3339(self.now)
            pod["status"] = {"phase": "Running"}
            self.pods[uid] = pod
        for uid in decision.delete:
            metadata = self.pods[uid]["metadata"]
            metadata["annotations"][DELETED_FOR_ANNOTATION] = decision.delete_reason
            metadata["deletionTimestamp"] = rfc3339(self.now)
        return bool(due or decision.delete)

    def crash(self) -> None:
        """Forget everything but the pods."""
        self.job.pop("status", None)

    def running(self) -> list[str]:
        """UIDs of pods that have not ended, terminating ones included."""
        return [uid for uid, pod in self.pods.items() if pod["status"]["phase"] == "Running"]

    def finish(self, uid: str, code: int) -> None:
        """A pod ends by itself, or because it was asked to."""
        ended = {"exitCode": code, "finishedAt": rfc3339(self.now)}
        self.pods[uid]["status"] = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{"name": "main", "state": {"terminated": ended}}],
        }
