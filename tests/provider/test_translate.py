from __future__ import annotations

from typing import Any

import orjson
import pytest

from bridge.errors import Invalid
from bridge.pods import Manifest
from bridge.provider.translate import late_fields, translate
from bridge.requests import pod_request
from bridge.rpc.v1 import pod_pb2, provider_pb2
from bridge.workload import (
    Claim,
    Container,
    Dns,
    EmptyDir,
    EnvVar,
    ExecAction,
    File,
    Files,
    GrpcAction,
    HelperUse,
    HttpAction,
    Identity,
    Mount,
    Port,
    Probe,
    PullCredential,
    Resources,
    RestartPolicy,
    RestartRule,
    Role,
    Security,
    SleepAction,
    TcpAction,
    Workload,
)

MI = 1 << 20


def pod(spec: Manifest | None = None, **container: Any) -> Manifest:
    main = {"name": "main", "image": "busybox:1", **container}
    return {
        "metadata": {"name": "p", "namespace": "d"},
        "spec": {"containers": [main]} | (spec or {}),
    }


def created(manifest: Manifest, *variables: pod_pb2.EnvVar, **given: Any) -> Any:
    request = provider_pb2.CreatePodRequest(
        pod=pod_pb2.PodIdentity(cluster="c", node="n", namespace="d", name="p", uid="u", attempt=2),
        manifest=orjson.dumps(manifest),
        generation=3,
        **given,
    )
    for kind in ("initContainers", "containers"):
        given_ = manifest["spec"].get(kind)
        for one in given_ if isinstance(given_, list) else ():
            if isinstance(one, dict):
                environment = request.environment.add(container=one.get("name"))
                environment.variables.extend(variables)
    return request


def made(manifest: Manifest, *variables: pod_pb2.EnvVar, **given: Any) -> Workload:
    return translate(created(manifest, *variables, **given), manifest, start_time=None)


