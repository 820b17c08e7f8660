from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from bridge.pods.events import events
from bridge.pods.status import status
from bridge.rpc.v1 import pod_pb2

ACTIVE, ENDED = pod_pb2.POD_STAGE_ACTIVE, pod_pb2.POD_STAGE_ENDED
Facts = pod_pb2.ContainerFacts
STARTED = ("Normal", "Started", "Container started", "spec.containers{c}")


def pod(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {"containers": [{"name": "c", "image": "img"}], **spec},
    }


def running(start: int, identifier: str = "", **more: Any) -> Facts:
    run = pod_pb2.Running(started_at=Timestamp(seconds=start))
    return Facts(name="c", running=run, container_id=identifier, **more)


def exit_of(start: int | None, reason: str = "Completed", identifier: str = "") -> Any:
    made = pod_pb2.Terminated(
        reason=reason,
        message="no such file",
        finished_at=Timestamp(seconds=(start or 0) + 1),
        container_id=identifier,
    )
    if start is not None:
        made.started_at.CopyFrom(Timestamp(seconds=start))
    return made


def exited(start: int, identifier: str = "", **more: Any) -> Facts:
    return Facts(name="c", terminated=exit_of(start), container_id=identifier, **more)


def waiting(reason: str, message: str = "", name: str = "c", **more: Any) -> Facts:
    return Facts(name=name, waiting=pod_pb2.Waiting(reason=reason, message=message), **more)


def facts(*containers: Facts, stage: Any = ACTIVE, **more: Any) -> pod_pb2.PodFacts:
    return pod_pb2.PodFacts(stage=stage, containers=containers, **more)


def test_one_started_for_each_run() -> None:
    first = facts(running(100))
    assert events(pod(), facts(waiting("ContainerCreating")), first) == [STARTED]
    assert events(pod(), first, first) == []
    assert events(pod(), first, facts(exited(100), stage=ENDED)) == []
    assert events(pod(), None, facts(exited(100), stage=ENDED)) == [STARTED]


def test_runs_that_nobody_saw_are_told() -> None:
    after = facts(running(102, "x://2", last_termination=exit_of(101, identifier="x://1")))
    assert events(pod(), facts(running(100, "x://0")), after) == [STARTED, STARTED]
    # Two runs within one second are two by their ids, and one where an id is missing.
    again = facts(running(100, "x://2", last_termination=exit_of(100, identifier="x://1")))
    assert events(pod(), facts(running(100, "x://1")), again) == [STARTED]


def test_a_restarted_agent_tells_nothing_twice() -> None:
    manifest = pod()
    seen = facts(running(102, "x://2", last_termination=exit_of(101)))
    manifest["status"] = status(manifest, seen, 200)
    assert events(manifest, None, seen) == []
    assert events(manifest, None, facts(exited(102, "x://2"), stage=ENDED)) == []
    manifest["status"] = {"phase": "Succeeded"}
    assert events(manifest, None, facts(exited(102), stage=ENDED)) == []


def test_of_what_facts_leave_out_the_record_says_what_was_told() -> None:
    manifest = pod()
    back = waiting("CrashLoopBackOff", "m", last_termination=exit_of(100, identifier="x://1"))
    manifest["status"] = status(manifest, facts(back), 200)
    assert events(manifest, None, facts()) == []
    assert events(manifest, facts(), facts(back)) == []
    assert events(manifest, facts(), facts(running(102, "x://2"))) == [STARTED]


def test_why_a_container_waits() -> None:
    told = {
        "CrashLoopBackOff": (
            "Warning",
            "BackOff",
            "Back-off restarting failed container c in pod p_ns(u)",
        ),
        "CreateContainerConfigError": ("Warning", "Failed", "Error: m"),
        "ErrImagePull": ("Warning", "Failed", 'Failed to pull image "img": m'),
        "ImagePullBackOff": ("Normal", "BackOff", 'Back-off pulling image "img"'),
        "InvalidImageName": ("Warning", "InspectFailed", "m"),
        "ErrImageNeverPull": ("Warning", "ErrImageNeverPull", "m"),
    }
    for reason, event in told.items():
        after = facts(waiting(reason, "m"))
        first, *rest = events(pod(), facts(), after)
        assert first == (*event, "spec.containers{c}")
        also = ("Warning", "Failed", f"Error: {reason}", "spec.containers{c}")
        assert rest == [also] * ("Image" in reason)
        assert events(pod(), after, after) == []


