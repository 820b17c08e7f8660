"""The decision about a Job: end it, or bring its pods to what it wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge.local.jobs.ending import (
    COMPLETIONS_REACHED,
    Ending,
    completions_reached,
    settled_before,
    settled_now,
)
from bridge.local.jobs.indexes import format_indexes
from bridge.local.jobs.model import SUSPENDED_REASON, Decision, Event, JobView, PodOrder
from bridge.local.jobs.moves import Moves, plan_moves
from bridge.local.jobs.tally import Tally
from bridge.local.jobs.views import PodView, created_at
from bridge.pods import Manifest
from bridge.times import parse_rfc3339, rfc3339


def reconcile(job: Manifest, pods: Sequence[Manifest], now: float) -> Decision:
    """Decide about a batch/v1 Job (checked, defaulted, with a UID) and all pods it ever had.

    `now` is in epoch seconds. Of `job["status"]` only `startTime` and `conditions` are read, and
    both may be missing. Neither argument is changed.
    """
    view = JobView.of(job)
    tally = Tally(view, pods)
    draft = _Draft(view, tally, now, job.get("status") or {})
    ending = settled_before(draft.conditions, tally) or settled_now(view, tally, draft.start, now)
    if ending is not None:
        moves = Moves(delete=tuple(tally.active), reason=ending.reason)
        draft.end(ending, moves)
    else:
        # A Job that is itself being deleted neither creates nor deletes.
        moves = Moves() if view.deleting else plan_moves(view, tally, job, now)
        if completions_reached(view, tally, draft.active_after(moves)):
            ending = COMPLETIONS_REACHED
            draft.end(ending, moves)
        elif not view.deleting:
            draft.note_suspension()
    draft.note_moves(moves)
    return Decision(
        status=draft.status(ending, moves),
        create=moves.create,
        delete=tuple(pod.uid for pod in moves.delete),
        delete_reason=moves.reason if moves.delete else "",
        wake_at=None if ending is not None else draft.wake_at(moves),
        events=tuple(draft.events),
    )


@dataclass(slots=True)
class _Draft:
    """The Job's status and events in the making."""

    job: JobView
    tally: Tally
    now: float
    previous: Manifest
    conditions: list[Manifest] = field(init=False)
    events: list[Event] = field(init=False)
    start: float | None = field(init=False)

    def __post_init__(self) -> None:
        self.conditions = [dict(one) for one in self.previous.get("conditions") or ()]
        self.events = []
        self.start = self._known_start()

    def _known_start(self) -> float | None:
        if text := self.previous.get("startTime"):
            return parse_rfc3339(text)
        if self.job.suspended:
            return None
        # Suspended until now: the deadline's time begins anew.
        if self._is_true("Suspended"):
            return self.now
        return min(map(_began, _since_resumed(self.tally.views)), default=self.now)

    def _is_true(self, name: str) -> bool:
        return any(one["type"] == name and one["status"] == "True" for one in self.conditions)

    def active_after(self, moves: Moves) -> int:
        """Active pods once the moves are made."""
        return len(self.tally.active) - len(moves.delete) + len(self._due(moves))

    def _due(self, moves: Moves) -> list[PodOrder]:
        return [order for order in moves.create if order.not_before <= self.now]

    def end(self, ending: Ending, moves: Moves) -> None:
        """Record the outcome; it becomes terminal once no pod is left running."""
        if self._is_true(ending.terminal):
            return
        self._set(ending.interim, True, ending.reason, ending.message)
        if self.tally.terminating or moves.delete:
            return
        self._set(ending.terminal, True, ending.reason, ending.message)
        if not ending.success:
            self.events.append(Event("Warning", ending.reason, ending.message))
            return
        completions = self.job.completions
        if completions is not None and self.tally.succeeded_count > completions:
            message = f"pods succeeded: {self.tally.succeeded_count}, completions: {completions}"
            self.events.append(Event("Warning", "TooManySucceededPods", message))
        self.events.append(Event("Normal", "Completed", "Job completed"))

    def note_suspension(self) -> None:
        """Follow `spec.suspend`: time spent suspended does not count towards the deadline."""
        if self.job.suspended:
            if self._set("Suspended", True, SUSPENDED_REASON, "Job suspended"):
                self.events.append(Event("Normal", "Suspended", "Job suspended"))
                self.start = None
        elif self._set("Suspended", False, "JobResumed", "Job resumed"):
            self.events.append(Event("Normal", "Resumed", "Job resumed"))
            self.start = self.now

    def note_moves(self, moves: Moves) -> None:
        """One event for each pod that is created or deleted now."""
        for order in self._due(moves):
            message = f"Created pod: {order.manifest['metadata']['name']}"
            self.events.append(Event("Normal", "SuccessfulCreate", message))
        for view in moves.delete:
            message = f"Deleted pod: {view.pod['metadata']['name']}"
            self.events.append(Event("Normal", "SuccessfulDelete", message))

    def _set(self, name: str, value: bool, reason: str, message: str) -> bool:
        """Set a condition; say whether that changed anything. An absent one is already False."""
        status, time = str(value), rfc3339(self.now)
        made = {
            "type": name,
            "status": status,
            "lastProbeTime": time,
            "lastTransitionTime": time,
            "reason": reason,
            "message": message,
        }
        for position, old in enumerate(self.conditions):
            if old["type"] == name:
                changed = any(old.get(key) != made[key] for key in ("status", "reason", "message"))
                if changed:
                    self.conditions[position] = made
                return changed
        if value:
            self.conditions.append(made)
        return value

    def _failed_indexes(self) -> str:
        """As of when the Job failed: how the pods end that it then stops says nothing of theirs."""
        for one in self.previous.get("conditions") or ():
            if (one["type"], one["status"]) == ("FailureTarget", "True"):
                return str(self.previous.get("failedIndexes", ""))
        return format_indexes(self.tally.failed_indexes)

    def status(self, ending: Ending | None, moves: Moves) -> Manifest:
        """Put the Job's status together."""
        tally = self.tally
        gone = {view.uid for view in moves.delete}
        failing = ending is not None and not ending.success
        status: Manifest = {
            "active": self.active_after(moves),
            "ready": tally.ready_count(without=gone),
            "succeeded": tally.succeeded_count,
            "failed": tally.failed_count(failing=failing),
            "terminating": len(tally.terminating) + len(gone),
        }
        if tally.completed_indexes:
            status["completedIndexes"] = format_indexes(tally.completed_indexes)
        if self.job.backoff_limit_per_index is not None:
            status["failedIndexes"] = self._failed_indexes()
        if self.conditions:
            status["conditions"] = self.conditions
        if self.start is not None:
            status["startTime"] = rfc3339(self.start)
        for condition in self.conditions:
            if condition["type"] == "Complete" and condition["status"] == "True":
                status["completionTime"] = condition["lastTransitionTime"]
        return status

    def wake_at(self, moves: Moves) -> float | None:
        """The nearest of: deadline, end of a back-off, the rest of a long list."""
        times = [order.not_before for order in moves.create if order.not_before > self.now]
        if moves.truncated:
            times.append(self.now)
        if self.job.deadline is not None and self.start is not None and not self.job.suspended:
            times.append(self.start + self.job.deadline)
        return min(times, default=None)


def _since_resumed(views: Sequence[PodView]) -> list[PodView]:
    return [view for view in views if view.deleted_for != SUSPENDED_REASON and _began(view) > 0.0]


def _began(view: PodView) -> float:
    started = (view.pod.get("status") or {}).get("startTime")
    return created_at(view.pod) or (parse_rfc3339(started) if started else 0.0)
