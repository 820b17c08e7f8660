from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from bridge.pods.status import qos_class, rejected, same, status
from bridge.rpc.v1 import pod_pb2

NOW = 1_700_000_000.0
STAMP = "2023-11-14T22:13:20Z"
ACTIVE, ENDED = pod_pb2.POD_STAGE_ACTIVE, pod_pb2.POD_STAGE_ENDED

Facts = pod_pb2.ContainerFacts


def pod(*names: str, inits: tuple[dict[str, Any], ...] = (), **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 1},
        "spec": {
            "containers": [{"name": name, "image": f"img/{name}"} for name in names or ("c",)],
            "initContainers": list(inits),
            "restartPolicy": "Never",
            **spec,
        },
    }


def at(seconds: float) -> Timestamp:
    return Timestamp(seconds=int(seconds))


def running(name: str = "c", **more: Any) -> Facts:
    run = pod_pb2.Running(started_at=at(NOW - 10))
    return Facts(name=name, running=run, container_id=f"x://{name}", **more)


def terminated(code: int, reason: str = "", **more: Any) -> pod_pb2.Terminated:
    return pod_pb2.Terminated(
        exit_code=code,
        reason=reason or ("Error" if code else "Completed"),
        started_at=at(NOW - 9),
        finished_at=at(NOW - 1),
        **more,
    )


def exited(name: str = "c", code: int = 0, reason: str = "", **more: Any) -> Facts:
    return Facts(name=name, terminated=terminated(code, reason), container_id=f"x://{name}", **more)


def waiting(name: str = "c", reason: str = "ContainerCreating", **more: Any) -> Facts:
    return Facts(name=name, waiting=pod_pb2.Waiting(reason=reason), **more)


def facts(*containers: Facts, stage: Any = ACTIVE, **more: Any) -> pod_pb2.PodFacts:
    return pod_pb2.PodFacts(stage=stage, containers=containers, generation=1, **more)


