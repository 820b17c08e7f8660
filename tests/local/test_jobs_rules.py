"""Each rule of the Job controller: given a Job and its pods, what is decided."""

from __future__ import annotations

from typing import Any

import pytest
from jobs_kit import (
    START,
    T0,
    World,
    a_job,
    a_pod,
    conditions_of,
    created_indexes,
    indexed,
    reasons_of,
    settled,
)

from bridge.local.jobs import reconcile
from bridge.pods import Manifest
from bridge.times import rfc3339

# --- how many pods -------------------------------------------------------------------------

COUNTS: list[tuple[str, dict[str, Any], list[Manifest], int, int]] = [
    # what, spec, pods, pods to create, pods to delete
    ("parallelism limits", {"completions": 5, "parallelism": 2}, [], 2, 0),
    ("remaining completions limit", {"completions": 2, "parallelism": 5}, [], 2, 0),
    ("parallelism 0 waits", {"parallelism": 0}, [], 0, 0),
    ("parallelism 0 stops pods", {"parallelism": 0}, [a_pod()], 0, 1),
    ("full", {}, [a_pod(serial=0), a_pod(serial=1)], 0, 0),
    ("last one", {}, [a_pod("Succeeded"), a_pod("Succeeded", serial=1), a_pod(serial=2)], 0, 0),
    ("work queue fills up", {"completions": None, "parallelism": 3}, [a_pod()], 2, 0),
    (
        "work queue after a success",
        {"completions": None, "parallelism": 3},
        [a_pod("Succeeded"), a_pod(serial=1)],
        0,
        0,
    ),
    (
        "work queue with a success ignores failures",
        {"completions": None, "parallelism": 3},
        [a_pod("Succeeded"), a_pod(serial=1), a_pod("Failed", serial=2)],
        0,
        0,
    ),
    ("too many", {}, [a_pod(serial=n) for n in range(4)], 0, 2),
    ("500 at a time", {"completions": 900, "parallelism": 900}, [], 500, 0),
    ("a deleted pod is replaced", {}, [a_pod(deleted=T0 - 60), a_pod(serial=1)], 1, 0),
    (
        "or once it has ended",
        {"podReplacementPolicy": "Failed"},
        [a_pod(deleted=T0 - 60), a_pod(serial=1)],
        0,
        0,
    ),
    (
        "has ended",
        {"podReplacementPolicy": "Failed"},
        [a_pod("Failed", deleted=T0 - 60, finished=T0 - 50), a_pod(serial=1)],
        1,
        0,
    ),
]


@pytest.mark.parametrize(
    ("spec", "pods", "create", "delete"),
    [case[1:] for case in COUNTS],
    ids=[case[0] for case in COUNTS],
)
def test_how_many(spec: dict[str, Any], pods: list[Manifest], create: int, delete: int) -> None:
    decision = reconcile(a_job(**spec), pods, T0)
    assert len(decision.create) == create
    assert len(decision.delete) == delete
    assert reasons_of(decision).count("SuccessfulCreate") == create
    assert reasons_of(decision).count("SuccessfulDelete") == delete


def test_more_than_500_go_on_at_once() -> None:
    assert reconcile(a_job(completions=501, parallelism=501), [], T0).wake_at == T0
    assert reconcile(a_job(completions=500, parallelism=500), [], T0).wake_at is None


def test_a_job_being_deleted_makes_no_moves() -> None:
    job = a_job()
    job["metadata"]["deletionTimestamp"] = rfc3339(T0)
    decision = reconcile(job, [a_pod()], T0)
    assert (decision.create, decision.delete) == ((), ())


INDEXES: list[tuple[str, dict[str, Any], list[Manifest], list[int], list[str]]] = [
    ("lowest first", {}, [], [0, 1], []),
    ("gaps", {"parallelism": 3}, [a_pod("Succeeded", index=0), a_pod(index=1)], [2], []),
    ("failed again", {}, [a_pod("Failed", index=0, finished=T0 - 60)], [0, 1], []),
    ("terminating is replaced", {}, [a_pod(index=0, deleted=T0 - 60)], [0, 1], []),
    (
        "terminating is awaited",
        {"podReplacementPolicy": "Failed"},
        [a_pod(index=0, deleted=T0 - 60)],
        [1],
        [],
    ),
    ("bad index goes", {}, [a_pod(index=7)], [], ["7/0"]),
    ("no index goes", {}, [a_pod()], [], ["/0"]),
    (
        "twice the same index",
        {},
        [a_pod("Pending", index=0, serial=1), a_pod(index=0, serial=0)],
        [],
        ["0/1"],
    ),
]


@pytest.mark.parametrize(
    ("spec", "pods", "create", "delete"),
    [case[1:] for case in INDEXES],
    ids=[case[0] for case in INDEXES],
)
def test_which_indexes(
    spec: dict[str, Any], pods: list[Manifest], create: list[int], delete: list[str]
) -> None:
    decision = reconcile(indexed(**spec), pods, T0)
    assert created_indexes(decision) == create
    assert list(decision.delete) == delete


