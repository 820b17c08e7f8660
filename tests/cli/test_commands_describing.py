from __future__ import annotations

from commands_kit import container, fake_run, pod

from bridge.cli.describing import describe_job, describe_pod, describe_run
from bridge.cli.select import Found, RunState
from bridge.local.store import Change

SPEC = {
    "containers": [
        {
            "name": "main",
            "image": "busybox",
            "command": ["sh", "-c", "one\ntwo"],
            "env": [
                {"name": "PLAIN", "value": "yes"},
                {"name": "HIDDEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ],
            "envFrom": [{"secretRef": {"name": "all"}, "prefix": "P_"}],
            "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": True}],
        }
    ],
    "volumes": [{"name": "data", "configMap": {"name": "c"}}],
}


def waiting_run() -> tuple[RunState, dict[str, object]]:
    state = RunState(fake_run(), 7)
    one = pod(
        "web",
        spec=SPEC,
        phase="Pending",
        containerStatuses=[
            container(
                waiting={"reason": "CrashLoopBackOff", "message": "back-off 10s"},
                restarts=1,
                last={"exitCode": 3, "reason": "Error", "message": "bad\x1b[1m"},
            )
        ],
    )
    state.apply(Change("ADDED", "Pod", one))
    event = {
        "metadata": {"name": "web.0"},
        "involvedObject": {"kind": "Pod", "name": "web", "uid": "uid-web"},
        "type": "Warning",
        "reason": "BackOff",
        "message": "again",
        "count": 3,
        "firstTimestamp": "1970-01-01T00:00:00Z",
        "lastTimestamp": "1970-01-01T00:00:50Z",
    }
    state.apply(Change("ADDED", "Event", event))
    return state, one


def test_a_pod_is_told_with_its_states_and_never_with_secret_values() -> None:
    state, one = waiting_run()
    text = describe_pod(Found(state, one), 60.0)

    assert "HIDDEN: <set to the key 'k' in secret 's'>" in text
    assert "<all of secret 'all' with prefix 'P_'>" in text
    assert "PLAIN: yes" in text
    assert "Exit Code:" in text
    assert "Last State:" in text
    assert "bad^[[1m" in text
    assert "/data from data (ro)" in text
    assert "data: configMap c" in text
    assert "Waiting:\n  web: container main: CrashLoopBackOff: back-off 10s" in text
    assert "Warning   BackOff   10s (x3 over 60s)   pod/web   again" in text


def test_a_run_groups_pods_that_wait_for_the_same_reason() -> None:
    state, _ = waiting_run()
    for index in range(4):
        other = pod(f"w-{index}", phase="Pending", reason="Queued", message="pods: 0 left")
        state.apply(Change("ADDED", "Pod", other))
    text = describe_run(state, 60.0)

    assert "w-0, w-1, w-2 and 1 more: Queued: pods: 0 left" in text
    assert "Attended By:  process 7" in text


def test_a_job_is_told_with_its_pods() -> None:
    state, one = waiting_run()
    job = {
        "metadata": {"name": "j", "namespace": "default", "uid": "uid-j"},
        "spec": {"completions": 3, "parallelism": 2, "template": {"spec": SPEC}},
        "status": {"active": 1, "failed": 2, "conditions": [{"type": "Failed", "status": "True"}]},
    }
    one["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "j", "uid": "uid-j"}]
    state.apply(Change("ADDED", "Job", job))
    text = describe_job(Found(state, job), 60.0)

    assert "Completions: 3" in " ".join(text.split())
    assert "1 Active (0 Ready) / 0 Succeeded / 2 Failed" in text
    assert "web" in text
    assert "HIDDEN: <set to the key 'k' in secret 's'>" in text
