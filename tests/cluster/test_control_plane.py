"""The control plane that other tests stand on: it is real, it is as promised, and it goes."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import time
from collections.abc import Iterator
from typing import Any

import pytest
from control_plane_kit import (
    PATIENCE,
    ApiError,
    ControlPlane,
    FakeNode,
    Namespace,
    Object,
    fake_node,
    in_thread,
    kubectl,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tools.control_plane import audit, handle
from tools.control_plane.api import Api
from tools.control_plane.authority import Authority, kubeconfig, write_kubeconfig
from tools.control_plane.components import KUBELET_CLIENT, METRICS

pytestmark = pytest.mark.slow

CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
ALL = ("etcd", "kube-apiserver", "kube-scheduler", "kube-controller-manager")


def phase(pod: Object) -> Any:
    return pod.get("status", {}).get("phase")


def is_true(thing: Object, kind: str) -> bool:
    found = thing.get("status", {}).get("conditions", [])
    return any(one["type"] == kind and one["status"] == "True" for one in found)


# -- it is one -------------------------------------------------------------------------------------


def test_it_answers_and_is_of_the_version_asked_for(
    control_plane: ControlPlane, kubernetes_version: str, namespace: Namespace
) -> None:
    code, said = namespace.api.request("GET", "/readyz?verbose")
    assert code == 200
    assert b"etcd ok" in said
    version = namespace.api.get("/version")
    assert version["gitVersion"] == control_plane.version
    assert f"{version['major']}.{version['minor']}" == kubernetes_version
    assert set(control_plane.pids) == set(ALL)


def test_the_scheduler_binds_a_pod_to_a_node(namespace: Namespace, node: FakeNode) -> None:
    namespace.pod("p", nodeSelector={"kubernetes.io/hostname": node.name})
    bound = namespace.until("pods", "p", lambda pod: pod["spec"].get("nodeName"))
    assert bound["spec"]["nodeName"] == node.name
    assert is_true(bound, "PodScheduled")


def test_the_controllers_run_a_job(namespace: Namespace, node: FakeNode) -> None:
    template = {
        "restartPolicy": "Never",
        "nodeName": node.name,
        "containers": [{"name": "main", "image": "registry.example.com/busybox"}],
    }
    spec = {"completions": 3, "parallelism": 3, "completionMode": "Indexed"}
    namespace.api.post(
        namespace.path("jobs"),
        {"metadata": {"name": "j"}, "spec": {**spec, "template": {"spec": template}}},
    )
    where = f"{namespace.path('pods')}?labelSelector=job-name%3Dj"
    pods = namespace.api.until(where, lambda found: len(found["items"]) == 3)["items"]
    assert {pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] for pod in pods}
    for pod in pods:
        node.report(pod, "Succeeded", exit_code=0)
    done = namespace.until("jobs", "j", lambda job: is_true(job, "Complete"))
    assert done["status"]["succeeded"] == 3


def test_kubectl(control_plane: ControlPlane, namespace: Namespace) -> None:
    versions = json.loads(namespace.kubectl("version", "-o", "json").out)
    assert versions["serverVersion"]["gitVersion"] == control_plane.version
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    namespace.kubectl("apply", "-f", "-", stdin=json.dumps({**manifest, "data": {"a": "b"}}))
    assert namespace.kubectl("get", "configmap", "c", "-o", "jsonpath={.data.a}").out == "b"
    namespace.kubectl("delete", "configmap", "c")
    assert "not found" in namespace.kubectl("get", "configmap", "c", fails=True).err


def test_calls_are_counted(control_plane: ControlPlane, namespace: Namespace) -> None:
    since = audit.position(control_plane.audit_log)
    with contextlib.closing(Api(control_plane.kubeconfig, agent="counted/1")) as api:
        for _ in range(3):
            api.get(namespace.path("pods"))
        with pytest.raises(ApiError):
            api.get(namespace.path("pods", "none"))
    deadline = time.monotonic() + PATIENCE
    while (found := audit.calls(control_plane.audit_log, "counted/", since)).total() < 4:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    assert found == {"list pods 200": 3, "get pods 404": 1}


# -- who may do what -------------------------------------------------------------------------------


def refused(call: Any, *arguments: Any) -> int:
    with pytest.raises(ApiError) as caught:
        call(*arguments)
    return caught.value.code


def test_a_node_is_held_to_what_is_its_own(namespace: Namespace, node: FakeNode) -> None:
    for name in ("mine", "other"):
        namespace.api.post(namespace.path("secrets"), {"metadata": {"name": name}})
    reference = [{"name": "v", "secret": {"secretName": "mine"}}]
    namespace.pod("p", nodeName=node.name, volumes=reference)
    # The authoriser hears of the pod as everybody does: a moment later.
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(ApiError):
            node.api.get(namespace.path("secrets", "mine"))
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert refused(node.api.get, namespace.path("secrets", "other")) == 403
    assert refused(node.api.get, namespace.path("secrets")) == 403
    with fake_node(node.plane) as other:
        assert refused(node.api.patch, f"{other.path}/status", {"status": {}}) == 403
        elsewhere = namespace.pod("q", nodeName=other.name)
        assert refused(node.report, elsewhere, "Running") == 403


def test_a_bootstrap_token_buys_a_node_its_certificate(control_plane: ControlPlane) -> None:
    with contextlib.closing(control_plane.api(control_plane.bootstrap_kubeconfig())) as api:
        assert refused(api.get, "/api/v1/nodes") == 403
        key = ec.generate_private_key(ec.SECP256R1())
        asked = {
            "request": request(key, "system:node:new"),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"],
        }
        made = api.post(CSRS, {"metadata": {"generateName": "node-"}, "spec": asked})
        where = f"{CSRS}/{made['metadata']['name']}"
        signed = api.until(where, lambda csr: csr["status"].get("certificate"))
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    user = {
        "client-certificate-data": signed["status"]["certificate"],
        "client-key-data": base64_of(pem),
    }
    path = control_plane.folder / "bootstrapped.kubeconfig"
    write_kubeconfig(path, kubeconfig(control_plane.server, control_plane.ca.read_bytes(), user))
    with contextlib.closing(control_plane.api(path)) as api:
        review = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        who = api.post(review, {"apiVersion": "authentication.k8s.io/v1"})["status"]["userInfo"]
    assert who["username"] == "system:node:new"
    assert "system:nodes" in who["groups"]


def base64_of(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def request(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    subject = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
        x509.NameAttribute(NameOID.COMMON_NAME, name),
    ]
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    signed = made.sign(key, hashes.SHA256())
    return base64_of(signed.public_bytes(serialization.Encoding.PEM))


def test_a_service_account_may_do_what_its_rules_say(
    control_plane: ControlPlane, namespace: Namespace
) -> None:
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    path = control_plane.account_kubeconfig(namespace.name, "reader", rules)
    with contextlib.closing(control_plane.api(path)) as api:
        assert api.get(namespace.path("pods"))["items"] == []
        assert refused(api.get, namespace.path("secrets")) == 403
    path = control_plane.account_kubeconfig(namespace.name, "nobody")
    with contextlib.closing(control_plane.api(path)) as api:
        assert refused(api.get, namespace.path("pods")) == 403


def test_an_expired_certificate_is_nobodys(control_plane: ControlPlane) -> None:
    path = control_plane.expired_kubeconfig()
    with contextlib.closing(control_plane.api(path)) as api:
        assert refused(api.get, "/api/v1/nodes") == 401


# -- the way to a kubelet --------------------------------------------------------------------------


class Kubelet(http.server.ThreadingHTTPServer):
    """Answers every GET with who asks, over TLS with a certificate of this CA."""

    daemon_threads = True

    def __init__(self, plane: ControlPlane, signed_by: Authority) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        pair = signed_by.server("system:node:fake", ["127.0.0.1"], ["system:nodes"])
        folder = plane.folder / "kubelet"
        folder.mkdir(exist_ok=True)
        pair.write(folder, "serving")
        tls.load_cert_chain(folder / "serving.crt", folder / "serving.key")
        tls.load_verify_locations(plane.ca)
        tls.verify_mode = ssl.CERT_OPTIONAL
        self.socket = tls.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A handshake that the API server ends is not worth a traceback."""


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        subject = dict(part[0] for part in self.connection.getpeercert()["subject"])
        said = f"{subject['commonName']} asks for {self.path}\n".encode()
        if self.path == "/metrics/resource":
            said = usage().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: Any) -> None:
        pass


