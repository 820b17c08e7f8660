"""When a Job ends, why, and what it says then."""

from __future__ import annotations

from typing import Any

import pytest
from jobs_kit import START, T0, a_job, a_pod, conditions_of, indexed, reasons_of, settled

from bridge.local.jobs import reconcile
from bridge.pods import Manifest
from bridge.times import rfc3339

RULE_42 = {"onExitCodes": {"operator": "In", "values": [42]}}


def policy(action: str, **rule: Any) -> dict[str, Any]:
    return {"podFailurePolicy": {"rules": [{"action": action} | (rule or RULE_42)]}}


def failures(count: int, **details: Any) -> list[Manifest]:
    return [a_pod("Failed", serial=n, **details) for n in range(count)]


def per_index(*numbers: int, **details: Any) -> list[Manifest]:
    return [a_pod("Failed", index=n, **details) for n in numbers]


def done(*numbers: int) -> list[Manifest]:
    return [a_pod("Succeeded", index=n) for n in numbers]


PER_INDEX = {"backoffLimitPerIndex": 1}
ENDS: list[tuple[str, Manifest, list[Manifest], str | None]] = [
    # what, Job, pods, reason of the end
    ("limit not passed", a_job(backoffLimit=2), failures(2), None),
    ("limit passed", a_job(backoffLimit=2), failures(3), "BackoffLimitExceeded"),
    ("limit 0", a_job(backoffLimit=0), failures(1), "BackoffLimitExceeded"),
    (
        "a deleted pod counts",
        a_job(backoffLimit=0),
        [a_pod(deleted=T0)],
        "BackoffLimitExceeded",
    ),
    (
        "a deleted pod counts once it ended",
        a_job(backoffLimit=0, podReplacementPolicy="Failed"),
        [a_pod(deleted=T0)],
        None,
    ),
    (
        "restarts in place",
        a_job(restart="OnFailure", backoffLimit=3),
        [a_pod(restarts=1), a_pod("Pending", serial=1, restarts=2)],
        "BackoffLimitExceeded",
    ),
    (
        "restarts below the limit",
        a_job(restart="OnFailure", backoffLimit=3),
        [a_pod(restarts=2), a_pod("Succeeded", serial=1, restarts=9)],
        None,
    ),
    (
        "limit 0, no restart yet",
        a_job(restart="OnFailure", backoffLimit=0),
        [a_pod()],
        None,
    ),
    (
        "limit 0, a restart",
        a_job(restart="OnFailure", backoffLimit=0),
        [a_pod(restarts=1)],
        "BackoffLimitExceeded",
    ),
    ("deadline", a_job(activeDeadlineSeconds=100), [a_pod()], "DeadlineExceeded"),
    ("deadline ahead", a_job(activeDeadlineSeconds=101), [a_pod()], None),
    (
        "suspended knows no deadline",
        a_job(activeDeadlineSeconds=1, suspend=True) | {"status": START},
        [],
        None,
    ),
    (
        "done in time, seen late",
        a_job(activeDeadlineSeconds=10),
        [a_pod("Succeeded", serial=n, finished=T0 + 9) for n in range(3)],
        "CompletionsReached",
    ),
    (
        "done too late",
        a_job(activeDeadlineSeconds=10),
        [a_pod("Succeeded", serial=n, finished=T0 + 9 + n) for n in range(3)],
        "DeadlineExceeded",
    ),
    (
        "indexes done in time, seen late",
        indexed(activeDeadlineSeconds=10),
        done(0, 1, 2),
        "CompletionsReached",
    ),
    (
        "success policy met in time, seen late",
        indexed(activeDeadlineSeconds=10, successPolicy={"rules": [{"succeededCount": 1}]}),
        [*done(2), a_pod(index=0)],
        "SuccessPolicy",
    ),
    (
        "work queue done in time, seen late",
        a_job(completions=None, activeDeadlineSeconds=10),
        [a_pod("Succeeded"), a_pod("Failed", serial=1)],
        "CompletionsReached",
    ),
    (
        "work queue still at work",
        a_job(completions=None, activeDeadlineSeconds=10),
        [a_pod("Succeeded"), a_pod(serial=1)],
        "DeadlineExceeded",
    ),
    ("FailJob", a_job(**policy("FailJob")), failures(1, code=42), "PodFailurePolicy"),
    ("FailJob, other code", a_job(**policy("FailJob")), failures(1, code=1), None),
    (
        "Ignore does not count",
        a_job(backoffLimit=0, **policy("Ignore")),
        failures(3, code=42),
        None,
    ),
    (
        "Count counts",
        a_job(backoffLimit=0, **policy("Count")),
        failures(1, code=42),
        "BackoffLimitExceeded",
    ),
    (
        "the first rule wins",
        a_job(
            backoffLimit=0,
            podFailurePolicy={
                "rules": [{"action": "Ignore"} | RULE_42, {"action": "FailJob"} | RULE_42]
            },
        ),
        failures(1, code=42),
        None,
    ),
    (
        "NotIn",
        a_job(**policy("FailJob", onExitCodes={"operator": "NotIn", "values": [1, 2]})),
        failures(1, code=3),
        "PodFailurePolicy",
    ),
    (
        "NotIn, listed",
        a_job(**policy("FailJob", onExitCodes={"operator": "NotIn", "values": [1, 2]})),
        failures(1, code=2),
        None,
    ),
    (
        "NotIn never means 0",
        a_job(**policy("FailJob", onExitCodes={"operator": "NotIn", "values": [1, 2]})),
        failures(1, code=0),
        None,
    ),
    (
        "of another container",
        a_job(**policy("FailJob", onExitCodes=RULE_42["onExitCodes"] | {"containerName": "x"})),
        failures(1, code=42),
        None,
    ),
    (
        "of this container",
        a_job(**policy("FailJob", onExitCodes=RULE_42["onExitCodes"] | {"containerName": "main"})),
        failures(1, code=42),
        "PodFailurePolicy",
    ),
    (
        "condition, status defaulted",
        a_job(**policy("FailJob", onPodConditions=[{"type": "DisruptionTarget"}])),
        failures(1, conditions=({"type": "DisruptionTarget", "status": "True"},)),
        "PodFailurePolicy",
    ),
    (
        "condition, other status",
        a_job(**policy("FailJob", onPodConditions=[{"type": "Odd", "status": "False"}])),
        failures(1, conditions=({"type": "Odd", "status": "True"},)),
        None,
    ),
    (
        "a running pod meets no rule",
        a_job(**policy("FailJob", onPodConditions=[{"type": "Odd", "status": "True"}])),
        [a_pod(conditions=({"type": "Odd", "status": "True"},))],
        None,
    ),
    ("an index may fail once", indexed(**PER_INDEX), per_index(0, failures=0), None),
    ("others go on", indexed(**PER_INDEX), per_index(0, failures=1), None),
    (
        "all indexes ended, one failed",
        indexed(**PER_INDEX),
        [*per_index(0, failures=1), *done(1, 2)],
        "FailedIndexes",
    ),
    (
        "FailIndex",
        indexed(**PER_INDEX, **policy("FailIndex")),
        [*per_index(0, failures=0, code=42), *done(1, 2)],
        "FailedIndexes",
    ),
    (
        "an ignored failure fails no index",
        indexed(**PER_INDEX, **policy("Ignore")),
        [*per_index(0, failures=1, code=42), *done(1, 2)],
        None,
    ),
    (
        "maxFailedIndexes reached",
        indexed(completions=5, maxFailedIndexes=1, **PER_INDEX),
        per_index(0, failures=1),
        None,
    ),
    (
        "maxFailedIndexes passed",
        indexed(completions=5, maxFailedIndexes=1, **PER_INDEX),
        per_index(0, 3, failures=1),
        "MaxFailedIndexesExceeded",
    ),
    (
        "limit over all indexes as well",
        indexed(completions=5, backoffLimit=1, **PER_INDEX),
        per_index(0, 3, failures=0),
        "BackoffLimitExceeded",
    ),
    (
        "completions",
        a_job(),
        [a_pod("Succeeded", serial=n) for n in range(3)],
        "CompletionsReached",
    ),
    ("no completions wanted", a_job(completions=0), [], "CompletionsReached"),
    ("no indexes wanted", indexed(completions=0), [], "CompletionsReached"),
    ("indexes", indexed(), done(0, 1, 2), "CompletionsReached"),
    ("one index twice", indexed(), done(0, 1, 1), None),
    (
        "work queue",
        a_job(completions=None),
        [a_pod("Succeeded"), a_pod("Failed", serial=1)],
        "CompletionsReached",
    ),
    (
        "work queue waits",
        a_job(completions=None),
        [a_pod("Succeeded"), a_pod(serial=1)],
        None,
    ),
    (
        "work queue without success",
        a_job(completions=None),
        failures(1),
        None,
    ),
    (
        "enough indexes",
        indexed(successPolicy={"rules": [{"succeededCount": 2}]}),
        done(0, 2),
        "SuccessPolicy",
    ),
    (
        "too few indexes",
        indexed(successPolicy={"rules": [{"succeededCount": 2}]}),
        done(2),
        None,
    ),
    (
        "these indexes",
        indexed(completions=6, successPolicy={"rules": [{"succeededIndexes": "1,3-4"}]}),
        done(1, 3, 4),
        "SuccessPolicy",
    ),
    (
        "not all of these indexes",
        indexed(completions=6, successPolicy={"rules": [{"succeededIndexes": "1,3-4"}]}),
        done(0, 1, 4, 5),
        None,
    ),
    (
        "enough of these indexes",
        indexed(
            completions=6,
            successPolicy={"rules": [{"succeededIndexes": "1,3-4", "succeededCount": 2}]},
        ),
        done(1, 4),
        "SuccessPolicy",
    ),
    (
        "any rule will do",
        indexed(
            completions=6,
            successPolicy={"rules": [{"succeededIndexes": "5"}, {"succeededCount": 1}]},
        ),
        done(0),
        "SuccessPolicy",
    ),
    (
        "a failure comes before a success",
        indexed(backoffLimit=0, successPolicy={"rules": [{"succeededCount": 1}]}),
        [*done(0), *per_index(1)],
        "BackoffLimitExceeded",
    ),
    (
        "deletion for a suspension is no failure",
        a_job(backoffLimit=0),
        failures(1, deleted=T0, deleted_for="JobSuspended"),
        None,
    ),
]
FAILING = {
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "PodFailurePolicy",
    "FailedIndexes",
    "MaxFailedIndexesExceeded",
}


