"""Which pods an unfinished Job creates and deletes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.local.jobs.backoff import index_retry_at, job_retry_at
from bridge.local.jobs.indexes import first_pending
from bridge.local.jobs.model import (
    FAILURES_KEY,
    IGNORED_FAILURES_KEY,
    SUSPENDED_REASON,
    TOO_MANY_REASON,
    JobView,
    PodOrder,
)
from bridge.local.jobs.orders import PodFactory
from bridge.local.jobs.tally import Tally
from bridge.local.jobs.views import NO_INDEX, PodView, removal_order
from bridge.pods import Manifest

# MaxPodCreateDeletePerSync of the Job controller: a huge Job goes forward in steps.
MOST_PER_DECISION = 500


@dataclass(frozen=True, slots=True)
class Moves:
    """Pods to create, or pods to delete: never both in one decision."""

    create: tuple[PodOrder, ...] = ()
    delete: tuple[PodView, ...] = ()
    reason: str = ""
    truncated: bool = False


def plan_moves(job: JobView, tally: Tally, manifest: Manifest, now: float) -> Moves:
    """Bring the number of active pods to what the Job wants."""
    active = len(tally.active)
    if job.suspended:
        return Moves(delete=tuple(tally.active), reason=SUSPENDED_REASON)
    wanted = _wanted_active(job, tally)
    if surplus := _surplus(job, tally.active, max(active - wanted, 0)):
        return Moves(
            delete=tuple(surplus[:MOST_PER_DECISION]),
            reason=TOO_MANY_REASON,
            truncated=len(surplus) > MOST_PER_DECISION,
        )
    missing = wanted - active - (len(tally.terminating) if job.replaces_only_ended else 0)
    if missing <= 0:
        return Moves()
    count = min(missing, MOST_PER_DECISION)
    factory = PodFactory(job, manifest)
    build = _build_indexed if job.indexed else _build_plain
    return Moves(create=build(job, tally, factory, count, now), truncated=missing > count)


def _wanted_active(job: JobView, tally: Tally) -> int:
    if job.completions is None:
        # After the first success a work queue only waits for the pods that it has.
        return len(tally.active) if tally.succeeded else job.parallelism
    return max(min(job.completions - tally.succeeded_count, job.parallelism), 0)


def _surplus(job: JobView, active: Sequence[PodView], at_least: int) -> list[PodView]:
    """Pods with a bad index, all but the best of each index, and as many others as asked for."""
    remove: list[PodView] = []
    keep: dict[int, PodView] = {}
    left = list(active)
    if job.indexed:
        for view in active:
            rival = keep.get(view.index)
            if not 0 <= view.index < (job.completions or 0):
                remove.append(view)
            elif rival is None:
                keep[view.index] = view
            else:
                worse, better = sorted((rival, view), key=removal_order)
                remove.append(worse)
                keep[view.index] = better
        left = list(keep.values())
    if len(remove) < at_least:
        left.sort(key=removal_order)
        remove += left[: at_least - len(remove)]
    return remove


def _build_plain(
    job: JobView, tally: Tally, factory: PodFactory, count: int, now: float
) -> tuple[PodOrder, ...]:
    not_before = max(now, job_retry_at(tally.succeeded, tally.failed))
    serial = tally.next_serials().get(NO_INDEX, 0)
    return tuple(
        PodOrder(factory.build(None, number, {}), not_before)
        for number in range(serial, serial + count)
    )


def _build_indexed(
    job: JobView, tally: Tally, factory: PodFactory, count: int, now: float
) -> tuple[PodOrder, ...]:
    taken = {view.index for view in tally.active}
    if job.replaces_only_ended:
        taken.update(view.index for view in tally.terminating)
    taken |= tally.completed_indexes | tally.failed_indexes
    indexes = first_pending(count, job.completions or 0, taken)
    serials = tally.next_serials()
    if job.backoff_limit_per_index is None:
        not_before = max(now, job_retry_at(tally.succeeded, tally.failed))
        return tuple(
            PodOrder(factory.build(index, serials.get(index, 0), {}), not_before)
            for index in indexes
        )
    last_failed = tally.last_failed(indexes)
    return tuple(
        PodOrder(
            factory.build(
                index, serials.get(index, 0), _failure_counts(tally, last_failed.get(index))
            ),
            max(now, index_retry_at(last_failed.get(index))),
        )
        for index in indexes
    )


def _failure_counts(tally: Tally, replaced: PodView | None) -> dict[str, str]:
    """Annotations that carry an index's failures on to its next pod."""
    if replaced is None:
        return {FAILURES_KEY: "0"}
    counts = tally.verdict(replaced).counts
    failures = replaced.annotated_count(FAILURES_KEY) + counts
    ignored = replaced.annotated_count(IGNORED_FAILURES_KEY) + (not counts)
    return {FAILURES_KEY: str(failures)} | ({IGNORED_FAILURES_KEY: str(ignored)} if ignored else {})