def usage() -> str:
    """Of a node that uses a quarter of a CPU."""
    now = time.time()
    used = {"node_cpu_usage_seconds_total": now / 4, "node_memory_working_set_bytes": 2**30}
    return "".join(f"{name} {value:.6f} {now * 1e3:.0f}\n" for name, value in used.items())


@contextlib.contextmanager
def kubelet(plane: ControlPlane, signed_by: Authority) -> Iterator[FakeNode]:
    server = Kubelet(plane, signed_by)
    with contextlib.closing(server.socket), in_thread(server.serve_forever, server.shutdown):
        with fake_node(plane, port=server.server_address[1]) as node:
            yield node


def test_kubectl_reaches_a_kubelet_on_loopback(
    control_plane: ControlPlane, namespace: Namespace
) -> None:
    with kubelet(control_plane, control_plane.authority) as node:
        node.report(namespace.pod("p", nodeName=node.name), "Running")
        said = namespace.kubectl("logs", "p").out
    assert said == f"{KUBELET_CLIENT} asks for /containerLogs/{namespace.name}/p/main\n"


def test_a_kubelet_with_a_foreign_certificate_is_not_believed(
    control_plane: ControlPlane, namespace: Namespace
) -> None:
    with kubelet(control_plane, Authority.new("foreign")) as node:
        node.report(namespace.pod("p", nodeName=node.name), "Running")
        said = namespace.kubectl("logs", "p", fails=True).err
    assert "certificate signed by unknown authority" in said