@pytest.mark.parametrize(
    ("job", "pods", "reason"), [case[1:] for case in ENDS], ids=[case[0] for case in ENDS]
)
def test_ends(job: Manifest, pods: list[Manifest], reason: str | None) -> None:
    decision = reconcile(job, pods, T0 + 100)
    conditions = conditions_of(decision)
    conditions.pop("Suspended", None)
    if reason is None:
        assert conditions == {}
        return
    interim, terminal = ("SuccessCriteriaMet", "Complete")
    if reason in FAILING:
        interim, terminal = ("FailureTarget", "Failed")
    active = {
        pod["metadata"]["uid"]
        for pod in pods
        if pod["status"]["phase"] in {"Running", "Pending"}
        and "deletionTimestamp" not in pod["metadata"]
    }
    terminating = any(
        "deletionTimestamp" in pod["metadata"] and pod["status"]["phase"] == "Running"
        for pod in pods
    )
    expected = {interim: ("True", reason)}
    if not active and not terminating:
        expected[terminal] = ("True", reason)
    assert conditions == expected
    assert set(decision.delete) == active
    assert decision.delete_reason == (reason if active else "")
    assert decision.create == ()
    assert decision.wake_at is None
    assert ("completionTime" in decision.status) == (terminal == "Complete" and not active)


