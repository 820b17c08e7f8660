"""Pods at a real API server, on a node that runs them: what the kubelet's words promise."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import node_kit
import pytest
from control_plane_kit import ControlPlane, Namespace, Object
from node_kit import Place, condition, container, on_term, until

pytestmark = pytest.mark.slow

WAIT = "until test -e {0}; do sleep 0.05; done"
SIZE = {"cpu": "4", "memory": "4Gi"}


@pytest.fixture(scope="module")
def shared(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """A node of four CPUs on `process`."""
    size = [{"name": "process", "type": "process", **SIZE}]
    with node_kit.kept(control_plane, tmp_path_factory.mktemp("pods"), backends=size) as made:
        yield made


def status_of(pod: Object, name: str = "main") -> Any:
    lists = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    found = [one for key in lists for one in pod.get("status", {}).get(key) or ()]
    return next((one for one in found if one["name"] == name), {})


def state_of(pod: Object, name: str = "main") -> Any:
    return status_of(pod, name).get("state") or {}


def conditions_of(pod: Object) -> dict[str, tuple[str, str]]:
    return {
        one["type"]: (one["status"], one.get("reason", "")) for one in pod["status"]["conditions"]
    }


def events(place: Place, namespace: Namespace, name: str) -> list[tuple[str, str, str]]:
    found = place.events("Pod", name, namespace=namespace.name)
    return [(one["type"], one["reason"], one["message"]) for one in found]


def told(place: Place, namespace: Namespace, name: str, reason: str) -> str:
    """The message of the pod's one event of this reason, once there is one."""
    found: list[str] = until(
        lambda: [one[2] for one in events(place, namespace, name) if one[1] == reason],
        f"{reason} of {name}",
    )
    assert len(found) == 1, found
    return found[0]


def configmap(namespace: Namespace, name: str, **data: str) -> None:
    namespace.api.post(namespace.path("configmaps"), {"metadata": {"name": name}, "data": data})


def output(namespace: Namespace, name: str, *words: str) -> str:
    return namespace.kubectl("logs", name, *words).out


# -- phases, conditions, statuses ------------------------------------------------------------------


