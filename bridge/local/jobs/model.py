"""What goes into a decision about a Job and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from bridge.pods import Manifest

SERIAL_ANNOTATION = "podbridge.io/serial"
"""On every pod of a Job: which attempt of its index it is, or which pod of the Job; from 0."""

DELETED_FOR_ANNOTATION = "podbridge.io/deleted-for"
"""On a pod that its Job deleted: `Decision.delete_reason`, written together with the deletion.

Never written on a pod that has ended: such a pod needs no deletion, and keeps counting as it ended.
"""

INDEX_KEY = "batch.kubernetes.io/job-completion-index"
FAILURES_KEY = "batch.kubernetes.io/job-index-failure-count"
IGNORED_FAILURES_KEY = "batch.kubernetes.io/job-index-ignored-failure-count"

SUSPENDED_REASON = "JobSuspended"
TOO_MANY_REASON = "TooManyPods"
POLICY_REASON = "PodFailurePolicy"
BACKOFF_REASON = "BackoffLimitExceeded"
DEADLINE_REASON = "DeadlineExceeded"
MAX_FAILED_REASON = "MaxFailedIndexesExceeded"
FAILED_INDEXES_REASON = "FailedIndexes"
SUCCESS_POLICY_REASON = "SuccessPolicy"
COMPLETIONS_REASON = "CompletionsReached"

SUCCESS_REASONS = frozenset({SUCCESS_POLICY_REASON, COMPLETIONS_REASON})
FAILURE_REASONS = frozenset(
    {BACKOFF_REASON, DEADLINE_REASON, POLICY_REASON, FAILED_INDEXES_REASON, MAX_FAILED_REASON}
)
# Kubernetes takes its finalizer off these pods uncounted, so however they end they are neither
# failures nor successes.
RELEASING_REASONS = SUCCESS_REASONS | {SUSPENDED_REASON, TOO_MANY_REASON}

MAX_INT32 = 2**31 - 1


class Event(NamedTuple):
    """An event about the Job: `type` is Normal or Warning."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class PodOrder:
    """A pod to create. The manifest is complete but for `creationTimestamp`, and deterministic.

    `not_before` (epoch seconds) is the moment of the decision, or lies ahead where the Job backs
    off. An order that lies ahead is only a forecast: the next decision replaces it, so whoever
    carries orders out decides again at `Decision.wake_at` instead of keeping old ones.
    """

    manifest: Manifest
    not_before: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about a Job now; each decision replaces the one before.

    `status`: the Job's new `.status` (no `uncountedTerminatedPods`), true once the decision is
    carried out: pods to create at once count as active, pods to delete as terminating.
    `delete`: UIDs of pods to delete, `delete_reason`: why, for `DELETED_FOR_ANNOTATION` (empty
    if there are none). `wake_at` (epoch seconds): when to decide again although nothing changed.
    """

    status: Manifest
    create: tuple[PodOrder, ...] = ()
    delete: tuple[str, ...] = ()
    delete_reason: str = ""
    wake_at: float | None = None
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class JobView:
    """A Job's spec with the fields that decide, typed; `completions` None: a work queue."""

    name: str
    namespace: str
    uid: str
    indexed: bool
    completions: int | None
    parallelism: int
    backoff_limit: int
    backoff_limit_per_index: int | None
    max_failed_indexes: int | None
    failure_rules: tuple[Mapping[str, Any], ...]
    success_rules: tuple[Mapping[str, Any], ...]
    deadline: float | None
    suspended: bool
    deleting: bool
    restarts_in_place: bool
    replaces_only_ended: bool

    @classmethod
    def of(cls, job: Manifest) -> JobView:
        """Read a checked and defaulted batch/v1 Job."""
        metadata, spec = job["metadata"], job["spec"]
        per_index = spec.get("backoffLimitPerIndex")
        policy = spec.get("podFailurePolicy")
        return cls(
            name=metadata["name"],
            namespace=metadata.get("namespace") or "default",
            uid=metadata["uid"],
            indexed=spec.get("completionMode") == "Indexed",
            completions=spec.get("completions"),
            parallelism=spec.get("parallelism", 1),
            backoff_limit=spec.get("backoffLimit", 6 if per_index is None else MAX_INT32),
            backoff_limit_per_index=per_index,
            max_failed_indexes=spec.get("maxFailedIndexes"),
            failure_rules=tuple((policy or {}).get("rules") or ()),
            success_rules=tuple((spec.get("successPolicy") or {}).get("rules") or ()),
            deadline=spec.get("activeDeadlineSeconds"),
            suspended=bool(spec.get("suspend")),
            deleting=bool(metadata.get("deletionTimestamp")),
            restarts_in_place=spec["template"]["spec"].get("restartPolicy") == "OnFailure",
            replaces_only_ended=(
                policy is not None or spec.get("podReplacementPolicy") == "Failed"
            ),
        )
