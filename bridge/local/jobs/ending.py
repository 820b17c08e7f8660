"""Whether and why a Job ends: the rules that settle it, in the controller's order."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.local.jobs.model import (
    BACKOFF_REASON,
    COMPLETIONS_REASON,
    DEADLINE_REASON,
    FAILED_INDEXES_REASON,
    FAILURE_REASONS,
    MAX_FAILED_REASON,
    POLICY_REASON,
    SUCCESS_POLICY_REASON,
    SUCCESS_REASONS,
    JobView,
)
from bridge.local.jobs.policies import success_rule_met
from bridge.local.jobs.tally import Tally
from bridge.local.jobs.views import finish_time, restarts
from bridge.pods import Manifest


@dataclass(frozen=True, slots=True)
class Ending:
    """A Job's outcome, settled although pods may still have to end."""

    success: bool
    reason: str
    message: str

    @property
    def interim(self) -> str:
        """The condition that says that the outcome is settled."""
        return "SuccessCriteriaMet" if self.success else "FailureTarget"

    @property
    def terminal(self) -> str:
        """The condition that says that nothing is left to do."""
        return "Complete" if self.success else "Failed"


COMPLETIONS_REACHED = Ending(True, COMPLETIONS_REASON, "the expected number of pods succeeded")


def settled_before(conditions: list[Manifest], tally: Tally) -> Ending | None:
    """Find the outcome that an earlier decision settled.

    It is in the Job's conditions; if those were lost, in what was written on deleted pods.
    """
    true = {one["type"]: one for one in conditions if one["status"] == "True"}
    for name in ("Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"):
        if found := true.get(name):
            success = name in {"Complete", "SuccessCriteriaMet"}
            return Ending(success, found.get("reason", ""), found.get("message", ""))
    marks = {view.deleted_for for view in tally.views}
    for reasons in (SUCCESS_REASONS, FAILURE_REASONS):
        if written := marks & reasons:
            return Ending(
                reasons is SUCCESS_REASONS, min(written), "settled earlier, says a deleted pod"
            )
    return None


def settled_now(job: JobView, tally: Tally, start: float | None, now: float) -> Ending | None:
    """Apply the rules to the pods: failures come before successes."""
    return (
        _failed_by_policy(tally)
        or _failed_by_backoff(job, tally)
        or _failed_by_deadline(job, tally, start, now)
        or (_failed_by_indexes(job, tally) if job.indexed else None)
        or (_succeeded_by_policy(job, tally) if job.indexed else None)
    )


def completions_reached(job: JobView, tally: Tally, active: int) -> bool:
    """Whether the Job is complete, given how many pods stay active.

    A work queue is complete when one pod has succeeded and the others have ended, however.
    """
    wanted = 1 if job.completions is None else job.completions
    return tally.succeeded_count >= wanted and active == 0


def _failed_by_policy(tally: Tally) -> Ending | None:
    for view in tally.failed:
        verdict = tally.verdict(view)
        if verdict.action == "FailJob":
            return Ending(False, POLICY_REASON, verdict.why)
    return None


def _failed_by_backoff(job: JobView, tally: Tally) -> Ending | None:
    failed = tally.failed_count(failing=False)
    if failed > job.backoff_limit:
        return Ending(
            False, BACKOFF_REASON, f"pods failed: {failed}, backoffLimit: {job.backoff_limit}"
        )
    if not job.restarts_in_place:
        return None
    restarted = sum(
        restarts(view.pod) for view in tally.views if view.phase in {"Running", "Pending"}
    )
    # A limit of 0 allows no restart; any other is reached by as many restarts.
    if restarted >= max(job.backoff_limit, 1):
        return Ending(
            False,
            BACKOFF_REASON,
            f"containers restarted: {restarted}, backoffLimit: {job.backoff_limit}",
        )
    return None


def _failed_by_deadline(
    job: JobView, tally: Tally, start: float | None, now: float
) -> Ending | None:
    if job.deadline is None or start is None or job.suspended or now < start + job.deadline:
        return None
    if _done_by(job, tally, start + job.deadline):
        return None
    return Ending(
        False, DEADLINE_REASON, f"active for longer than activeDeadlineSeconds: {job.deadline}"
    )


def _done_by(job: JobView, tally: Tally, deadline: float) -> bool:
    """Whether the Job met its goal in time, although nobody looked before the deadline.

    Pods run on while no controller does, so an unattended Job may be judged long after its end.
    """
    in_time = [view for view in tally.succeeded if finish_time(view.pod) <= deadline]
    if job.completions is None:
        ended_in_time = sum(finish_time(view.pod) <= deadline for view in tally.views)
        return bool(in_time) and ended_in_time == len(tally.views) and not tally.active
    indexes = {view.index for view in in_time}
    if (len(indexes) if job.indexed else len(in_time)) >= job.completions:
        return True
    return success_rule_met(job.success_rules, indexes, job.completions) is not None


def _failed_by_indexes(job: JobView, tally: Tally) -> Ending | None:
    failed, completions = len(tally.failed_indexes), job.completions or 0
    if job.max_failed_indexes is not None and failed > job.max_failed_indexes:
        return Ending(
            False,
            MAX_FAILED_REASON,
            f"indexes failed: {failed}, maxFailedIndexes: {job.max_failed_indexes}",
        )
    if failed and failed + len(tally.completed_indexes) >= completions:
        return Ending(False, FAILED_INDEXES_REASON, f"indexes failed: {failed} of {completions}")
    return None


def _succeeded_by_policy(job: JobView, tally: Tally) -> Ending | None:
    number = success_rule_met(job.success_rules, tally.completed_indexes, job.completions or 0)
    if number is None:
        return None
    return Ending(True, SUCCESS_POLICY_REASON, f"successPolicy rule {number} is met")