def test_the_least_missed_pods_go_first() -> None:
    pods = [
        a_pod(serial=0, ready=True),
        a_pod(serial=1),
        a_pod(serial=2, restarts=3),
        a_pod(serial=3, created=T0 + 5),
        a_pod("Pending", serial=4),
        a_pod("Pending", serial=5, node=""),
    ]
    decision = reconcile(a_job(completions=9, parallelism=1), pods, T0)
    assert list(decision.delete) == ["/5", "/4", "/2", "/3", "/1"]
    assert decision.delete_reason == "TooManyPods"


# --- status --------------------------------------------------------------------------------


def test_status_of_an_indexed_job() -> None:
    pods = [
        a_pod("Succeeded", index=0),
        a_pod("Succeeded", index=0, serial=1),
        a_pod("Failed", index=1, finished=T0 - 60, failures=1),
        a_pod(index=2, ready=True),
        a_pod(index=3, deleted=T0 - 60),
        a_pod("Failed", index=99),
    ]
    job = indexed(completions=6, parallelism=3, backoffLimitPerIndex=1)
    status = reconcile(job, pods, T0).status
    assert status == START | {
        "active": 3,
        "ready": 1,
        "succeeded": 1,
        "failed": 2,
        "terminating": 1,
        "completedIndexes": "0",
        "failedIndexes": "1",
    }


def test_the_failed_indexes_of_a_job_that_fails_stay_as_they_were() -> None:
    job = indexed(completions=4, parallelism=4, backoffLimitPerIndex=0)
    stopped = [a_pod("Failed", index=index) for index in range(3)]
    assert reconcile(job, stopped, T0).status["failedIndexes"] == "0-2"
    job["status"] = settled("FailureTarget") | {"failedIndexes": "1"}
    assert reconcile(job, stopped, T0).status["failedIndexes"] == "1"


def test_nothing_given_is_changed() -> None:
    job, pods = a_job() | {"status": settled("FailureTarget")}, [a_pod(), a_pod("Failed", serial=1)]
    before = repr((job, pods))
    reconcile(job, pods, T0)
    assert repr((job, pods)) == before


START_TIMES: list[tuple[str, Manifest, list[Manifest], float | None]] = [
    ("first look", {}, [], T0 + 30),
    ("remembered", START, [], T0),
    ("from the oldest pod", {}, [a_pod(created=T0 + 9), a_pod(created=T0 + 3)], T0 + 3),
    ("resumed", settled("Suspended", "JobSuspended") | {"startTime": None}, [a_pod()], T0 + 30),
    (
        "not from before a suspension",
        {},
        [a_pod("Failed", created=T0, deleted_for="JobSuspended"), a_pod(created=T0 + 7)],
        T0 + 7,
    ),
]


@pytest.mark.parametrize(
    ("status", "pods", "start"),
    [case[1:] for case in START_TIMES],
    ids=[case[0] for case in START_TIMES],
)
def test_start_time(status: Manifest, pods: list[Manifest], start: float) -> None:
    decision = reconcile(a_job() | {"status": status}, pods, T0 + 30)
    assert decision.status["startTime"] == rfc3339(start)


def test_start_time_without_a_creation_time() -> None:
    pod = a_pod()
    del pod["metadata"]["creationTimestamp"]
    pod["status"]["startTime"] = rfc3339(T0 + 4)
    assert reconcile(a_job(), [pod], T0 + 30).status["startTime"] == rfc3339(T0 + 4)


# --- suspension ----------------------------------------------------------------------------


def test_suspend_and_resume() -> None:
    world = World(a_job(activeDeadlineSeconds=100, backoffLimit=0))
    assert world.last.wake_at == T0 + 100
    world.job["spec"]["suspend"] = True
    world.now += 50
    decision = reconcile(world.job, list(world.pods.values()), world.now)
    assert (len(decision.delete), decision.delete_reason) == (2, "JobSuspended")
    assert reasons_of(decision) == ["Suspended", "SuccessfulDelete", "SuccessfulDelete"]
    assert conditions_of(decision) == {"Suspended": ("True", "JobSuspended")}
    assert "startTime" not in decision.status
    assert decision.wake_at is None

    world.settle()
    for uid in world.running():
        world.finish(uid, 143)
    world.now += 500
    status = world.settle().status
    assert (status["active"], status["failed"], status["terminating"]) == (0, 0, 0)

    world.job["spec"]["suspend"] = False
    decision = reconcile(world.job, list(world.pods.values()), world.now)
    assert reasons_of(decision) == ["Resumed", "SuccessfulCreate", "SuccessfulCreate"]
    assert conditions_of(decision) == {"Suspended": ("False", "JobResumed")}
    assert decision.status["startTime"] == rfc3339(world.now)
    assert decision.wake_at == world.now + 100


def test_a_job_that_starts_suspended() -> None:
    decision = reconcile(a_job(suspend=True), [], T0)
    assert decision.create == ()
    assert conditions_of(decision) == {"Suspended": ("True", "JobSuspended")}
    assert "startTime" not in decision.status


def test_a_job_that_never_was_suspended_does_not_say_so() -> None:
    assert "conditions" not in reconcile(a_job(), [], T0).status
