"""Who the node is to the API server: a node, a service account; or nobody that it takes."""

from __future__ import annotations

import contextlib
import datetime
import json
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import node_kit
import orjson
import pytest
from control_plane_kit import ApiError, ControlPlane, Namespace, Object
from node_kit import Place, container, until

from bridge.kubelet import rbac
from tools.control_plane import audit
from tools.control_plane.api import Api
from tools.control_plane.authority import Pair, kubeconfig, with_certificate, write_kubeconfig

pytestmark = pytest.mark.slow

CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
SERVING = "kubernetes.io/kubelet-serving"
CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
SCRIPT = "echo $GREETING; cat /secret/word; test -s $TOKENS/token && echo; echo token; sleep 1000"
ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"
TOKENS = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.fixture
def place(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Place]:
    with node_kit.place(control_plane, tmp_path) as made:
        yield made


def cluster_id(place: Place) -> str:
    uid: str = place.api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"]
    return uid


def requests(place: Place, signer: str, user: str = "") -> list[Object]:
    """The certificate requests of this signer for our node."""
    name = user or f"system:node:{place.name}"
    found = place.api.get(CSRS)["items"]
    return [
        one
        for one in found
        if (one["spec"]["signerName"], one["spec"]["username"]) == (signer, name)
    ]


def bootstrapped(place: Place) -> Path:
    """A configuration with a node's own identity, and nothing to begin with but a token."""
    token = place.plane.bootstrap_kubeconfig()
    cluster = {
        "identity": "node",
        "id": cluster_id(place),
        "kubeconfig": None,
        "bootstrap_kubeconfig": token,
        "client_ca": place.plane.ca,
    }
    return place.config(nodes=[place.node_config(serving={})], cluster=cluster)


def needy_pod(place: Place, namespace: Namespace) -> None:
    """A pod `p` that needs a ConfigMap, a Secret and a token."""
    meta = {"name": "things"}
    namespace.api.post(
        namespace.path("configmaps"), {"metadata": meta, "data": {"greeting": "hello"}}
    )
    namespace.api.post(
        namespace.path("secrets"), {"metadata": meta, "stringData": {"word": "hush"}}
    )
    greeting = {"configMapKeyRef": {"name": "things", "key": "greeting"}}
    env = [{"name": "GREETING", "valueFrom": greeting}, {"name": "TOKENS", "value": TOKENS}]
    mounts = [{"name": "secret", "mountPath": "/secret"}]
    volumes = [{"name": "secret", "secret": {"secretName": "things"}}]
    main = container(SCRIPT, env=env, volumeMounts=mounts)
    place.pod(namespace, "p", containers=[main], volumes=volumes)


def logs_come(namespace: Namespace) -> None:
    """Returns once the logs of `p` are read, through an API server that verifies the node."""

    def read() -> bool:
        path = f"{namespace.path('pods', 'p')}/log"
        return namespace.api.request("GET", path) == (200, b"hello\nhush\ntoken\n")

    until(read, "the pod's logs are read")


def approve(place: Place, namespace: Namespace) -> None:
    """Does what the event about the node says, once there is one."""
    pending = until(
        lambda: [
            one
            for one in place.events("Node", place.name)
            if one["reason"] == "CertificateApprovalPending"
        ],
        "an event names the request",
    )
    command = pending[0]["message"].partition("waits for approval: kubectl ")[2]
    assert command.startswith("certificate approve podbridge-"), pending[0]["message"]
    namespace.kubectl(*command.split())


# -- a node of its own -----------------------------------------------------------------------------


