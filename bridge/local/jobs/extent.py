"""How many pods a Job may make in all: what its cost is reckoned by. Pure."""

from __future__ import annotations

from bridge.cost.worst import Extent
from bridge.local.jobs.model import JobView


def extent(job: JobView) -> Extent:
    """The most pods that the controller here creates for a Job.

    It creates one only while failures are within the limit, and never more than what is still to
    be completed: so there are at most as many as completions and allowed failures together.
    """
    # A work queue ends with its first success: nothing is replaced but failures.
    wanted = job.parallelism if job.completions is None else job.completions
    at_once = min(job.parallelism, wanted)
    if any(rule.get("action") == "Ignore" for rule in job.failure_rules):
        words = "podFailurePolicy ignores failures, and such pods are replaced without limit"
        return Extent(None, at_once, job.deadline, words)
    pods = wanted + job.backoff_limit if at_once else 0
    if job.backoff_limit_per_index is not None:
        pods = min(pods, wanted * (job.backoff_limit_per_index + 1))
    return Extent(pods, at_once, job.deadline)