def test_a_pod_that_runs_and_succeeds(shared: Place, namespace: Namespace, tmp_path: Path) -> None:
    go = tmp_path / "go"
    resources = {"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}}
    main = container(WAIT.format(go), resources=resources)
    shared.pod(namespace, "p", containers=[main])
    running = shared.running(namespace, "p")
    status = running["status"]
    assert status["phase"] == "Running"
    assert status["qosClass"] == "Burstable"
    assert status["observedGeneration"] == running["metadata"]["generation"] == 1
    assert status["hostIP"]
    assert status["podIPs"][0]["ip"] == status["podIP"]
    assert status_of(running)["started"] is True
    assert status_of(running)["containerID"].startswith("process://")
    assert status_of(running)["resources"]["limits"] == {"memory": "64Mi"}
    assert set(conditions_of(running).values()) == {("True", "")}
    go.touch()
    ended = shared.ended(namespace, "p")
    assert conditions_of(ended) == {
        "PodReadyToStartContainers": ("False", ""),
        "Initialized": ("True", "PodCompleted"),
        "Ready": ("False", "PodCompleted"),
        "ContainersReady": ("False", "PodCompleted"),
        "PodScheduled": ("True", ""),
    }
    assert ended["status"]["startTime"] == status["startTime"]
    end = state_of(ended)["terminated"]
    assert (end["exitCode"], end["reason"]) == (0, "Completed")
    assert end["containerID"] == status_of(running)["containerID"]
    until(lambda: "Started" in str(events(shared, namespace, "p")), "Started is told")
    assert [one[1] for one in events(shared, namespace, "p")].count("Started") == 1


def test_a_container_that_fails_runs_again_and_its_message_is_told(
    shared: Place, namespace: Namespace, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    script = f"echo once more > /dev/termination-log; test -e {ran} || {{ touch {ran}; exit 9; }}"
    shared.pod(namespace, "p", script, restartPolicy="OnFailure")
    ended = shared.ended(namespace, "p")
    assert ended["status"]["phase"] == "Succeeded"
    main = status_of(ended)
    assert main["restartCount"] == 1
    assert main["lastState"]["terminated"]["exitCode"] == 9
    assert main["lastState"]["terminated"]["message"] == "once more\n"
    assert main["lastState"]["terminated"]["containerID"] != main["containerID"]


def test_a_container_that_fails_on_backs_off(shared: Place, namespace: Namespace) -> None:
    shared.pod(namespace, "p", "exit 1", restartPolicy="Always")
    waiting = namespace.until(
        "pods",
        "p",
        lambda pod: state_of(pod).get("waiting", {}).get("reason") == "CrashLoopBackOff",
    )
    assert waiting["status"]["phase"] == "Running"
    assert conditions_of(waiting)["Ready"] == ("False", "ContainersNotReady")
    assert status_of(waiting)["lastState"]["terminated"]["exitCode"] == 1
    assert "Back-off restarting failed container main" in told(shared, namespace, "p", "BackOff")


def test_init_containers_in_order_and_a_sidecar(
    shared: Place, namespace: Namespace, tmp_path: Path
) -> None:
    go, end, ready = (tmp_path / name for name in ("go", "end", "ready"))
    first = container(f"echo first >> {tmp_path}/order; {WAIT.format(go)}", "first")
    sidecar = container(
        f"echo sidecar >> {tmp_path}/order; {on_term('exit 0', ready)}",
        "sidecar",
        restartPolicy="Always",
        startupProbe={"exec": {"command": ["test", "-e", str(ready)]}, "periodSeconds": 1},
    )
    last = container(f"echo last >> {tmp_path}/order", "last")
    main = container(f"echo main >> {tmp_path}/order; {WAIT.format(end)}")
    shared.pod(namespace, "p", containers=[main], initContainers=[first, sidecar, last])
    pending = namespace.until("pods", "p", lambda pod: "running" in state_of(pod, "first"))
    assert pending["status"]["phase"] == "Pending"
    assert condition(pending, "Initialized")["reason"] == "ContainersNotInitialized"
    names = "containers with incomplete status: [first sidecar last]"
    assert condition(pending, "Initialized")["message"] == names
    assert state_of(pending)["waiting"]["reason"] == "PodInitializing"
    go.touch()
    running = shared.running(namespace, "p")
    assert conditions_of(running)["Initialized"] == ("True", "")
    assert status_of(running, "sidecar")["started"] is True
    end.touch()
    ended = shared.ended(namespace, "p")
    assert ended["status"]["phase"] == "Succeeded"
    assert "terminated" in state_of(ended, "sidecar")
    assert (tmp_path / "order").read_text().split() == ["first", "sidecar", "last", "main"]


def test_an_init_container_that_fails_ends_the_pod(shared: Place, namespace: Namespace) -> None:
    shared.pod(namespace, "p", initContainers=[container("exit 6", "first")])
    ended = shared.ended(namespace, "p")
    assert ended["status"]["phase"] == "Failed"
    assert state_of(ended, "first")["terminated"]["exitCode"] == 6
    assert state_of(ended)["waiting"]["reason"] == "PodInitializing"
    assert conditions_of(ended)["Initialized"] == ("False", "ContainersNotInitialized")
    assert conditions_of(ended)["Ready"] == ("False", "PodFailed")


def test_the_deadline_can_be_set_while_a_pod_runs(shared: Place, namespace: Namespace) -> None:
    shared.pod(namespace, "p", "exec sleep 1000", terminationGracePeriodSeconds=1)
    shared.running(namespace, "p")
    namespace.api.patch(namespace.path("pods", "p"), {"spec": {"activeDeadlineSeconds": 1}})
    ended = shared.ended(namespace, "p")
    assert (ended["status"]["phase"], ended["status"]["reason"]) == ("Failed", "DeadlineExceeded")
    assert state_of(ended)["terminated"]["exitCode"] in (137, 143)
    assert "longer than" in told(shared, namespace, "p", "DeadlineExceeded")


def test_a_pod_for_which_there_is_no_room_fails_at_admission(
    shared: Place, namespace: Namespace
) -> None:
    main = container("exit 0", resources={"requests": {"cpu": "64"}})
    shared.pod(namespace, "p", containers=[main])
    ended = shared.ended(namespace, "p")
    assert (ended["status"]["phase"], ended["status"]["reason"]) == ("Failed", "OutOfcpu")
    assert "requested: 64000" in ended["status"]["message"]
    assert "containerStatuses" not in ended["status"]
    assert "requested: 64000" in told(shared, namespace, "p", "OutOfcpu")


# -- environment -----------------------------------------------------------------------------------


def test_the_environment_is_the_kubelets(shared: Place, namespace: Namespace) -> None:
    configmap(namespace, "one", A="one", B="one", **{"with-dash.dot": "kept"})
    configmap(namespace, "two", B="two")
    secret = {"metadata": {"name": "s"}, "stringData": {"key": "hidden"}}
    namespace.api.post(namespace.path("secrets"), secret)
    ports = [{"port": 80, "name": "web"}]
    service = {"metadata": {"name": "my-db"}, "spec": {"ports": ports, "selector": {"a": "b"}}}
    address = namespace.api.post(namespace.path("services"), service)["spec"]["clusterIP"]
    source = [
        {"configMapRef": {"name": "one"}},
        {"configMapRef": {"name": "two"}, "prefix": "P_"},
        {"configMapRef": {"name": "two"}},
        {"secretRef": {"name": "none", "optional": True}},
    ]

    def field(name: str, path: str) -> Object:
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    amount = {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}
    whole = {"resourceFieldRef": {"resource": "limits.cpu"}}
    env = [
        {"name": "A", "value": "own"},
        {"name": "C", "value": "$(A) $(B) $(NONE) $$(A)"},
        {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
        {"name": "O", "valueFrom": {"secretKeyRef": {"name": "s", "key": "no", "optional": True}}},
        field("NAME", "metadata.name"),
        field("UID_", "metadata.uid"),
        field("LABEL", "metadata.labels['app']"),
        field("NODE", "spec.nodeName"),
        field("ACCOUNT", "spec.serviceAccountName"),
        field("HOST", "status.hostIP"),
        {"name": "MEMORY", "valueFrom": amount},
        {"name": "CPU", "valueFrom": whole},
    ]
    limits = {"limits": {"memory": "100Mi"}}
    main = {**container("", envFrom=source, env=env, resources=limits), "command": ["env"]}
    made = shared.pod(namespace, "p", containers=[main])
    shared.ended(namespace, "p")
    found = dict(line.split("=", 1) for line in output(namespace, "p").splitlines())
    expected = {
        **{"A": "own", "B": "two", "P_B": "two", "C": "own two $(NONE) $(A)", "S": "hidden"},
        **{"NAME": "p", "UID_": made["metadata"]["uid"], "LABEL": "", "NODE": shared.name},
        **{"ACCOUNT": "default", "MEMORY": "100", "CPU": "4"},
        **{"MY_DB_SERVICE_HOST": address, "MY_DB_SERVICE_PORT_WEB": "80"},
        "with-dash.dot": "kept",
        "HOST": namespace.api.get(namespace.path("pods", "p"))["status"]["hostIP"],
    }
    assert {name: found.get(name) for name in expected} == expected
    assert "O" not in found
    assert found["KUBERNETES_SERVICE_HOST"]


def test_without_service_links_only_the_api_server_is_named(
    shared: Place, namespace: Namespace
) -> None:
    service = {"metadata": {"name": "db"}, "spec": {"ports": [{"port": 80}]}}
    namespace.api.post(namespace.path("services"), service)
    main = {**container(""), "command": ["env"]}
    shared.pod(namespace, "p", containers=[main], enableServiceLinks=False)
    shared.ended(namespace, "p")
    found = output(namespace, "p")
    assert "KUBERNETES_SERVICE_PORT=" in found
    assert "DB_SERVICE_HOST" not in found


def test_names_that_only_cluster_dns_knows_are_warned_of_once(
    shared: Place, namespace: Namespace
) -> None:
    env = [
        {"name": "DB", "value": "postgres://db.prod.svc:5432"},
        {"name": "CACHE", "value": "cache.prod.svc.cluster.local"},
        {"name": "FINE", "value": "db.example.com"},
    ]
    shared.pod(namespace, "p", containers=[container("exit 0", env=env)])
    shared.ended(namespace, "p")
    where, words = "spec.containers[0].env[0].value", "which nothing here resolves"
    message = f"{where}: CACHE, DB: names of the cluster's Services, {words}"

    def warned() -> list[str]:
        found = events(shared, namespace, "p")
        return [text for kind, _, text in found if kind == "Warning" and ".env" in text]

    assert until(warned, "an event warns of it") == [message]


# -- what pods refer to ----------------------------------------------------------------------------


def test_a_missing_config_map_is_waited_for(shared: Place, namespace: Namespace) -> None:
    source = [{"configMapRef": {"name": "late"}}]
    shared.pod(namespace, "p", containers=[container('exit "$CODE"', envFrom=source)])
    waiting = namespace.until(
        "pods",
        "p",
        lambda pod: state_of(pod).get("waiting", {}).get("reason") == "CreateContainerConfigError",
    )
    assert waiting["status"]["phase"] == "Pending"
    assert state_of(waiting)["waiting"]["message"] == 'configmap "late" not found'
    assert told(shared, namespace, "p", "Failed") == 'Error: configmap "late" not found'
    configmap(namespace, "late", CODE="3")
    assert state_of(shared.ended(namespace, "p"))["terminated"]["exitCode"] == 3


def test_volumes_with_items_modes_and_what_is_optional(shared: Place, namespace: Namespace) -> None:
    configmap(namespace, "c", a="in a", b="in b")
    secret = {"metadata": {"name": "s"}, "stringData": {"key": "hidden"}}
    namespace.api.post(namespace.path("secrets"), secret)
    items = [{"key": "a", "path": "deep/a", "mode": 0o400}]
    token = {"audience": "example", "expirationSeconds": 600, "path": "token"}
    label = {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}
    volumes = [
        {"name": "c", "configMap": {"name": "c", "items": items}},
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o440}},
        {"name": "o", "secret": {"secretName": "none", "optional": True}},
        {
            "name": "p",
            "projected": {
                "sources": [
                    {"configMap": {"name": "c"}},
                    {"secret": {"name": "s"}},
                    {"downwardAPI": {"items": [label]}},
                    {"serviceAccountToken": token},
                ]
            },
        },
    ]
    mounts = [{"name": one["name"], "mountPath": f"/mnt/{one['name']}"} for one in volumes]
    script = (
        "cd /mnt; cat c/deep/a; stat -L -c ' %a' c/deep/a; cat s/key; stat -L -c ' %a' s/key; "
        "ls o | wc -l; cat p/a p/b p/key p/name; echo; cut -d. -f2 p/token"
    )
    main = container(script, volumeMounts=mounts)
    shared.pod(namespace, "p", containers=[main], volumes=volumes)
    shared.ended(namespace, "p")
    *rest, claims = output(namespace, "p").splitlines()
    assert rest == ["in a 400", "hidden 440", "0", "in ain bhiddenp"]
    decoded = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    assert decoded["aud"] == ["example"]
    assert decoded["kubernetes.io"]["pod"]["name"] == "p"
    # What the author asked for, not the hour that is the default.
    assert decoded["exp"] - decoded["iat"] == 600


def test_labels_and_secrets_are_projected_anew(shared: Place, namespace: Namespace) -> None:
    secret = {"metadata": {"name": "s"}, "stringData": {"key": "old"}}
    namespace.api.post(namespace.path("secrets"), secret)
    item = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    volumes = [
        {"name": "l", "downwardAPI": {"items": [item]}},
        {"name": "s", "secret": {"secretName": "s"}},
    ]
    mounts = [{"name": one["name"], "mountPath": f"/mnt/{one['name']}"} for one in volumes]
    script = "until grep -q new /mnt/s/key && grep -q 'a=\"b\"' /mnt/l/labels; do sleep 0.05; done"
    shared.pod(namespace, "p", containers=[container(script, volumeMounts=mounts)], volumes=volumes)
    shared.running(namespace, "p")
    namespace.api.patch(namespace.path("secrets", "s"), {"stringData": {"key": "new"}})
    namespace.api.patch(namespace.path("pods", "p"), {"metadata": {"labels": {"a": "b"}}})
    assert shared.ended(namespace, "p")["status"]["phase"] == "Succeeded"


# -- what changes while a pod runs -----------------------------------------------------------------


def test_an_ephemeral_container_runs_in_a_pod(
    shared: Place, namespace: Namespace, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    shared.pod(namespace, "p", WAIT.format(go))
    shared.running(namespace, "p")
    added = {"spec": {"ephemeralContainers": [container("echo looking; exit 2", "debug")]}}
    changed = namespace.api.patch(f"{namespace.path('pods', 'p')}/ephemeralcontainers", added)
    looked = namespace.until("pods", "p", lambda pod: "terminated" in state_of(pod, "debug"))
    assert state_of(looked, "debug")["terminated"]["exitCode"] == 2
    assert looked["status"]["phase"] == "Running"
    assert looked["status"]["observedGeneration"] == changed["metadata"]["generation"]
    assert output(namespace, "p", "-c", "debug") == "looking\n"
    go.touch()
    # What one looked with says nothing of how the pod went.
    assert shared.ended(namespace, "p")["status"]["phase"] == "Succeeded"


def sized(script: str, cpu: str, **more: Any) -> Object:
    return container(script, resources={"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}, **more)


def resize(namespace: Namespace, name: str, cpu: str) -> int:
    """Asks for so much; the generation that asks."""
    resources = {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}
    patch = {"spec": {"containers": [{"name": "main", "resources": resources}]}}
    changed = namespace.api.patch(f"{namespace.path('pods', name)}/resize", patch)
    return int(changed["metadata"]["generation"])


def has(cpu: str) -> Any:
    """Whether that is what a pod's status says that its container has, and no resize is on."""

    def true_of(pod: Object) -> bool:
        main = status_of(pod)
        return (
            main.get("resources", {}).get("limits", {}).get("cpu") == cpu
            and main.get("allocatedResources", {}).get("cpu") == cpu
            and not condition(pod, "PodResizePending")
            and not condition(pod, "PodResizeInProgress")
        )

    return true_of


def test_a_pod_is_resized_in_place(shared: Place, namespace: Namespace, tmp_path: Path) -> None:
    go = tmp_path / "go"
    shared.pod(namespace, "p", containers=[sized(WAIT.format(go), "100m")])
    before = shared.running(namespace, "p")
    assert has("100m")(before)
    generation = resize(namespace, "p", "200m")
    now = namespace.until("pods", "p", has("200m"))
    assert status_of(now)["restartCount"] == 0
    assert status_of(now)["containerID"] == status_of(before)["containerID"]
    now = namespace.until(
        "pods", "p", lambda pod: pod["status"]["observedGeneration"] == generation
    )
    summary = (
        '{"containers":[{"name":"main","resources":{"limits":{"cpu":"200m"},'
        f'"requests":{{"cpu":"200m"}}}}}}],"generation":{generation}}}'
    )
    assert told(shared, namespace, "p", "ResizeStarted") == f"Pod resize started: {summary}"
    assert told(shared, namespace, "p", "ResizeCompleted") == f"Pod resize completed: {summary}"
    go.touch()
    shared.ended(namespace, "p")


def test_a_resize_that_needs_a_restart_is_in_progress_until_then(
    shared: Place, namespace: Namespace, tmp_path: Path
) -> None:
    go, ready = tmp_path / "go", tmp_path / "ready"
    policy = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
    # It takes its time to end, in which the resize is under way.
    script = on_term(f"{WAIT.format(go)}; exit 0", ready)
    main = sized(script, "100m", resizePolicy=policy)
    shared.pod(namespace, "p", containers=[main], restartPolicy="Always")
    shared.running(namespace, "p")
    until(ready.exists, "it listens")
    generation = resize(namespace, "p", "200m")
    going = namespace.until("pods", "p", lambda pod: condition(pod, "PodResizeInProgress"))
    on = condition(going, "PodResizeInProgress")
    assert (on["status"], on["observedGeneration"]) == ("True", generation)
    assert status_of(going)["resources"]["limits"]["cpu"] == "100m"
    go.touch()
    now = namespace.until("pods", "p", has("200m"))
    assert status_of(now)["restartCount"] == 1
    told(shared, namespace, "p", "ResizeCompleted")


def test_a_resize_for_which_there_is_no_room_is_put_off(
    shared: Place, namespace: Namespace, tmp_path: Path
) -> None:
    shared.pod(namespace, "other", containers=[sized("exec sleep 1000", "3")])
    shared.running(namespace, "other")
    go = tmp_path / "go"
    shared.pod(namespace, "p", containers=[sized(WAIT.format(go), "100m")])
    shared.running(namespace, "p")
    generation = resize(namespace, "p", "2")
    held = namespace.until("pods", "p", lambda pod: condition(pod, "PodResizePending"))
    on = condition(held, "PodResizePending")
    assert (on["status"], on["reason"]) == ("True", "Deferred")
    assert on["observedGeneration"] == generation
    assert "Node didn't have enough resource: cpu, requested: 2000" in on["message"]
    assert status_of(held)["resources"]["limits"]["cpu"] == "100m"
    assert "Pod resize Deferred: " in told(shared, namespace, "p", "ResizeDeferred")
    # What it only asks for takes nothing from others.
    shared.pod(namespace, "third", containers=[sized("exit 0", "500m")])
    assert shared.ended(namespace, "third")["status"]["phase"] == "Succeeded"
    namespace.api.delete(namespace.path("pods", "other"), grace=0)
    now = namespace.until("pods", "p", has("2"))
    assert status_of(now)["restartCount"] == 0
    go.touch()
    shared.ended(namespace, "p")


def test_a_resize_that_no_backend_can_do_is_infeasible(
    control_plane: ControlPlane, namespace: Namespace, tmp_path: Path
) -> None:
    with node_kit.place(control_plane, tmp_path / "place") as place:
        place.up(backends=[{"name": "null", "type": "null", **SIZE}])
        place.pod(namespace, "p", containers=[sized("", "100m")])
        place.running(namespace, "p")
        generation = resize(namespace, "p", "200m")
        held = namespace.until("pods", "p", lambda pod: condition(pod, "PodResizePending"))
        on = condition(held, "PodResizePending")
        assert (on["reason"], on["observedGeneration"]) == ("Infeasible", generation)
        assert "cannot be changed while the pod runs on null" in on["message"]
        assert status_of(held)["resources"]["limits"]["cpu"] == "100m"
        told(place, namespace, "p", "ResizeInfeasible")
        # Asked for what it has, there is nothing left of it.
        resize(namespace, "p", "100m")
        namespace.until("pods", "p", has("100m"))
