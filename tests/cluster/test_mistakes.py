"""The twenty mistakes of virtual kubelets, one test each, at a real API server."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import node_kit
import pytest
from control_plane_kit import ControlPlane, Namespace, Object
from cryptography import x509
from node_kit import Place, condition, container, is_ready, on_term, until
from support import engine

from tools.control_plane import audit

pytestmark = pytest.mark.slow

CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
MERGE = "application/merge-patch+json"


@pytest.fixture(scope="module")
def shared(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """A node on `process`, for all tests that leave it as it is."""
    with node_kit.kept(control_plane, tmp_path_factory.mktemp("shared")) as made:
        yield made


@pytest.fixture
def place(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Place]:
    """Where a test starts and kills what it wants."""
    with node_kit.place(control_plane, tmp_path / "place") as made:
        yield made


def status_of(pod: Object, name: str = "main") -> Any:
    lists = ("initContainerStatuses", "containerStatuses")
    found = [one for key in lists for one in pod["status"].get(key) or ()]
    return next(one for one in found if one["name"] == name)


def code_of(pod: Object, name: str = "main") -> Any:
    return status_of(pod, name)["state"]["terminated"]["exitCode"]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def logged(namespace: Namespace, name: str, *words: str) -> str:
    return namespace.kubectl("logs", name, *words).out


def tokens(namespace: Namespace, since: int) -> int:
    """How many tokens for pods a node has been given since that position of the audit log: the last
    thing that it asks for before it asks the provider."""
    calls = audit.calls(namespace.plane.audit_log, "podbridge", since, namespace=namespace.name)
    return calls["create serviceaccounts/token 201"]


def history(namespace: Namespace, name: str, version: str) -> list[Object]:
    """All that the API server told of a pod since that version, up to its deletion."""
    where = f"{namespace.path('pods')}?fieldSelector=metadata.name%3D{name}"
    found = []
    with contextlib.closing(namespace.api.watch(where, version=version)) as events:
        for event in events:
            found.append(event)
            if event["type"] == "DELETED":
                return found
    raise AssertionError(f"the watch of {name} ended early")


def test_mistake_01_a_lost_status_or_a_restart_runs_nothing_again(
    place: Place, namespace: Namespace, tmp_path: Path
) -> None:
    config, ran, go = place.config(), tmp_path / "ran", tmp_path / "go"
    up = place.up(config=config)
    place.pod(namespace, "p", f"echo run >> {ran}; until test -e {go}; do sleep 0.05; done; exit 7")
    place.running(namespace, "p")
    up.kill()
    # Its whole status goes, as in a cluster restored from a backup; it ends meanwhile.
    status = {"phase": "Pending", "containerStatuses": None, "startTime": None, "conditions": None}
    namespace.api.patch(f"{namespace.path('pods', 'p')}/status", {"status": status}, MERGE)
    go.touch()
    place.up(config=config)
    ended = place.ended(namespace, "p")
    assert lines(ran) == ["run"]
    assert code_of(ended) == 7
    assert status_of(ended)["restartCount"] == 0


def test_mistake_02_no_sweep_touches_pods_of_another_node(
    place: Place, namespace: Namespace
) -> None:
    nodes = [place.node_config(name=f"{place.name}-{one}") for one in "ab"]
    config = place.config(nodes=nodes)
    up = place.up(config=config)
    for one in "ab":
        place.pod(namespace, one, "exec sleep 1000", node=f"{place.name}-{one}")
    before = place.running(namespace, "b")
    place.running(namespace, "a")
    up.kill()
    # What node a finds at its backend afterwards belongs to no pod; node b's is not its business.
    namespace.api.delete(namespace.path("pods", "a"), grace=0)
    place.up(config=config)
    until(lambda: sum("sleep 1000" in what for _, what in place.processes()) == 1, "a's work ends")
    # A step of its node later it is as it was.
    namespace.api.patch(namespace.path("pods", "b"), {"spec": {"activeDeadlineSeconds": 500}})
    namespace.until("pods", "b", lambda pod: pod["status"]["observedGeneration"] == 2)
    now = status_of(place.running(namespace, "b"))
    assert (now["containerID"], now["restartCount"]) == (status_of(before)["containerID"], 0)


def test_mistake_03_every_exit_code_is_told_exactly(
    shared: Place, namespace: Namespace, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    expected = {
        "well": ("exit 0", 0, "Completed"),
        "badly": ("exit 42", 42, "Error"),
        # A doubled dollar is one to Kubernetes.
        "killed": ("kill -9 $$$$", 137, "Error"),
        "unstarted": ("", 128, "StartError"),
    }
    for name, (script, _, _) in expected.items():
        main = container(script) if script else {**container(""), "command": [str(broken)]}
        shared.pod(namespace, name, containers=[main])
    for name, (_, code, reason) in expected.items():
        ended = shared.ended(namespace, name)
        assert ended["status"]["phase"] == ("Succeeded" if code == 0 else "Failed")
        state = status_of(ended)["state"]["terminated"]
        assert (state["exitCode"], state["reason"]) == (code, reason)


def test_mistake_04_lost_work_is_confirmed_and_told_as_lost(
    place: Place, namespace: Namespace
) -> None:
    # This backend has forgotten everything whenever it starts.
    provider, address = place.provider(backends=[{"name": "null", "type": "null"}])
    config = place.folder / "config-1.yaml"
    place.kubelet(address)
    place.pod(namespace, "p")
    place.running(namespace, "p")
    provider.kill()
    place.provider(config=config)
    ended = place.ended(namespace, "p")
    assert ended["status"]["phase"] == "Failed"
    assert code_of(ended) == 137
    assert status_of(ended)["state"]["terminated"]["reason"] == "ContainerStatusUnknown"
    disrupted = condition(ended, "DisruptionTarget")
    assert (disrupted["status"], disrupted["reason"]) == ("True", "TerminationByKubelet")


def test_mistake_05_what_is_transient_fails_no_pod(place: Place, namespace: Namespace) -> None:
    provider, address = place.provider()
    config = place.folder / "config-1.yaml"
    kubelet = place.kubelet(address)
    provider.kill()
    kubelet.says("the provider is lost")
    since = audit.position(namespace.plane.audit_log)
    place.pod(namespace, "p", "exit 0")
    # All that it takes to make the pod was asked for, and it cannot be made now.
    until(lambda: tokens(namespace, since), "the pod is put together")
    assert namespace.api.get(namespace.path("pods", "p"))["status"]["phase"] == "Pending"
    place.provider(config=config)
    assert place.ended(namespace, "p")["status"]["phase"] == "Succeeded"


def test_mistake_06_a_pod_of_the_same_name_is_another_pod(
    shared: Place, namespace: Namespace, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    first = shared.pod(namespace, "p", f"echo first >> {tmp_path}/ran; {on_term('', ready)}")
    shared.running(namespace, "p")
    until(ready.exists, "it listens")
    namespace.api.delete(namespace.path("pods", "p"), grace=0)
    second = shared.pod(namespace, "p", f"echo second >> {tmp_path}/ran; exit 5")
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    ended = shared.ended(namespace, "p")
    assert ended["metadata"]["uid"] == second["metadata"]["uid"]
    assert code_of(ended) == 5
    assert lines(tmp_path / "ran") == ["first", "second"]
    until(lambda: not any("echo first" in what for _, what in shared.processes()), "the first ends")


def test_mistake_07_waits_the_full_grace_or_deletes_while_it_runs(
    shared: Place, namespace: Namespace, tmp_path: Path
) -> None:
    go, ready = tmp_path / "go", tmp_path / "ready"
    script = on_term(f"until test -e {go}; do sleep 0.05; done; exit 3", ready)
    shared.pod(namespace, "p", script, terminationGracePeriodSeconds=600)
    running = shared.running(namespace, "p")
    until(ready.exists, "it listens")
    namespace.api.delete(namespace.path("pods", "p"))
    # It takes its time, and the object is there as long as it does.
    there = namespace.until("pods", "p", lambda pod: pod["metadata"].get("deletionTimestamp"))
    assert "running" in status_of(there)["state"]
    go.touch()
    told = history(namespace, "p", running["metadata"]["resourceVersion"])
    last = told[-1]["object"]
    assert last["status"]["phase"] == "Failed"
    assert code_of(last) == 3
    # Ten minutes were allowed; the test's own patience is one.
    assert told[-1]["type"] == "DELETED"


def test_mistake_08_pods_that_were_deleted_while_nobody_was_there_end(
    place: Place, namespace: Namespace, tmp_path: Path
) -> None:
    config = place.config()
    up = place.up(config=config)
    ready = tmp_path / "ready"
    place.pod(namespace, "p", on_term("exit 4", ready))
    running = place.running(namespace, "p")
    until(ready.exists, "it listens")
    up.kill()
    namespace.api.delete(namespace.path("pods", "p"))
    place.up(config=config)
    told = history(namespace, "p", running["metadata"]["resourceVersion"])
    assert code_of(told[-1]["object"]) == 4


def test_mistake_09_a_token_is_bound_to_its_pod(shared: Place, namespace: Namespace) -> None:
    made = shared.pod(namespace, "p", f"cat {TOKEN}")
    assert any("serviceAccountToken" in str(one) for one in made["spec"]["volumes"])
    shared.ended(namespace, "p")
    review = {"spec": {"token": logged(namespace, "p").strip()}}
    reviews = "/apis/authentication.k8s.io/v1/tokenreviews"
    who = namespace.api.post(reviews, review)["status"]["user"]
    assert who["username"] == f"system:serviceaccount:{namespace.name}:default"
    assert who["extra"]["authentication.kubernetes.io/pod-uid"] == [made["metadata"]["uid"]]


def test_mistake_10_no_pod_delays_the_heartbeat(place: Place, namespace: Namespace) -> None:
    provider, address = place.provider()
    place.kubelet(address)
    since = audit.position(namespace.plane.audit_log)
    with provider.paused():
        for number in range(20):
            place.pod(namespace, f"p{number}")
        # Each of them is put together, and waits for the provider.
        until(lambda: tokens(namespace, since) >= 20, "the pods wait")
        before = place.lease()["spec"]["renewTime"]
        until(lambda: place.lease()["spec"]["renewTime"] > before, "the Lease is renewed")
        assert is_ready(place.node())
    place.ended(namespace, "p19")


def test_mistake_11_the_serving_certificate_names_the_address(
    place: Place, namespace: Namespace
) -> None:
    config = place.config(nodes=[place.node_config(serving={})])
    place.up(config=config)

    def asked() -> Object | None:
        found = [
            one
            for one in namespace.api.get(CSRS)["items"]
            if one["spec"]["signerName"] == "kubernetes.io/kubelet-serving"
            and place.name in one["spec"].get("username", "") + str(names(one))
        ]
        return found[0] if found else None

    def names(csr: Object) -> tuple[list[str], list[str]]:
        made = x509.load_pem_x509_csr(base64.b64decode(csr["spec"]["request"]))
        found = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        addresses = [str(one) for one in found.get_values_for_type(x509.IPAddress)]
        return addresses, found.get_values_for_type(x509.DNSName)

    csr = until(asked, "a certificate is asked for")
    assert names(csr) == (["127.0.0.1"], [place.name])
    namespace.kubectl("certificate", "approve", csr["metadata"]["name"])
    place.pod(namespace, "p", "echo through a verified connection")
    place.ended(namespace, "p")

    def through() -> bool:
        with contextlib.suppress(AssertionError):
            return logged(namespace, "p") == "through a verified connection\n"
        return False

    until(through, "the API server believes the node's certificate")


def test_mistake_12_a_followed_log_ends_with_the_container(
    shared: Place, namespace: Namespace, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    shared.pod(namespace, "p", f"echo first; until test -e {go}; do sleep 0.05; done; echo last")
    shared.running(namespace, "p")
    path = f"{namespace.path('pods', 'p')}/log?follow=true"
    connection = namespace.api.connect()
    with contextlib.closing(connection):
        connection.request("GET", path, headers=namespace.api.access.headers)
        answer = connection.getresponse()
        assert answer.readline() == b"first\n"
        go.touch()
        assert answer.read() == b"last\n"


def test_mistake_13_references_to_the_pods_address(shared: Place, namespace: Namespace) -> None:
    env = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "URL", "value": "http://$(POD_IP):80"},
    ]
    main = {**container("", env=env), "command": ["/bin/echo", "$(URL)"]}
    shared.pod(namespace, "p", containers=[main])
    ended = shared.ended(namespace, "p")
    address = ended["status"]["podIP"]
    assert address
    assert logged(namespace, "p") == f"http://{address}:80\n"


def test_mistake_14_init_containers_have_their_environment(
    shared: Place, namespace: Namespace
) -> None:
    namespace.api.post(
        namespace.path("configmaps"), {"metadata": {"name": "c"}, "data": {"A": "from c"}}
    )
    source = [{"configMapRef": {"name": "c"}}]
    env = [{"name": "B", "value": "$(A), expanded"}]
    first = container('echo "$A; $B"', "first", envFrom=source, env=env)
    shared.pod(namespace, "p", initContainers=[first])
    shared.ended(namespace, "p")
    assert logged(namespace, "p", "-c", "first") == "from c; from c, expanded\n"


def test_mistake_15_pods_of_a_daemonset_that_cannot_run_wait(
    shared: Place, namespace: Namespace
) -> None:
    labels = {"app": "agent"}
    pod = {
        "containers": [container("exec sleep 1000", securityContext={"privileged": True})],
        "tolerations": [{"operator": "Exists"}],
        "nodeSelector": {"kubernetes.io/hostname": shared.name},
    }
    sets = f"/apis/apps/v1/namespaces/{namespace.name}/daemonsets"
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    namespace.api.post(sets, {"metadata": {"name": "agent"}, "spec": spec})
    mine = f"{namespace.path('pods')}?labelSelector=app%3Dagent"

    def told() -> list[Object]:
        pods = namespace.api.get(mine)["items"]
        return [
            one
            for pod in pods
            for one in shared.events("Pod", pod["metadata"]["name"], namespace=namespace.name)
            if one["type"] == "Warning" and "privileged" in one["message"]
        ]

    assert len(until(told, "an event says why")) == 1
    (there,) = namespace.api.get(mine)["items"]
    assert there["status"]["phase"] == "Pending"
    # Another look changes nothing, and tells nothing anew.
    namespace.api.patch(
        namespace.path("pods", there["metadata"]["name"]), {"metadata": {"labels": {"a": "b"}}}
    )
    shared.pod(namespace, "after")
    shared.ended(namespace, "after")
    (still,) = namespace.api.get(mine)["items"]
    assert still["metadata"]["uid"] == there["metadata"]["uid"]
    assert still["status"]["phase"] == "Pending"
    assert [one.get("count", 1) for one in told()] == [1]
    namespace.api.delete(f"{sets}/agent")
    namespace.api.until(mine, lambda found: not found["items"])


def test_mistake_16_no_taint_waits_for_routes(shared: Place) -> None:
    node = shared.node()
    assert condition(node, "NetworkUnavailable")["status"] == "False"
    assert not node["spec"].get("taints")


def test_mistake_17_updates_of_a_config_map_arrive(shared: Place, namespace: Namespace) -> None:
    namespace.api.post(
        namespace.path("configmaps"), {"metadata": {"name": "c"}, "data": {"word": "old"}}
    )
    mounts = [{"name": "v", "mountPath": "/etc/words"}]
    word = "/etc/words/word"
    script = f"cat {word}; echo; until grep -q new {word}; do sleep 0.05; done; cat {word}"
    shared.pod(
        namespace,
        "p",
        containers=[container(script, volumeMounts=mounts)],
        volumes=[{"name": "v", "configMap": {"name": "c"}}],
    )
    shared.running(namespace, "p")
    until(lambda: logged(namespace, "p") == "old\n", "it has read the word")
    namespace.api.patch(namespace.path("configmaps", "c"), {"data": {"word": "new"}})
    shared.ended(namespace, "p")
    assert logged(namespace, "p") == "old\nnew"


def test_mistake_18_conditions_of_others_stay_and_nothing_is_written_twice(
    shared: Place, namespace: Namespace, tmp_path: Path
) -> None:
    go, since = tmp_path / "go", audit.position(namespace.plane.audit_log)
    made = shared.pod(namespace, "p", f"until test -e {go}; do sleep 0.05; done")
    shared.running(namespace, "p")
    foreign = {"type": "example.org/gate", "status": "True", "reason": "Test"}
    namespace.api.patch(
        f"{namespace.path('pods', 'p')}/status", {"status": {"conditions": [foreign]}}
    )
    go.touch()
    ended = shared.ended(namespace, "p")
    assert condition(ended, "example.org/gate")["reason"] == "Test"
    namespace.api.delete(namespace.path("pods", "p"))
    told = [one["object"] for one in history(namespace, "p", made["metadata"]["resourceVersion"])]
    assert condition(told[-1], "example.org/gate")["reason"] == "Test"
    stati = [json.dumps(one["status"], sort_keys=True) for one in (made, *told)]
    changes = sum(one != before for before, one in pairwise(stati))
    calls = audit.calls(namespace.plane.audit_log, "podbridge/", since, namespace=namespace.name)
    # One of them is the test's own. A write that changes nothing is in the audit log alone.
    assert calls["patch pods/status 200"] == changes - 1


@pytest.mark.skipif(bool(engine.problem()), reason=f"no container engine: {engine.problem()}")
def test_mistake_19_a_pull_that_fails_says_so(place: Place, namespace: Namespace) -> None:
    options = {"host": engine.address(), "owner": place.name}
    place.up(backends=[{"name": "engine", "type": "engine", **options}])
    main = {"name": "main", "image": "127.0.0.1:1/none:1"}
    place.pod(namespace, "p", containers=[main])

    def waits(pod: Object) -> bool:
        found = pod["status"].get("containerStatuses") or [{}]
        return "ImagePull" in found[0].get("state", {}).get("waiting", {}).get("reason", "")

    waiting = namespace.until("pods", "p", waits)
    assert waiting["status"]["phase"] == "Pending"

    def told() -> list[Object]:
        failed = f'Failed to pull image "{main["image"]}"'
        found = place.events("Pod", "p", namespace=namespace.name)
        return [one for one in found if failed in one["message"]]

    assert until(told, "an event tells of it")[0]["reason"] == "Failed"
    namespace.api.delete(namespace.path("pods", "p"))
    last = history(namespace, "p", waiting["metadata"]["resourceVersion"])[-1]["object"]
    assert last["status"]["phase"] == "Failed"
    # As a kubelet has it: of what never ran nobody knows how it ended, and nothing waits any more.
    state = status_of(last)["state"]
    assert state.keys() == {"terminated"}
    assert state["terminated"]["reason"] == "ContainerStatusUnknown"
    assert state["terminated"]["exitCode"] == 137


def test_mistake_20_nobody_unknown_gets_in_and_no_field_is_dropped(
    shared: Place, namespace: Namespace
) -> None:
    port = shared.node()["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"https://127.0.0.1:{port}/pods", context=trusting)
    with refused.value as answer:
        assert answer.code == 401
    main = container("exit 0", securityContext={"privileged": True})
    shared.pod(
        namespace, "p", containers=[main], hostAliases=[{"ip": "10.0.0.1", "hostnames": ["a"]}]
    )
    ended = shared.ended(namespace, "p")
    assert (ended["status"]["phase"], ended["status"]["reason"]) == ("Failed", "Unsupported")
    for field in ("spec.containers[0].securityContext.privileged", "spec.hostAliases"):
        assert field in ended["status"]["message"]
    assert "containerStatuses" not in ended["status"]
