"""How a run stands, and how it ended: pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from bridge.pods import Manifest


class ExitCode(IntEnum):
    """The exit codes of every command."""

    SUCCEEDED = 0
    FAILED = 1
    """A pod or Job failed."""
    BAD_INPUT = 2
    """Nothing was started."""
    COULD_NOT_RUN = 3
    """Capacity, quota, budget, credentials, unreachable."""
    TIMEOUT = 124


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether a run is over, and with what. `failed` names the Jobs and pods that failed."""

    over: bool
    code: ExitCode
    failed: tuple[str, ...] = ()


def condition(job: Manifest, kind: str) -> Manifest | None:
    """A Job's condition of that type, if it is True."""
    for one in job.get("status", {}).get("conditions", ()):
        if one["type"] == kind and one["status"] == "True":
            found: Manifest = one
            return found
    return None


def job_over(job: Manifest) -> bool:
    """Whether a Job is Complete or Failed."""
    return condition(job, "Complete") is not None or condition(job, "Failed") is not None


def pod_over(pod: Manifest) -> bool:
    """Whether a pod is Succeeded or Failed."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def owner(pod: Manifest) -> str:
    """The name of the Job that a pod belongs to; empty for a pod of its own."""
    for one in pod["metadata"].get("ownerReferences", ()):
        if one.get("kind") == "Job":
            return str(one["name"])
    return ""


def judge(jobs: Iterable[Manifest], pods: Iterable[Manifest]) -> Outcome:
    """How the run stands. A suspended Job counts as over: it would wait for ever."""
    over, failed = True, []
    suspended = set()
    for job in jobs:
        if condition(job, "Failed"):
            failed.append(f"job/{job['metadata']['name']}")
        if job.get("spec", {}).get("suspend"):
            suspended.add(job["metadata"]["name"])
        elif not job_over(job):
            over = False
    for pod in pods:
        belongs_to = owner(pod)
        if not pod_over(pod):
            over = False
        elif not belongs_to and pod["status"]["phase"] == "Failed":
            failed.append(f"pod/{pod['metadata']['name']}")
    code = ExitCode.FAILED if failed else ExitCode.SUCCEEDED
    return Outcome(over, code, tuple(failed))


def exit_code_of(which: str, pods: Iterable[Manifest], otherwise: int) -> int:
    """The exit code of one container's last run: `which` is POD or POD/CONTAINER, where POD is a
    pod's name or its Job's. `otherwise` where it has none."""
    name, _, container = which.partition("/")
    for pod in pods:
        if name not in (pod["metadata"]["name"], owner(pod)):
            continue
        for one in pod.get("status", {}).get("containerStatuses", ()):
            ended = one.get("state", {}).get("terminated")
            if ended is not None and container in ("", one["name"]):
                return int(ended["exitCode"])
    return otherwise