def test_kubectl_top_through_metrics_server(control_plane: ControlPlane) -> None:
    if METRICS not in control_plane.programs:
        pytest.skip("no metrics-server here: `make control-plane` builds it")
    with kubelet(control_plane, control_plane.authority) as node:
        control_plane.start_one(METRICS)
        try:
            where = f"/apis/metrics.k8s.io/v1beta1/nodes/{node.name}"
            with contextlib.closing(control_plane.api()) as api:
                # It takes two looks, ten seconds apart, to tell a rate.
                api.until(where, lambda found: found.get("usage"), limit=2 * PATIENCE)
            said = kubectl(control_plane, "top", "node", node.name, "--no-headers").out.split()
        finally:
            control_plane.stop_one(METRICS)
    assert said[0] == node.name
    assert 200 <= int(said[1].removesuffix("m")) <= 300
    assert said[3] == "1024Mi"


# -- trouble ---------------------------------------------------------------------------------------


def test_the_api_server_can_be_taken_away(
    control_plane: ControlPlane, namespace: Namespace
) -> None:
    namespace.pod("before")
    with control_plane.without("kube-apiserver"), pytest.raises(ConnectionError):
        namespace.api.get(namespace.path("pods"))
    assert phase(namespace.api.get(namespace.path("pods", "before"))) == "Pending"
    with control_plane.paused("kube-apiserver"):
        slow = namespace.api.connect(timeout=0.3)
        with contextlib.closing(slow), pytest.raises(TimeoutError):
            # The kernel takes the connection; nobody answers the handshake.
            slow.connect()
    assert namespace.api.request("GET", "/readyz")[0] == 200


def test_a_wrong_order_is_refused(control_plane: ControlPlane) -> None:
    with pytest.raises(handle.NotRunning, match="no such order"):
        control_plane.stop_one("kubelet")
    assert set(control_plane.pids) == set(ALL)