def test_a_run_that_is_older_than_what_was_told_is_no_news() -> None:
    before = facts(Facts(name="c", waiting=pod_pb2.Waiting(reason="CrashLoopBackOff")))
    before.containers[0].last_termination.CopyFrom(exit_of(200))
    after = facts(exited(200))
    after.containers[0].last_termination.CopyFrom(exit_of(100))
    assert events(pod(), before, after) == []


def test_a_volume_that_fails_is_told_once() -> None:
    message = 'MountVolume.SetUp failed for volume "v" : configmap "x" not found'
    manifest = pod(initContainers=[{"name": "i"}])
    after = facts(waiting("PodInitializing", message, "i"), waiting("PodInitializing", message))
    assert events(manifest, None, after) == [("Warning", "FailedMount", message, "")]


def test_a_command_that_cannot_start() -> None:
    after = facts(Facts(name="c", terminated=exit_of(None, "StartError")))
    failed = ("Warning", "Failed", "Error: no such file", "spec.containers{c}")
    assert events(pod(), None, after) == [failed]
    assert events(pod(), after, after) == []


def test_the_whole_pod() -> None:
    before = facts(running(100))
    after = facts(exited(100), stage=ENDED, failed=True, reason="DeadlineExceeded", message="late")
    assert events(pod(), before, after) == [
        ("Normal", "DeadlineExceeded", "late", ""),
        ("Normal", "Killing", "Stopping container c", "spec.containers{c}"),
    ]
    assert events(pod(), after, after) == []
    one = facts(reason="NoCapacity", message="3 before it")
    assert events(pod(), facts(), one) == [("Warning", "NoCapacity", "3 before it", "")]
    assert events(pod(), one, facts(reason="NoCapacity", message="2 before it")) == []


def test_a_deleted_pod_is_killed() -> None:
    manifest = pod()
    manifest["metadata"]["deletionTimestamp"] = "2023-11-14T22:13:20Z"
    assert events(manifest, facts(running(100)), facts(exited(100), stage=ENDED)) == [
        ("Normal", "Killing", "Stopping container c", "spec.containers{c}")
    ]


def notice(at: int, message: str, container: str = "c", nanos: int = 0) -> pod_pb2.Notice:
    return pod_pb2.Notice(
        time=Timestamp(seconds=at, nanos=nanos),
        warning=True,
        reason="Unhealthy",
        message=message,
        container=container,
    )


def test_each_notice_is_told_once() -> None:
    first = facts(running(9), notices=[notice(10, "a")])
    second = facts(running(9), notices=[notice(10, "a"), notice(10, "b", nanos=5)])
    fresh = pod(status={"phase": "Pending"})
    assert ("Warning", "Unhealthy", "a", "spec.containers{c}") in events(fresh, None, first)
    assert events(pod(), first, second) == [("Warning", "Unhealthy", "b", "spec.containers{c}")]
    assert events(pod(), second, second) == []
    # The provider began anew: its first notice is later than all that was told.
    assert events(pod(), second, facts(running(9), notices=[notice(11, "c", "")])) == [
        ("Warning", "Unhealthy", "c", "")
    ]


def test_a_restarted_agent_tells_no_notice_that_may_have_been_told() -> None:
    told = facts(running(9), notices=[notice(10, "a")])
    known = pod()
    known["status"] = status(known, told, 20.0)
    assert events(known, None, told) == []


def test_what_each_try_is_told_of_is_not_told_besides() -> None:
    message = "Failed to create pod sandbox: no such runtime"
    tries = [
        pod_pb2.Notice(
            time=Timestamp(seconds=at),
            warning=True,
            reason="FailedCreatePodSandBox",
            message=message,
        )
        for at in (10, 70)
    ]
    why = {"reason": "FailedCreatePodSandBox", "message": "no such runtime"}
    first, second = facts(notices=tries[:1], **why), facts(notices=tries, **why)
    told = [("Warning", "FailedCreatePodSandBox", message, "")]
    assert events(pod(), None, first) == told
    assert events(pod(), first, second) == told