def test_init_containers_meet_exit_code_rules() -> None:
    (pod,) = failures(1, code=0)
    ended = {"terminated": {"exitCode": 42, "finishedAt": rfc3339(T0)}}
    pod["status"]["initContainerStatuses"] = [{"name": "prepare", "state": ended}]
    decision = reconcile(a_job(**policy("FailJob")), [pod], T0)
    (condition,) = [one for one in decision.status["conditions"] if one["type"] == "Failed"]
    assert condition["message"] == (
        "pod work--0: container prepare exited with code 42 (podFailurePolicy rule 0)"
    )


def test_a_failing_job_counts_what_it_stops() -> None:
    pods = [a_pod("Failed"), a_pod(serial=1), a_pod("Succeeded", serial=2)]
    status = reconcile(a_job(backoffLimit=0), pods, T0).status
    assert (status["active"], status["terminating"]) == (0, 1)
    assert (status["failed"], status["succeeded"]) == (2, 1)


def test_too_many_successes_are_told() -> None:
    decision = reconcile(a_job(), [a_pod("Succeeded", serial=n) for n in range(4)], T0)
    assert reasons_of(decision) == ["TooManySucceededPods", "Completed"]


@pytest.mark.parametrize("name", ["Complete", "Failed"])
def test_terminal_absorbs(name: str) -> None:
    job = a_job(backoffLimit=0) | {"status": settled(name)}
    decision = reconcile(job, [a_pod(), a_pod("Failed", serial=1)], T0 + 100)
    assert decision.status["conditions"] == job["status"]["conditions"]
    assert decision.status.get("completionTime") == (
        rfc3339(T0 + 5) if name == "Complete" else None
    )
    assert (decision.create, decision.delete) == ((), ("/0",))
    assert reasons_of(decision) == ["SuccessfulDelete"]
    assert decision.wake_at is None