def wrong(manifest: Manifest, *variables: pod_pb2.EnvVar, **given: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        made(manifest, *variables, **given)
    return {one.field: one.message for one in caught.value.violations}


def test_the_smallest_pod_has_kubernetes_defaults() -> None:
    assert made(pod()) == Workload(
        identity=Identity("c", "n", "d", "p", "u", 2),
        containers=(Container("main", Role.MAIN, "busybox:1"),),
        generation=3,
        hostname="p",
    )


def test_a_containers_own_words() -> None:
    manifest = pod(
        {
            "restartPolicy": "OnFailure",
            "terminationGracePeriodSeconds": 0,
            "activeDeadlineSeconds": 60,
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}],
        },
        image="busybox",
        workingDir="/w",
        ports=[{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP", "name": "dns"}],
        terminationMessagePath="/m",
        terminationMessagePolicy="FallbackToLogsOnError",
        lifecycle={"stopSignal": "SIGUSR1"},
        stdin=True,
        stdinOnce=True,
        tty=True,
        restartPolicy="Never",
        restartPolicyRules=[
            {"action": "Restart", "exitCodes": {"operator": "In", "values": [1, 2]}},
            {"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0]}},
        ],
    )
    manifest["metadata"] |= {"labels": {"l": "1"}, "annotations": {"a": "2"}}
    workload = translate(created(manifest), manifest, start_time=5.0)
    other = RestartRule(True, frozenset({0}), negated=True)
    assert workload.containers == (
        Container(
            "main",
            Role.MAIN,
            "busybox",
            working_dir="/w",
            ports=(Port(80), Port(53, "UDP", "dns")),
            image_pull_policy="Always",
            termination_message_path="/m",
            logs_as_message=True,
            stop_signal="SIGUSR1",
            stdin=True,
            stdin_once=True,
            tty=True,
            restart_policy=RestartPolicy.NEVER,
            restart_rules=(RestartRule(True, frozenset({1, 2})), other),
        ),
    )
    assert workload.restart_policy is RestartPolicy.ON_FAILURE
    assert (workload.grace, workload.deadline, workload.start_time) == (0.0, 60.0, 5.0)
    assert workload.host_aliases == (("1.2.3.4", ("a", "b")),)
    assert (workload.labels, workload.annotations) == ({"l": "1"}, {"a": "2"})


def test_a_pod_may_say_whether_the_helper_is_in_it() -> None:
    manifest = pod()
    manifest["metadata"]["annotations"] = {"podbridge.io/helper": "never"}
    assert made(manifest).helper is HelperUse.NEVER
    manifest["metadata"]["annotations"] = {"podbridge.io/helper": "allways"}
    words = 'found "allways"; allowed: auto, always, never'
    assert wrong(manifest) == {"metadata.annotations[podbridge.io/helper]": words}


def test_containers_in_order_with_their_roles() -> None:
    manifest = pod(
        {
            "initContainers": [
                {"name": "i", "image": "x:1"},
                {"name": "s", "image": "x:1", "restartPolicy": "Always"},
            ],
            "ephemeralContainers": [{"name": "e", "image": "x:1"}],
            "restartPolicy": "Never",
        }
    )
    found = [(one.name, one.role, one.restart_policy.value) for one in made(manifest).containers]
    assert found == [
        ("i", Role.INIT, "Never"),
        ("s", Role.SIDECAR, "Always"),
        ("main", Role.MAIN, "Never"),
        ("e", Role.EPHEMERAL, "Never"),
    ]


def test_environment_and_command_are_expanded() -> None:
    manifest = pod(command=["echo", "$(A)", "$$(A)", "$(X)"], args=["$(S)"])
    workload = made(
        manifest,
        pod_pb2.EnvVar(name="A", literal="1"),
        pod_pb2.EnvVar(name="B", template="$(A)$(A)"),
        pod_pb2.EnvVar(name="S", secret=pod_pb2.SecretValue(value="hidden")),
    )
    (main,) = workload.containers
    assert main.command == ("echo", "1", "$(A)", "$(X)")
    assert main.args == ("hidden",)
    assert main.env == (EnvVar("A", "1"), EnvVar("B", "11"), EnvVar("S", "hidden", secret=True))
    assert "hidden" not in repr(main.env)


def test_an_environment_that_does_not_come_is_no_empty_one() -> None:
    manifest = pod(env=[{"name": "A", "value": "1"}])
    request = created(manifest)
    del request.environment[:]
    with pytest.raises(Invalid, match='no environment of "main"'):
        translate(request, manifest, start_time=None)


def test_late_references() -> None:
    reference = {"fieldRef": {"fieldPath": "status.podIP"}}
    manifest = pod(env=[{"name": "A", "value": "1"}, {"name": "IP", "valueFrom": reference}])
    assert late_fields(manifest) == ["spec.containers[0].env[1].valueFrom.fieldRef"]
    assert late_fields(pod()) == []
    late = pod_pb2.EnvVar(name="IP", late=pod_pb2.LATE_REFERENCE_POD_IP)
    request = created(manifest, late)
    assert translate(request, manifest, start_time=None).containers[0].env == ()
    values = {int(pod_pb2.LATE_REFERENCE_POD_IP): "10.0.0.1"}
    known = translate(request, manifest, start_time=None, late=values)
    assert known.containers[0].env == (EnvVar("IP", "10.0.0.1"),)


def test_security_of_the_container_over_the_pods() -> None:
    manifest = pod(
        {
            "securityContext": {
                "runAsUser": 1,
                "runAsGroup": 2,
                "runAsNonRoot": True,
                "fsGroup": 3,
                "supplementalGroups": [4],
            }
        },
        securityContext={
            "runAsUser": 0,
            "runAsNonRoot": False,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"add": ["A"], "drop": ["ALL"]},
        },
    )
    assert made(manifest).containers[0].security == Security(
        run_as_user=0,
        run_as_group=2,
        run_as_non_root=False,
        supplemental_groups=(4,),
        fs_group=3,
        read_only_root=True,
        no_new_privileges=True,
        add_capabilities=("A",),
        drop_capabilities=("ALL",),
    )


def test_mounts_and_volumes() -> None:
    manifest = pod(
        {
            "volumes": [
                {"name": "tmp"},
                {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "conf", "configMap": {"name": "c"}},
                {"name": "disk", "persistentVolumeClaim": {"claimName": "d"}},
            ]
        },
        volumeMounts=[
            {"name": "tmp", "mountPath": "/tmp", "subPathExpr": "a/$(A)"},
            {"name": "conf", "mountPath": "/c", "subPath": "x", "readOnly": True},
        ],
    )
    content = pod_pb2.VolumeContent(volume="conf", revision="7")
    content.files.add(path="x", content=b"1", secret=True)
    content.files.add(path="d/y", mode=0)
    workload = made(manifest, pod_pb2.EnvVar(name="A", literal="b"), volumes=[content])
    assert workload.containers[0].mounts == (
        Mount("tmp", "/tmp", "a/b"),
        Mount("conf", "/c", "x", read_only=True),
    )
    files = (File("x", b"1", 0o644, secret=True), File("d/y", b"", 0))
    assert workload.volumes == (
        EmptyDir("tmp"),
        EmptyDir("mem", memory=True, size_limit=MI),
        Files("conf", files, "7"),
        Claim("disk", "d"),
    )


def test_what_cannot_be_read_is_named_all_at_once() -> None:
    manifest = pod(
        {"volumes": [{"name": "v"}, {"name": "c", "secret": {"secretName": "c"}}]},
        restartPolicy="Sometimes",
        resources={"requests": {"cpu": "1x"}},
        volumeMounts=[
            {"name": "w", "mountPath": "/w"},
            {"name": "v", "mountPath": "/a", "subPath": "../x"},
            {"name": "v", "mountPath": "/b", "subPathExpr": "$(NO)"},
            {"name": "v", "mountPath": "/c", "subPathExpr": "$(S)"},
            {"name": "v", "mountPath": "/d", "subPathExpr": "$(UP)/x"},
        ],
    )
    content = pod_pb2.VolumeContent(volume="v")
    content.files.add(path="../escape")
    found = wrong(
        manifest,
        pod_pb2.EnvVar(name="S", secret=pod_pb2.SecretValue(value="hidden")),
        pod_pb2.EnvVar(name="UP", literal="/abs"),
        volumes=[content],
    )
    assert sorted(found) == [
        "spec.containers[0].resources.requests[cpu]",
        "spec.containers[0].restartPolicy",
        "spec.containers[0].volumeMounts[0].name",
        "spec.containers[0].volumeMounts[1].subPath",
        "spec.containers[0].volumeMounts[2].subPathExpr",
        "spec.containers[0].volumeMounts[3].subPathExpr",
        "spec.containers[0].volumeMounts[4].subPathExpr",
        "spec.volumes[0]",
        "spec.volumes[1]",
    ]
    assert not any("hidden" in message for message in found.values())


@pytest.mark.parametrize(
    "spec",
    [
        {"containers": 3},
        {"containers": [3]},
        {"containers": [{}]},
        {"restartPolicy": 3},
        {"volumes": [{}]},
        {"hostAliases": [{"hostnames": 3}]},
        {"terminationGracePeriodSeconds": "x"},
        {"hostname": 3},
    ],
)
def test_a_wrong_shape_is_an_error_of_the_input(spec: Manifest) -> None:
    assert wrong({"apiVersion": "v1", "kind": "Pod", **pod(spec)})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ("p", "")),
        ({"hostname": "h"}, ("h", "")),
        ({"hostname": "x" * 70}, ("x" * 63, "")),
        ({"hostname": "x" * 62 + "-yy"}, ("x" * 62, "")),
        ({"hostname": "h", "subdomain": "s"}, ("h", "s.d.svc.cluster.local")),
        ({"setHostnameAsFQDN": True}, ("p", "")),
        (
            {"subdomain": "s", "setHostnameAsFQDN": True},
            ("p.s.d.svc.cluster.local", "s.d.svc.cluster.local"),
        ),
        ({"hostnameOverride": "a.b", "subdomain": "s"}, ("a.b", "")),
    ],
)
def test_hostnames(spec: Manifest, expected: tuple[str, str]) -> None:
    workload = made(pod(spec))
    assert (workload.hostname, workload.subdomain) == expected


