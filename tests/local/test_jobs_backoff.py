"""When failed pods are replaced, and by what evidence a pod's end is dated."""

from __future__ import annotations

import pytest
from jobs_kit import T0, World, a_job, a_pod, created_indexes, indexed

from bridge.local.jobs import reconcile
from bridge.local.jobs.views import finish_time
from bridge.pods import Manifest
from bridge.times import rfc3339


def failed(*times: float) -> list[Manifest]:
    return [a_pod("Failed", serial=n, finished=T0 + time) for n, time in enumerate(times)]


def won(time: float) -> Manifest:
    return a_pod("Succeeded", serial=99, finished=T0 + time)


@pytest.mark.parametrize(
    ("pods", "wait"),
    [
        (failed(0), 10),
        (failed(0, 0), 20),
        (failed(0, 3), 23),
        (failed(3, 0, 1), 43),
        (failed(*[0] * 6), 320),
        (failed(*[0] * 7), 600),
        (failed(*[0] * 50), 600),
        ([*failed(0, 5), won(2)], 15),
        ([*failed(0, 5), won(5)], 0),
        ([*failed(0, 5), won(9)], 0),
        ([won(9)], 0),
        ([], 0),
    ],
)
def test_the_jobs_backoff(pods: list[Manifest], wait: int) -> None:
    now = T0 + 6
    job = a_job(completions=9, parallelism=1, backoffLimit=99)
    decision = reconcile(job, pods, now)
    (order,) = decision.create
    due = max(T0 + wait, now)
    assert order.not_before == due
    assert decision.wake_at == (due if due > now else None)
    assert decision.status["active"] == (0 if due > now else 1)
    (later,) = reconcile(job, pods, due).create
    assert (later.manifest, later.not_before) == (order.manifest, due)


def test_ignored_failures_hold_the_job_back_too() -> None:
    rule = {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [1]}}
    job = a_job(podFailurePolicy={"rules": [rule]}, backoffLimit=0)
    assert reconcile(job, failed(0, 0), T0).wake_at == T0 + 20


def test_an_index_has_its_own_backoff() -> None:
    pods = [
        a_pod("Failed", index=0, failures=0, finished=T0),
        a_pod("Failed", index=1, failures=2, ignored=1, finished=T0),
    ]
    job = indexed(completions=9, parallelism=3, backoffLimitPerIndex=9)
    decision = reconcile(job, pods, T0 + 1)
    assert created_indexes(decision) == [0, 1, 2]
    assert [order.not_before - T0 for order in decision.create] == [10, 80, 1]
    assert decision.wake_at == T0 + 10
    assert decision.status["active"] == 1
    assert [event.reason for event in decision.events] == ["SuccessfulCreate"]


def test_the_deadline_may_come_before_the_backoff() -> None:
    world = World(a_job(parallelism=1, activeDeadlineSeconds=15))
    world.now += 10
    world.finish(world.running()[0], 1)
    assert world.settle().wake_at == T0 + 15


def sidecar(pod: Manifest, ended: float | None) -> Manifest:
    pod["spec"]["initContainers"] = [
        {"name": "proxy", "restartPolicy": "Always"},
        {"name": "prepare"},
    ]
    state: Manifest = {"running": {}}
    if ended is not None:
        state = {"terminated": {"exitCode": 0, "finishedAt": rfc3339(ended)}}
    pod["status"]["initContainerStatuses"] = [
        {"name": "proxy", "state": state},
        {"name": "prepare", "state": {"waiting": {}}},
    ]
    return pod


def without_grace(pod: Manifest, seconds: int) -> Manifest:
    pod["metadata"]["deletionGracePeriodSeconds"] = seconds
    return pod


UNREADY = {"type": "Ready", "status": "False", "lastTransitionTime": rfc3339(T0 + 7)}


@pytest.mark.parametrize(
    ("pod", "seconds"),
    [
        (a_pod("Failed", finished=T0 + 3), 3),
        (sidecar(a_pod("Failed", finished=T0 + 3), T0 + 5), 5),
        (sidecar(a_pod("Failed", finished=T0 + 3, conditions=(UNREADY,)), None), 7),
        (a_pod(conditions=(UNREADY,), deleted=T0 + 9), 7),
        (without_grace(a_pod(deleted=T0 + 30), 12), 18),
        (a_pod(created=T0 + 1), 1),
    ],
)
def test_when_a_pod_ended(pod: Manifest, seconds: int) -> None:
    assert finish_time(pod) == T0 + seconds
