from __future__ import annotations

from typing import Any

import pytest
from commands_kit import container, pod

from bridge.cli.columns import completions, job_duration, job_status, pod_status, why_waiting

INIT = {
    "initContainers": [{"name": "one"}, {"name": "two"}],
    "containers": [{"name": "main"}],
}
SIDECAR = {
    "initContainers": [{"name": "proxy", "restartPolicy": "Always"}],
    "containers": [{"name": "main"}],
}
WAITS = container(waiting={"reason": "PodInitializing"})
FAILED = {"exitCode": 3, "reason": "Error", "finishedAt": "1970-01-01T00:00:50Z"}
DONE = {"exitCode": 0, "reason": "Completed"}
READY = [{"type": "Ready", "status": "True"}]


@pytest.mark.parametrize(
    ("one", "ready", "status"),
    [
        (pod(phase="Pending"), "0/1", "Pending"),
        (pod(containerStatuses=[container(running={})]), "1/1", "Running"),
        (
            pod(phase="Pending", containerStatuses=[container(waiting={"reason": "ErrImagePull"})]),
            "0/1",
            "ErrImagePull",
        ),
        (
            pod(phase="Succeeded", containerStatuses=[container(terminated=DONE)]),
            "0/1",
            "Completed",
        ),
        (pod(phase="Failed", containerStatuses=[container(terminated=FAILED)]), "0/1", "Error"),
        (
            pod(phase="Failed", containerStatuses=[container(terminated={"exitCode": 9})]),
            "0/1",
            "ExitCode:9",
        ),
        (
            pod(
                phase="Failed",
                containerStatuses=[container(terminated={"exitCode": 137, "signal": 9})],
            ),
            "0/1",
            "Signal:9",
        ),
        (pod(phase="Failed", reason="DeadlineExceeded"), "0/1", "DeadlineExceeded"),
        (
            pod(
                spec=INIT,
                phase="Pending",
                initContainerStatuses=[container("one", running={}), container("two", waiting={})],
                containerStatuses=[WAITS],
            ),
            "0/1",
            "Init:0/2",
        ),
        (
            pod(
                spec=INIT,
                phase="Pending",
                initContainerStatuses=[
                    container("one", terminated=DONE),
                    container("two", waiting={"reason": "CrashLoopBackOff"}),
                ],
                containerStatuses=[WAITS],
            ),
            "0/1",
            "Init:CrashLoopBackOff",
        ),
        (
            pod(
                spec=INIT,
                phase="Failed",
                initContainerStatuses=[container("one", terminated=FAILED)],
            ),
            "0/1",
            "Init:Error",
        ),
        (
            pod(
                spec=SIDECAR,
                initContainerStatuses=[container("proxy", running={})],
                containerStatuses=[container(running={})],
            ),
            "2/2",
            "Running",
        ),
        (
            pod(
                spec={"containers": [{"name": "a"}, {"name": "b"}]},
                containerStatuses=[container("a", terminated=DONE), container("b", running={})],
                conditions=READY,
            ),
            "1/2",
            "Running",
        ),
        (
            pod(
                spec={"containers": [{"name": "a"}, {"name": "b"}]},
                containerStatuses=[container("a", terminated=DONE), container("b", running={})],
            ),
            "1/2",
            "NotReady",
        ),
    ],
)
def test_status_is_what_kubectl_shows(one: dict[str, Any], ready: str, status: str) -> None:
    assert pod_status(one, 100.0)[:2] == (ready, status)


def test_a_pod_that_is_deleted_terminates_until_it_has_ended() -> None:
    one = pod(containerStatuses=[container(running={})])
    one["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z"
    assert pod_status(one, 0.0)[1] == "Terminating"

    one["status"]["phase"] = "Failed"
    assert pod_status(one, 0.0)[1] == "Failed"


def test_restarts_say_when_the_last_one_was() -> None:
    one = pod(
        containerStatuses=[
            container(waiting={"reason": "CrashLoopBackOff"}, restarts=2, last=FAILED)
        ]
    )

    assert pod_status(one, 100.0)[2] == "2 (50s ago)"


def test_a_pod_that_waits_says_for_what() -> None:
    one = pod(
        phase="Pending",
        containerStatuses=[
            container(
                waiting={"reason": "CrashLoopBackOff", "message": "back-off 10s"},
                last=FAILED,
            )
        ],
    )

    assert why_waiting(one) == [
        "container main: CrashLoopBackOff: back-off 10s (it last ended with exit code 3, Error)"
    ]
    assert why_waiting(pod(phase="Succeeded")) == []


def job(status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "j"}, "spec": spec, "status": status or {}}


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ([], "Running"),
        ([{"type": "Complete", "status": "True"}], "Complete"),
        ([{"type": "Failed", "status": "True"}], "Failed"),
        ([{"type": "Suspended", "status": "True"}], "Suspended"),
        ([{"type": "Suspended", "status": "False"}], "Running"),
        ([{"type": "FailureTarget", "status": "True"}], "FailureTarget"),
    ],
)
def test_a_jobs_status_is_what_kubectl_shows(conditions: list[Any], status: str) -> None:
    assert job_status(job({"conditions": conditions})) == status


def test_a_jobs_completions_and_duration() -> None:
    assert completions(job({"succeeded": 3}, completions=12)) == "3/12"
    assert completions(job({"succeeded": 1}, parallelism=4)) == "1/1 of 4"
    assert completions(job({}, parallelism=1)) == "0/1"

    start = {"startTime": "1970-01-01T00:00:10Z"}
    assert job_duration(job(), 20.0) == ""
    assert job_duration(job(start), 20.0) == "10s"
    ended = start | {"completionTime": "1970-01-01T00:00:12Z"}
    assert job_duration(job(ended), 20.0) == "2s"