def test_a_whole_name_that_is_too_long() -> None:
    spec = {"hostname": "x" * 60, "subdomain": "s", "setHostnameAsFQDN": True}
    assert list(wrong(pod(spec))) == ["spec.setHostnameAsFQDN"]


def test_pull_credentials_come_with_create_only() -> None:
    manifest = pod()
    credential = pod_pb2.ImagePullCredential(registry="r", username="u", password="hidden")
    workload = made(manifest, pull_credentials=[credential])
    assert workload.pull_credentials == (PullCredential("r", "u", "hidden"),)
    update = provider_pb2.UpdatePodRequest(pod=created(manifest).pod, generation=9)
    updated = translate(update, manifest, start_time=None)
    assert (updated.generation, updated.pull_credentials) == (9, ())


def sized(name: str, cpu: str, **more: Any) -> Manifest:
    return {"name": name, "image": "x:1", "resources": {"requests": {"cpu": cpu}}, **more}


@pytest.mark.parametrize(
    ("inits", "mains", "expected"),
    [
        ([], [sized("a", "1"), sized("b", "500m")], 1500),
        ([sized("i", "2")], [sized("a", "1")], 2000),
        ([sized("s", "1", restartPolicy="Always"), sized("i", "2")], [sized("a", "1")], 3000),
        ([sized("i", "2"), sized("s", "1", restartPolicy="Always")], [sized("a", "1")], 2000),
        ([sized("s", "1", restartPolicy="Always")], [sized("a", "1")], 2000),
    ],
)
def test_what_the_scheduler_would_count(
    inits: list[Manifest], mains: list[Manifest], expected: int
) -> None:
    workload = made(pod({"initContainers": inits, "containers": mains}))
    assert pod_request(workload).requests == {"cpu": expected}


