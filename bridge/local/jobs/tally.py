"""What the pods of a Job add up to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from bridge.local.jobs.model import FAILURES_KEY, JobView
from bridge.local.jobs.policies import NO_RULE, Verdict, judge_failure
from bridge.local.jobs.views import PodView, finish_time, is_ready, view_pod
from bridge.pods import Manifest


class Tally:
    """The pods of a Job, sorted into what the rules ask for; nothing in it changes afterwards.

    `succeeded` and `failed` hold tracked pods only; `active` and `terminating` hold all.
    `completed_indexes` and `failed_indexes` are empty unless the Job is Indexed.
    """

    def __init__(self, job: JobView, pods: Iterable[Manifest]) -> None:
        self._job = job
        self._verdicts: dict[str, Verdict] = {}
        self.views: list[PodView] = [view_pod(job, pod) for pod in pods]
        self.active: list[PodView] = []
        self.terminating: list[PodView] = []
        self.succeeded: list[PodView] = []
        self.failed: list[PodView] = []
        for view in self.views:
            if not view.ended:
                (self.terminating if view.deleting else self.active).append(view)
            if view.tracked and view.failed:
                self.failed.append(view)
            elif view.tracked and view.succeeded:
                self.succeeded.append(view)
        self.completed_indexes: set[int] = set()
        self.failed_indexes: set[int] = set()
        if job.indexed:
            self.completed_indexes = {view.index for view in self.succeeded}
            self.failed_indexes = {view.index for view in self.failed if self._index_failed(view)}

    def verdict(self, view: PodView) -> Verdict:
        """What podFailurePolicy says of a pod."""
        if not self._job.failure_rules:
            return NO_RULE
        found = self._verdicts.get(view.uid)
        if found is None:
            found = self._verdicts[view.uid] = judge_failure(self._job.failure_rules, view.pod)
        return found

    def _index_failed(self, view: PodView) -> bool:
        limit = self._job.backoff_limit_per_index
        if limit is None:
            return False
        verdict = self.verdict(view)
        return verdict.action == "FailIndex" or (
            verdict.counts and view.annotated_count(FAILURES_KEY) >= limit
        )

    @property
    def succeeded_count(self) -> int:
        """Completions reached: indexes where the Job is Indexed, else pods."""
        return len(self.completed_indexes if self._job.indexed else self.succeeded)

    def failed_count(self, *, failing: bool) -> int:
        """Failed pods that count; in a failing Job all that have not succeeded count as failed."""
        views: Sequence[PodView] = self.failed
        if failing:
            views = [view for view in self.views if view.tracked and not view.succeeded]
        return sum(self.verdict(view).counts for view in views)

    def ready_count(self, *, without: AbstractSet[str]) -> int:
        """Active pods that are ready, but for those of the given UIDs."""
        return sum(is_ready(view.pod) for view in self.active if view.uid not in without)

    def last_failed(self, indexes: Iterable[int]) -> dict[int, PodView]:
        """For each of these indexes the failed pod that a new one would replace, if any failed."""
        wanted = frozenset(indexes)
        last: dict[int, tuple[tuple[int, float], PodView]] = {}
        for view in self.failed:
            if view.index not in wanted:
                continue
            rank = (view.failures_before, finish_time(view.pod))
            if view.index not in last or last[view.index][0] <= rank:
                last[view.index] = (rank, view)
        return {index: view for index, (_, view) in last.items()}

    def next_serials(self) -> dict[int, int]:
        """For each index (NO_INDEX where the Job is not Indexed) the serial number to give next."""
        serials: dict[int, int] = {}
        for view in self.views:
            serials[view.index] = max(serials.get(view.index, 0), view.serial + 1)
        return serials
