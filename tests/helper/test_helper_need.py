"""Which pods need the helper, and what the annotation makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.helper.need import Gift, lost, needs, wraps
from bridge.workload import (
    LATE,
    Container,
    EmptyDir,
    EnvVar,
    ExecAction,
    File,
    Files,
    HelperUse,
    Identity,
    Mount,
    Probe,
    RestartPolicy,
    Role,
    Security,
    Workload,
)

WHO = Identity("cluster", "node", "default", "pod", "uid")
PLAIN = Container("main", Role.MAIN, "image", ("true",), restart_policy=RestartPolicy.NEVER)
PROBE = Probe(ExecAction(("true",)))


def pod(*containers: Container, **more: object) -> Workload:
    return replace(Workload(WHO, containers or (PLAIN,)), **more)


def test_a_pod_of_one_container_that_runs_once_needs_nothing() -> None:
    assert needs(pod()) == []


@pytest.mark.parametrize(
    ("path", "gift", "made"),
    [
        ("spec.activeDeadlineSeconds", Gift.DEADLINE, pod(deadline=5.0)),
        ("spec.volumes[0]", Gift.FILES, pod(volumes=(Files("one", (File("a", b""),)),))),
        (
            "spec.initContainers[0]",
            Gift.ORDER,
            pod(replace(PLAIN, name="init", role=Role.INIT), PLAIN),
        ),
        (
            "spec.restartPolicy",
            Gift.RESTARTS,
            pod(replace(PLAIN, restart_policy=RestartPolicy.ON_FAILURE)),
        ),
        (
            "spec.containers[0].livenessProbe",
            Gift.PROBES,
            pod(replace(PLAIN, liveness_probe=PROBE)),
        ),
        (
            "spec.containers[0].lifecycle.preStop",
            Gift.HOOKS,
            pod(replace(PLAIN, pre_stop=ExecAction(("true",)))),
        ),
        (
            "spec.containers[0].terminationMessagePolicy",
            Gift.MESSAGES,
            pod(replace(PLAIN, logs_as_message=True)),
        ),
        (
            "spec.containers[0].terminationMessagePath",
            Gift.MESSAGES,
            pod(replace(PLAIN, termination_message_path="/tmp/message")),
        ),
        (
            "spec.containers[0].env[IP]",
            Gift.ADDRESSES,
            pod(replace(PLAIN, env=(EnvVar("IP", f"at {LATE['podIP']}"),))),
        ),
        (
            "spec.containers[0].args",
            Gift.ADDRESSES,
            pod(replace(PLAIN, args=(f"--at={LATE['hostIP']}",))),
        ),
        (
            "spec.containers[0].volumeMounts[0]",
            Gift.FOLDERS,
            pod(
                replace(PLAIN, mounts=(Mount("v", "/v"),), security=Security(run_as_user=1000)),
                volumes=(EmptyDir("v"),),
            ),
        ),
        ("spec.containers[0].stdin", Gift.STREAMS, pod(replace(PLAIN, stdin=True))),
        ("spec.containers[0].tty", Gift.STREAMS, pod(replace(PLAIN, tty=True))),
    ],
)
def test_what_a_pod_needs_is_named_by_its_field(path: str, gift: Gift, made: Workload) -> None:
    assert needs(made) == [(path, gift)]
    assert needs(made, frozenset({gift})) == []
    (wrong,) = lost(made)
    assert wrong.field == path
    assert str(gift) in wrong.message
    assert "podbridge.io/helper" in wrong.message


def test_a_sidecar_is_needed_for_itself_and_for_its_restarts() -> None:
    sidecar = replace(PLAIN, name="s", role=Role.SIDECAR, restart_policy=RestartPolicy.ALWAYS)
    assert needs(pod(sidecar, PLAIN)) == [
        ("spec.initContainers[0]", Gift.SIDECARS),
        ("spec.initContainers[0].restartPolicy", Gift.RESTARTS),
    ]


def test_several_containers_have_ends_of_their_own() -> None:
    two = pod(PLAIN, replace(PLAIN, name="second"))
    assert [path for path, _ in needs(two)] == ["spec.containers[0]", "spec.containers[1]"]


@pytest.mark.parametrize(
    ("said", "configured", "plain", "needy"),
    [
        (HelperUse.AUTO, HelperUse.ALWAYS, True, True),
        (HelperUse.AUTO, HelperUse.AUTO, False, True),
        (HelperUse.AUTO, HelperUse.NEVER, False, False),
        (HelperUse.ALWAYS, HelperUse.AUTO, True, True),
        (HelperUse.NEVER, HelperUse.ALWAYS, False, False),
        (HelperUse.NEVER, HelperUse.AUTO, False, False),
    ],
)
def test_the_pod_goes_before_the_configuration(
    said: HelperUse, configured: HelperUse, plain: bool, needy: bool
) -> None:
    assert wraps(pod(helper=said), configured) is plain
    assert wraps(pod(helper=said, deadline=1.0), configured) is needy