def test_limits_stand_in_for_requests() -> None:
    limits = {"cpu": "1", "memory": "1Mi", "example.com/gpu": 2}
    manifest = pod(resources={"limits": limits, "requests": {"cpu": "250m"}})
    (main,) = made(manifest).containers
    assert main.resources == Resources(
        requests={"cpu": 250, "memory": MI, "example.com/gpu": 2},
        limits={"cpu": 1000, "memory": MI, "example.com/gpu": 2},
    )


def test_probes_and_their_defaults() -> None:
    ports = [{"name": "web", "containerPort": 8080}]
    env = [
        {"name": "PLAIN", "value": "x$(PLAIN)"},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]
    words = ["check", "$(PLAIN)", "[$(KEY)]", "$(NONE)", "$$(PLAIN)"]
    main = made(
        pod(
            ports=ports,
            env=env,
            startupProbe={"exec": {"command": words}},
            livenessProbe={"grpc": {"port": 9000, "service": "s"}, "failureThreshold": 1},
            readinessProbe={
                "httpGet": {
                    "port": "web",
                    "path": "/ready?deep=1",
                    "scheme": "HTTPS",
                    "httpHeaders": [{"name": "Host", "value": "h"}, {"name": "X"}],
                },
                "initialDelaySeconds": 5,
                "periodSeconds": 20,
                "timeoutSeconds": 2,
                "successThreshold": 4,
                "terminationGracePeriodSeconds": 0,
            },
        )
    ).containers[0]
    # Only plain values are expanded, as they are written; a Secret's is nowhere.
    command = ("check", "x$(PLAIN)", "[]", "$(NONE)", "$(PLAIN)")
    assert main.startup_probe == Probe(ExecAction(command))
    assert main.liveness_probe == Probe(GrpcAction(9000, "s"), failure_threshold=1)
    headers = (("Host", "h"), ("X", ""))
    assert main.readiness_probe == Probe(
        HttpAction(8080, "/ready?deep=1", "HTTPS", headers),
        initial_delay=5,
        period=20,
        timeout=2,
        success_threshold=4,
        grace=0,
    )