def condition(made: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(one for one in made["conditions"] if one["type"] == kind)


def test_a_new_pod() -> None:
    made = status(pod(), facts(stage=pod_pb2.POD_STAGE_WAITING, reason="Throttled"), NOW)
    assert made["phase"] == "Pending"
    assert made["reason"] == "Throttled"
    assert made["startTime"] == STAMP
    assert made["observedGeneration"] == 1
    assert made["qosClass"] == "BestEffort"
    assert made["containerStatuses"] == [
        {
            "name": "c",
            "state": {"waiting": {"reason": "ContainerCreating"}},
            "lastState": {},
            "ready": False,
            "started": False,
            "restartCount": 0,
            "image": "img/c",
            "imageID": "",
        }
    ]
    assert [
        (one["type"], one["status"], one.get("reason"), one.get("message"))
        for one in made["conditions"]
    ] == [
        ("PodReadyToStartContainers", "False", None, None),
        ("Initialized", "True", None, None),
        ("Ready", "False", "ContainersNotReady", "containers with unready status: [c]"),
        ("ContainersReady", "False", "ContainersNotReady", "containers with unready status: [c]"),
        ("PodScheduled", "True", None, None),
    ]
    assert all(one["observedGeneration"] == 1 for one in made["conditions"])


def test_running_and_ready() -> None:
    manifest = pod(
        containers=[{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]
    )
    made = status(manifest, facts(running(image_id="i@sha256:1"), pod_ips=["10.0.0.1", "::1"]), NOW)
    assert made["phase"] == "Running"
    assert made["podIP"] == "10.0.0.1"
    assert made["podIPs"] == [{"ip": "10.0.0.1"}, {"ip": "::1"}]
    assert made["containerStatuses"] == [
        {
            "name": "c",
            "state": {"running": {"startedAt": "2023-11-14T22:13:10Z"}},
            "lastState": {},
            "ready": True,
            "started": True,
            "restartCount": 0,
            "image": "i",
            "imageID": "i@sha256:1",
            "containerID": "x://c",
            "resources": {"requests": {"cpu": "1"}},
            "allocatedResources": {"cpu": "1"},
        }
    ]
    assert condition(made, "Ready")["status"] == "True"
    assert condition(made, "PodReadyToStartContainers")["status"] == "True"
    # The next pass with the same facts changes nothing, later though it is.
    manifest["status"] = made
    again = status(manifest, facts(running(image_id="i@sha256:1")), NOW + 60)
    assert again == made


def test_a_container_that_is_left_out_stays_as_it_was_recorded() -> None:
    for told in (
        running(restart_count=3, started=True, ready=False),
        waiting(reason="CrashLoopBackOff", restart_count=3, last_termination=terminated(5)),
        exited(code=5, restart_count=3),
    ):
        manifest = pod()
        manifest["status"] = made = status(manifest, facts(told, pod_ips=["10.0.0.1"]), NOW)
        assert status(manifest, facts(pod_ips=["10.0.0.1"]), NOW + 60) == made


def test_the_nodes_address_is_told_until_the_backend_has_said_where_the_pod_is() -> None:
    manifest = pod()
    nodes = ["10.0.0.7", "fd00::7"]
    manifest["status"] = made = status(manifest, facts(waiting()), NOW, None, nodes)
    assert made["hostIP"] == "10.0.0.7"
    assert made["hostIPs"] == [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]
    there = facts(running(), host_ips=["192.0.2.1"])
    manifest["status"] = made = status(manifest, there, NOW, None, nodes)
    assert (made["hostIP"], made["hostIPs"]) == ("192.0.2.1", [{"ip": "192.0.2.1"}])
    # Facts that say nothing of it take nothing back.
    made = status(manifest, facts(exited(), stage=ENDED), NOW, None, nodes)
    assert made["hostIP"] == "192.0.2.1"
    assert "hostIP" not in status(pod(), facts(waiting()), NOW)


@pytest.mark.parametrize(
    ("codes", "phase", "reason"),
    [((0, 0), "Succeeded", "PodCompleted"), ((0, 3), "Failed", "PodFailed")],
)
def test_a_terminal_phase_waits_for_the_end(
    codes: tuple[int, int], phase: str, reason: str
) -> None:
    manifest = pod("a", "b")
    manifest["status"] = status(manifest, facts(running("a"), running("b")), NOW)
    over = [exited("a", codes[0]), exited("b", codes[1])]
    manifest["status"] = status(manifest, facts(*over), NOW)
    assert manifest["status"]["phase"] == "Running"
    made = status(manifest, facts(*over, stage=ENDED), NOW)
    assert made["phase"] == phase
    assert condition(made, "Ready")["reason"] == reason
    assert condition(made, "ContainersReady")["reason"] == reason
    assert condition(made, "Initialized")["status"] == "True"
    assert condition(made, "PodReadyToStartContainers")["status"] == "False"
    ended = [one["state"]["terminated"] for one in made["containerStatuses"]]
    assert [one["exitCode"] for one in ended] == list(codes)
    assert ended[0]["finishedAt"] == "2023-11-14T22:13:19Z"


def test_succeeded_never_goes_back() -> None:
    manifest = pod()
    manifest["status"] = done = status(manifest, facts(exited(), stage=ENDED), NOW)
    for later in (
        facts(running()),
        facts(waiting(), stage=pod_pb2.POD_STAGE_WAITING),
        facts(exited(code=137, reason="ContainerStatusUnknown"), stage=ENDED, failed=True),
        facts(stage=pod_pb2.POD_STAGE_GONE),
    ):
        made = status(manifest, later, NOW + 5)
        assert made["phase"] == "Succeeded"
        assert made["containerStatuses"][0]["state"] == done["containerStatuses"][0]["state"]


def test_an_absorbed_pod_still_learns_an_exit_code() -> None:
    manifest = pod()
    manifest["status"] = status(manifest, facts(running(), stage=ENDED), NOW)
    assert manifest["status"]["phase"] == "Failed"
    unknown = manifest["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (unknown["exitCode"], unknown["reason"]) == (137, "ContainerStatusUnknown")
    made = status(manifest, facts(exited(code=3), stage=ENDED), NOW)
    assert made["phase"] == "Failed"
    assert made["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3


def test_a_recorded_exit_keeps_its_code_once_the_pod_is_over() -> None:
    manifest = pod()
    manifest["status"] = done = status(manifest, facts(exited(), stage=ENDED), NOW)
    made = status(manifest, facts(exited(code=3, restart_count=1), stage=ENDED), NOW + 5)
    assert made["containerStatuses"][0]["state"] == done["containerStatuses"][0]["state"]


@pytest.mark.parametrize(
    ("seconds", "stamp"), [(2**60, "9999-12-31T23:59:59Z"), (-5, "1970-01-01T00:00:00Z")]
)
def test_times_that_are_none_are_brought_into_range(seconds: int, stamp: str) -> None:
    run = pod_pb2.Running(started_at=at(seconds))
    made = status(pod(), facts(Facts(name="c", running=run)), NOW)
    assert made["containerStatuses"][0]["state"] == {"running": {"startedAt": stamp}}


def test_init_containers_gate() -> None:
    manifest = pod(inits=({"name": "i"}, {"name": "s", "restartPolicy": "Always"}))
    made = status(manifest, facts(exited("i"), running("s", started=False)), NOW)
    assert made["phase"] == "Pending"
    assert [one["name"] for one in made["initContainerStatuses"]] == ["i", "s"]
    assert [one["ready"] for one in made["initContainerStatuses"]] == [True, False]
    assert made["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    initialized = condition(made, "Initialized")
    assert initialized["reason"] == "ContainersNotInitialized"
    assert initialized["message"] == "containers with incomplete status: [s]"
    assert condition(made, "Ready")["message"] == "containers with unready status: [s c]"
    manifest["status"] = status(manifest, facts(exited("i"), running("s"), running()), NOW)
    assert manifest["status"]["phase"] == "Running"
    # A sidecar that restarts later takes nothing of that back.
    made = status(manifest, facts(exited("i"), waiting("s", "CrashLoopBackOff"), running()), NOW)
    assert condition(made, "Initialized")["status"] == "True"


def test_a_failed_init_container_leaves_the_others_waiting() -> None:
    manifest = pod(inits=({"name": "i"}, {"name": "j"}))
    made = status(manifest, facts(exited("i", 1), stage=ENDED), NOW)
    assert made["phase"] == "Failed"
    assert [list(one["state"]) for one in made["initContainerStatuses"]] == [
        ["terminated"],
        ["waiting"],
    ]
    assert list(made["containerStatuses"][0]["state"]) == ["waiting"]


def test_a_container_that_is_made_after_others_waits_in_their_words() -> None:
    init = {"name": "i"}
    manifest = pod(inits=(init,))
    made = status(manifest, facts(exited("i"), waiting("c")), NOW)
    assert made["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    made = status(pod(), facts(waiting("c")), NOW)
    assert made["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
def test_what_cannot_start_and_is_tried_again_waits(policy: str) -> None:
    failed = exited("c", 128, "StartError")
    failed.terminated.message = "no such file"
    made = status(pod(restartPolicy=policy), facts(failed), NOW)
    (one,) = made["containerStatuses"]
    if policy == "Never":
        assert one["state"]["terminated"]["exitCode"] == 128
        return
    why = {"reason": "RunContainerError", "message": "no such file"}
    assert one["state"] == {"waiting": why}
    assert one["lastState"]["terminated"]["exitCode"] == 128
    # Nothing tries it again once the pod is over.
    manifest = {**pod(restartPolicy=policy), "status": made}
    (one,) = status(manifest, facts(failed, stage=ENDED), NOW)["containerStatuses"]
    assert (one["state"]["terminated"]["reason"], one["lastState"]) == ("StartError", {})


def test_why_a_pod_failed_is_said_once_it_has() -> None:
    late = {"failed": True, "reason": "DeadlineExceeded", "message": "too long"}
    made = status(pod(), facts(running(), **late), NOW)
    assert (made["phase"], "reason" in made, "message" in made) == ("Running", False, False)
    made = status(pod(), facts(exited(code=143), stage=ENDED, **late), NOW)
    assert (made["phase"], made["reason"]) == ("Failed", "DeadlineExceeded")


def test_that_it_was_to_end_is_the_newest_that_was_observed() -> None:
    manifest = pod()
    manifest["metadata"] |= {"generation": 2, "deletionTimestamp": STAMP}
    assert status(manifest, facts(running()), NOW)["observedGeneration"] == 2
    assert status(pod(), facts(running()), NOW)["observedGeneration"] == 1


def test_a_new_image_is_not_what_runs_before_its_container_does() -> None:
    manifest = pod()
    manifest["status"] = status(manifest, facts(running()), NOW)
    manifest["spec"]["containers"][0]["image"] = "img/new"
    (one,) = status(manifest, facts(running()), NOW)["containerStatuses"]
    assert one["image"] == "img/c"
    again = running()
    again.container_id = "x://again"
    (one,) = status(manifest, facts(again), NOW)["containerStatuses"]
    assert one["image"] == "img/new"


def test_sidecars_do_not_decide() -> None:
    manifest = pod(inits=({"name": "s", "restartPolicy": "Always"},))
    made = status(manifest, facts(exited("s", 137), exited(), stage=ENDED), NOW)
    assert made["phase"] == "Succeeded"


def test_a_pod_deleted_before_it_started_fails() -> None:
    made = status(pod(), facts(stage=pod_pb2.POD_STAGE_GONE), NOW)
    assert made["phase"] == "Failed"
    ended = made["containerStatuses"][0]["state"]["terminated"]
    assert ended["reason"] == "ContainerStatusUnknown"
    with_init = status(pod(inits=({"name": "i"},)), facts(stage=ENDED), NOW)
    assert with_init["phase"] == "Failed"
    assert "waiting" in with_init["containerStatuses"][0]["state"]
    assert "terminated" in with_init["initContainerStatuses"][0]["state"]


def test_crash_loop() -> None:
    manifest = pod(restartPolicy="Always")
    crashing = waiting(reason="CrashLoopBackOff", restart_count=2, container_id="x://c")
    crashing.last_termination.CopyFrom(terminated(1))
    made = status(manifest, facts(crashing), NOW)
    assert made["phase"] == "Running"
    one = made["containerStatuses"][0]
    assert one["restartCount"] == 2
    assert one["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert one["lastState"]["terminated"]["exitCode"] == 1
    assert one["containerID"] == "x://c"
    # Deleted meanwhile: how it last ended is how it ended.
    made = status(manifest, facts(crashing, stage=ENDED), NOW)
    assert made["phase"] == "Failed"
    assert made["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 1


def test_an_exit_survives_a_provider_that_knows_less() -> None:
    manifest = pod(restartPolicy="Always")
    manifest["status"] = status(manifest, facts(exited(code=5, restart_count=2)), NOW)
    assert manifest["status"]["phase"] in ("Pending", "Running")
    nothing = status(manifest, facts(Facts(name="c")), NOW)
    assert nothing["containerStatuses"] == manifest["status"]["containerStatuses"]
    made = status(manifest, facts(running(restart_count=3)), NOW)
    one = made["containerStatuses"][0]
    assert one["lastState"]["terminated"]["exitCode"] == 5
    assert one["restartCount"] == 3


def test_the_whole_pod_failed() -> None:
    made = status(
        pod(),
        facts(exited(), stage=ENDED, failed=True, reason="DeadlineExceeded", message="late"),
        NOW,
    )
    assert (made["phase"], made["reason"], made["message"]) == (
        "Failed",
        "DeadlineExceeded",
        "late",
    )


def test_disruption() -> None:
    manifest = pod()
    lost = facts(
        exited(code=137, reason="ContainerStatusUnknown"), stage=ENDED, disrupted=True, message="w"
    )
    made = status(manifest, lost, NOW)
    assert made["phase"] == "Failed"
    target = condition(made, "DisruptionTarget")
    assert (target["status"], target["reason"]) == ("True", "TerminationByKubelet")
    evicted = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    manifest["status"] = {"conditions": [evicted]}
    assert condition(status(manifest, lost, NOW), "DisruptionTarget") == evicted


def test_what_is_not_ours_is_kept() -> None:
    manifest = pod(readinessGates=[{"conditionType": "x/y"}])
    foreign = {"type": "z/w", "status": "True", "lastTransitionTime": "t"}
    manifest["status"] = {
        "conditions": [
            foreign,
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "o"},
        ],
        "nominatedNodeName": "n",
        "startTime": "s",
    }
    before = deepcopy(manifest)
    made = status(manifest, facts(running()), NOW)
    assert manifest == before
    assert made["conditions"][0] == foreign
    assert made["nominatedNodeName"] == "n"
    assert made["startTime"] == "s"
    assert condition(made, "PodScheduled")["lastTransitionTime"] == "o"
    ready = condition(made, "Ready")
    assert ready["reason"] == "ReadinessGatesNotReady"
    assert '"x/y" does not exist' in ready["message"]
    assert condition(made, "ContainersReady")["status"] == "True"


def test_restart_rules_decide_a_failed_init() -> None:
    rules = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]
    init = {"name": "i", "restartPolicy": "Never", "restartPolicyRules": rules}
    assert status(pod(inits=(init,)), facts(exited("i", 42)), NOW)["phase"] == "Pending"


def test_long_messages_are_cut() -> None:
    one = Facts(name="c", terminated=terminated(1, message="é" * 9000))
    made = status(pod("c", "d", "e"), facts(one), NOW)
    assert len(made["containerStatuses"][0]["state"]["terminated"]["message"].encode()) <= 4096


def test_ephemeral_containers_have_no_probes() -> None:
    manifest = pod(ephemeralContainers=[{"name": "e", "image": "i"}])
    made = status(manifest, facts(running(), running("e")), NOW)
    assert "started" not in made["ephemeralContainerStatuses"][0]
    assert made["phase"] == "Running"


def test_rejected() -> None:
    made = rejected(pod(), "OutOfcpu", "no room", NOW)
    assert made == {
        "phase": "Failed",
        "reason": "OutOfcpu",
        "message": "Pod was rejected: no room",
        "startTime": STAMP,
        "qosClass": "BestEffort",
        "observedGeneration": 1,
    }
    done = {**pod(), "status": {"phase": "Succeeded"}}
    assert rejected(done, "OutOfcpu", "no room", NOW) == {"phase": "Succeeded"}


def test_same_sees_only_what_matters() -> None:
    one = status(pod(), facts(running()), NOW)
    other = deepcopy(one)
    for entry in other["conditions"]:
        entry["lastProbeTime"] = None
    other["message"] = ""
    other["conditions"].reverse()
    assert same(other, one)
    other["conditions"][0]["status"] = "Unknown"
    assert not same(other, one)
    assert not same(one, {**one, "phase": "Failed"})


@pytest.mark.parametrize(
    ("requests", "limits", "expected"),
    [
        ({}, {}, "BestEffort"),
        ({"cpu": "0"}, {}, "BestEffort"),
        ({"cpu": "1"}, {}, "Burstable"),
        ({"cpu": "1", "memory": "1Gi"}, {"cpu": "1000m", "memory": "1024Mi"}, "Guaranteed"),
        ({"cpu": "1"}, {"cpu": "1"}, "Burstable"),
        ({"nvidia.com/gpu": "1"}, {"nvidia.com/gpu": "1"}, "BestEffort"),
    ],
)
def test_qos(requests: dict[str, str], limits: dict[str, str], expected: str) -> None:
    manifest = pod()
    manifest["spec"]["containers"][0]["resources"] = {"requests": requests, "limits": limits}
    assert qos_class(manifest) == expected