@pytest.mark.parametrize(
    ("before", "after", "event"),
    [("FailureTarget", "Failed", "Why"), ("SuccessCriteriaMet", "Complete", "Completed")],
)
def test_a_settled_job_ends_with_its_last_pod(before: str, after: str, event: str) -> None:
    job = a_job() | {"status": settled(before)}
    waiting = reconcile(job, [a_pod(deleted=T0)], T0 + 10)
    assert set(conditions_of(waiting)) == {before}
    ended = reconcile(job, [a_pod("Failed", deleted=T0)], T0 + 10)
    assert conditions_of(ended) == {before: ("True", "Why"), after: ("True", "Why")}
    assert reasons_of(ended) == [event]


@pytest.mark.parametrize(
    ("mark", "conditions"),
    [
        ("BackoffLimitExceeded", {"FailureTarget", "Failed"}),
        ("DeadlineExceeded", {"FailureTarget", "Failed"}),
        ("SuccessPolicy", {"SuccessCriteriaMet", "Complete"}),
    ],
)
def test_what_a_deleted_pod_remembers_settles_a_job_without_status(
    mark: str, conditions: set[str]
) -> None:
    pods = [a_pod("Failed", index=0, deleted=T0, deleted_for=mark)]
    decision = reconcile(indexed(), pods, T0)
    assert set(conditions_of(decision)) == conditions
    assert decision.create == ()
    assert decision.status["failed"] == (0 if mark == "SuccessPolicy" else 1)


@pytest.mark.parametrize("seconds", [0, 5])
def test_a_success_of_a_pod_that_was_given_up_does_not_count(seconds: int) -> None:
    late = a_pod("Succeeded", deleted=T0, finished=T0 + seconds)
    status = reconcile(a_job(), [late], T0 + 6).status
    assert (status["succeeded"], status["failed"]) == (0, 1)
    patient = a_job(podReplacementPolicy="Failed")
    status = reconcile(patient, [late], T0 + 6).status
    assert (status["succeeded"], status["failed"]) == (1, 0)