def test_a_node_with_nothing_but_a_bootstrap_token(place: Place, namespace: Namespace) -> None:
    config = bootstrapped(place)
    one = place.up(config=config)
    # Its own certificate was approved by the cluster's controller; that of its API waits. Pods do
    # not.
    needy_pod(place, namespace)
    place.running(namespace, "p")
    said = namespace.kubectl("logs", "p", fails=True).err
    assert "certificate" in said
    approve(place, namespace)
    logs_come(namespace)
    assert namespace.kubectl("exec", "p", "--", "echo", "hi").out == "hi\n"
    asked = len(requests(place, SERVING))

    state = place.folder / "nodes" / cluster_id(place) / place.name
    for name in ("client.pem", "serving.pem"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600
    # It has no more rights than a node has: what its pods need, and nothing else.
    other = f"{place.name}-other"
    place.names.add(other)
    place.api.post("/api/v1/nodes", {"metadata": {"name": other}})
    with contextlib.closing(as_node(place, state / "client.pem")) as node:
        assert node.get(f"{namespace.path('secrets', 'things')}")["metadata"]["name"] == "things"
        for path in ("/api/v1/secrets", "/api/v1/namespaces/kube-system", "/api/v1/configmaps"):
            assert node.request("GET", path)[0] == 403
        with pytest.raises(ApiError) as refused:
            node.patch(place.path(other), {"metadata": {"labels": {"a": "b"}}})
        assert refused.value.code == 403

    # After a restart nothing is asked for again, and the API is open at once.
    assert one.stop() == 0
    place.api.delete("/api/v1/namespaces/kube-system/secrets/" + bootstrap_secret(config))
    place.up(config=config)
    place.serves()
    logs_come(namespace)
    assert len(requests(place, SERVING)) == asked


def bootstrap_secret(config: Path) -> str:
    token_file = json.loads(config.read_text())["cluster"]["bootstrap_kubeconfig"]
    token = json.loads(Path(token_file).read_text())["users"][0]["user"]["token"]
    return f"bootstrap-token-{token.partition('.')[0]}"


def as_node(place: Place, pem: Path) -> Api:
    """Calls as whoever has this certificate and key."""
    content = pem.read_bytes()
    user = with_certificate(Pair(content, content))
    path = place.folder / "as-node.kubeconfig"
    write_kubeconfig(path, kubeconfig(place.plane.server, place.plane.ca.read_bytes(), user))
    return Api(path)


# -- a service account -----------------------------------------------------------------------------


def used(place: Place, user: str, since: int) -> set[tuple[str, str, str, str]]:
    """What a user did that was allowed: namespace, group, resource, verb; the namespace only of
    what Roles allow."""
    found = set()
    for line in place.plane.audit_log.read_bytes()[since:].splitlines():
        with contextlib.suppress(orjson.JSONDecodeError):
            entry = orjson.loads(line)
            about = entry.get("objectRef") or {}
            if entry["user"]["username"] != user or not about.get("resource"):
                continue
            if entry["responseStatus"]["code"] == 403:
                continue
            resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
            where = about.get("namespace") if about["resource"] == "leases" else ""
            found.add((where or "", about.get("apiGroup", ""), resource, entry["verb"]))
    return found


def allowed(where: str, rules: list[rbac.Rule]) -> set[tuple[str, str, str, str]]:
    return {
        (where, group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_a_service_account_with_just_the_rights_that_it_needs(
    place: Place, namespace: Namespace
) -> None:
    since = audit.position(place.plane.audit_log)
    account = f"only-{place.name}"
    who = f"system:serviceaccount:{node_kit.HOME}:{account}"
    kubeconfig = node_kit.account(place.plane, account, [place.name])
    one = place.up(
        config=place.config(nodes=[place.node_config(serving={})], kubeconfig=kubeconfig)
    )
    needy_pod(place, namespace)
    place.running(namespace, "p")
    until(lambda: requests(place, SERVING, who), "it asks for a certificate")
    namespace.kubectl(
        "certificate", "approve", requests(place, SERVING, who)[0]["metadata"]["name"]
    )
    logs_come(namespace)
    # A caller with a token is reviewed; events that come again are counted; the pod's end is its.
    rules = [{"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]}]
    token = place.plane.account_kubeconfig(namespace.name, "asker", rules)
    with contextlib.closing(place.kubelet_api()) as kubelet:
        server = kubelet.access.server
    asked = json.loads(token.read_text())
    asked["clusters"][0]["cluster"]["server"] = server
    with contextlib.closing(Api(write_kubeconfig(place.folder / "asker", asked))) as asker:
        assert asker.get("/pods")["items"]
    namespace.kubectl("delete", "pod", "p", "--grace-period=1")
    assert one.stop() == 0

    wanted = allowed("", rbac.rules())
    for where, found in rbac.namespaced_rules().items():
        wanted |= allowed(where, found)
    # The Role of every cluster that lets the CAs be read, and /version.
    wanted |= {("", "", "configmaps", "get")}
    did = used(place, who, since)
    assert did <= wanted, did - wanted
    # Of what it may do only this was not needed here: what is said of the node did not change.
    spare = {("", "", resource, "patch") for resource in ("events", "nodes", "nodes/status")}
    assert wanted - did <= spare, wanted - did - spare
    for words in ("delete nodes", "patch pods", "create pods", "update secrets", "get pods/exec"):
        verb, resource = words.split()
        asks = ("auth", "can-i", verb, resource, f"--as={who}")
        assert namespace.kubectl(*asks, fails=True).out.strip() == "no", words


def test_in_a_pod_it_is_the_pod_s_service_account(place: Place) -> None:
    # As in a pod: its files are where those of a pod are, for this process only.
    inside = place.folder / "account"
    inside.mkdir()
    found = json.loads(node_kit.least_privilege(place.plane).read_text())
    (inside / "token").write_text(found["users"][0]["user"]["token"])
    (inside / "ca.crt").write_bytes(place.plane.ca.read_bytes())
    shown = f"mkdir -p {ACCOUNT} && cp {inside}/* {ACCOUNT}"
    script = f'mount -t tmpfs tmpfs /run && {shown} && exec "$0" "$@"'
    before = ["unshare", "--mount", "/bin/sh", "-c", script]
    if subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounts of its own cannot be made here")
    config = place.config(cluster={"identity": "service-account", "kubeconfig": None})
    host, port = place.plane.server.removeprefix("https://").split(":")
    env = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    one = place.start("--config", str(config), "up", env=env, before=before)
    place.ready(process=one)
    place.serves(process=one)
    assert f"joining {place.plane.server} " in one.said


# -- somebody that the API server does not take ----------------------------------------------------


def changed(place: Place, path: Path, **cluster: Any) -> Path:
    """A kubeconfig like this one, with other words about the cluster."""
    content = json.loads(path.read_text())
    content["clusters"][0]["cluster"].update(cluster)
    return write_kubeconfig(place.folder / "changed", content)


def refusal(place: Place, code: int, *words: str, **settings: Any) -> str:
    """What `podbridge up` says as it ends with this exit code: one line of error."""
    one = place.up(*words, ready=False, **settings)
    assert one.end() == code, one.said
    lines = [line for line in one.said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, one.said
    assert place.node() == {}
    return lines[0]


def test_an_expired_certificate(place: Place) -> None:
    expired = place.plane.expired_kubeconfig()
    said = refusal(place, 2, kubeconfig=expired)
    until_ = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    assert str(expired) in said
    assert "users[0].user.client-certificate-data" in said
    assert f"the certificate expired at {until_:%Y-%m-%dT%H:}" in said


def test_a_context_that_is_not_there(place: Place) -> None:
    said = refusal(place, 2, "--context", "prod")
    assert said.endswith('found "prod"; contexts there are: test')


def test_a_token_that_nobody_knows(place: Place) -> None:
    content = json.loads(node_kit.least_privilege(place.plane).read_text())
    content["users"][0]["user"]["token"] = "hush-hush"
    path = write_kubeconfig(place.folder / "unknown", content)
    said = refusal(place, 3, kubeconfig=path)
    assert said.startswith(f"error: the API server refuses {path}, context test: ")
    assert "hush" not in said


def test_an_account_that_may_do_nothing(place: Place) -> None:
    nobody = place.plane.account_kubeconfig("kube-system", "nobody")
    said = refusal(place, 2, kubeconfig=nobody)
    assert "cluster.id: missing, and cannot be read from the cluster" in said
    said = refusal(place, 3, kubeconfig=nobody, cluster={"id": cluster_id(place)})
    assert said.startswith(f"error: the API server refuses {nobody}, context test: ")
    assert f'nodes "{place.name}" is forbidden' in said


def test_a_bootstrap_token_that_nobody_knows(place: Place) -> None:
    config = bootstrapped(place)
    place.api.delete("/api/v1/namespaces/kube-system/secrets/" + bootstrap_secret(config))
    said = refusal(place, 3, config=config)
    assert "the API server refuses" in said


def test_an_api_server_that_is_not_there(place: Place) -> None:
    known = node_kit.least_privilege(place.plane)
    server = f"https://127.0.0.1:{node_kit.free_port()}"
    said = refusal(place, 3, kubeconfig=changed(place, known, server=server))
    assert said.startswith(f"error: the API server at {server} does not answer: ")


def test_an_api_server_of_another_ca(place: Place) -> None:
    known = node_kit.least_privilege(place.plane)
    other = json.loads(known.read_text())["clusters"][0]["cluster"]
    front = (place.plane.folder / "front-ca.crt").read_bytes()
    other = with_certificate(Pair(front, front))["client-certificate-data"]
    path = changed(place, known, **{"certificate-authority-data": other})
    said = refusal(place, 3, kubeconfig=path)
    assert "certificate" in said