@pytest.mark.parametrize(
    ("port", "number"),
    [(80, 80), ("web", 8080), ("other", 0), ("443", 443), ("70000", 0), (0, 0), (None, 0)],
)
def test_ports_of_probes(port: Any, number: int) -> None:
    manifest = pod(
        ports=[{"name": "web", "containerPort": 8080}], livenessProbe={"tcpSocket": {"port": port}}
    )
    assert made(manifest).containers[0].liveness_probe == Probe(TcpAction(number))


def test_hooks_resize_policy_and_propagation() -> None:
    main = made(
        pod(
            {"volumes": [{"name": "v", "emptyDir": {}}]},
            env=[{"name": "A", "value": "a"}],
            lifecycle={
                "postStart": {"exec": {"command": ["say", "$(A)"]}},
                "preStop": {"sleep": {"seconds": 3}},
                "stopSignal": "SIGUSR1",
            },
            resizePolicy=[
                {"resourceName": "cpu", "restartPolicy": "NotRequired"},
                {"resourceName": "memory", "restartPolicy": "RestartContainer"},
            ],
            volumeMounts=[{"name": "v", "mountPath": "/v", "mountPropagation": "HostToContainer"}],
        )
    ).containers[0]
    # The kubelet expands no hook's command.
    assert main.post_start == ExecAction(("say", "$(A)"))
    assert main.pre_stop == SleepAction(3)
    assert main.stop_signal == "SIGUSR1"
    assert main.resize_restarts == {"memory"}
    assert main.mounts == (Mount("v", "/v", propagation="HostToContainer"),)
    assert "say" not in repr(main)


def test_the_pods_own_namespaces_names_and_kernel_settings() -> None:
    workload = made(
        pod(
            {
                "hostNetwork": True,
                "hostPID": True,
                "hostIPC": True,
                "shareProcessNamespace": True,
                "dnsPolicy": "None",
                "dnsConfig": {
                    "nameservers": ["10.0.0.2"],
                    "searches": ["a.b"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
                },
                "securityContext": {"sysctls": [{"name": "net.x", "value": "1"}]},
            }
        )
    )
    assert workload.dns == Dns("None", ("10.0.0.2",), ("a.b",), (("ndots", "2"), ("edns0", None)))
    assert workload.sysctls == (("net.x", "1"),)
    assert workload.host_network
    assert workload.host_pid
    assert workload.host_ipc
    assert workload.share_processes
    assert made(pod({"dnsPolicy": "Default"})).dns == Dns("Default")


def test_seccomp_profiles_and_privileges() -> None:
    def security(own: Manifest | None, of_pod: Manifest | None = None) -> Security:
        given = {"securityContext": own} if own is not None else {}
        return made(pod({"securityContext": of_pod or {}}, **given)).containers[0].security

    runtime = {"seccompProfile": {"type": "RuntimeDefault"}}
    local = {"seccompProfile": {"type": "Localhost", "localhostProfile": "profiles/a.json"}}
    assert security(None, runtime).seccomp == "RuntimeDefault"
    assert security({}, local).seccomp == "profiles/a.json"
    assert security(local, runtime).seccomp == "profiles/a.json"
    assert security(runtime, local).seccomp == "RuntimeDefault"
    assert security({}).seccomp == ""
    assert security({"privileged": True, "procMount": "Unmasked"}) == Security(
        privileged=True, unmasked_proc=True
    )
