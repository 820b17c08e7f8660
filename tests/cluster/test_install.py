"""What `podbridge install` prints, at a real API server; and what `podbridge doctor` says there."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import node_kit
import pytest
import yaml
from control_plane_kit import (
    ControlPlane,
    FakeNode,
    Namespace,
    Object,
    fake_node,
    kubectl,
)
from node_kit import ROOT, Place, until

from tools.control_plane.api import MERGE, Api

pytestmark = pytest.mark.slow

TAINT = "virtual-kubelet.io/provider"
TOLERATION = {"key": TAINT, "operator": "Equal", "value": "podbridge", "effect": "NoSchedule"}
PREFERENCE = {
    "weight": 100,
    "preference": {
        "matchExpressions": [{"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]}]
    },
}


@pytest.fixture
def place(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Place]:
    with node_kit.place(control_plane, tmp_path) as made:
        yield made


def run(place: Place, *words: str) -> subprocess.CompletedProcess[str]:
    """A command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "podbridge", *words],
        cwd=ROOT,
        env=place.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def podbridge(place: Place, *words: str, code: int = 0) -> str:
    """What a command prints; it ends with this exit code."""
    done = run(place, *words)
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


@contextlib.contextmanager
def installed(
    place: Place, namespace: Namespace, *flags: str, **settings: Any
) -> Iterator[list[Object]]:
    """The objects, applied in this namespace while the test runs."""
    config = place.config(**settings)
    words = ("--config", str(config), "install", "--namespace", namespace.name, *flags)
    text = podbridge(place, *words)
    # Nothing is stored yet: each object by itself is what the API server takes.
    kubectl(place.plane, "apply", "--dry-run=server", "-f", "-", stdin=text)
    kubectl(place.plane, "apply", "-f", "-", stdin=text)
    try:
        yield list(yaml.safe_load_all(text))
    finally:
        kubectl(place.plane, "delete", "--wait=false", "--ignore-not-found", "-f", "-", stdin=text)


def replicas(namespace: Namespace) -> list[Object]:
    """The pods of the Deployment, once both are there."""
    path = f"{namespace.path('pods')}?labelSelector=app.kubernetes.io/name%3Dpodbridge"

    def both() -> list[Object]:
        found: list[Object] = namespace.api.get(path)["items"]
        return found if len(found) == 2 else []

    found: list[Object] = until(both, "two replicas are made")
    return found


def test_the_api_server_takes_every_object_and_makes_two_restricted_replicas(
    place: Place, namespace: Namespace
) -> None:
    level = "pod-security.kubernetes.io/enforce=restricted"
    kubectl(place.plane, "label", "namespace", namespace.name, level)
    with installed(place, namespace) as objects:
        kinds = [one["kind"] for one in objects]
        assert kinds == [
            *("Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role"),
            *("RoleBinding", "RoleBinding", "ValidatingAdmissionPolicy"),
            *("ValidatingAdmissionPolicyBinding", "ConfigMap", "PriorityClass", "Deployment"),
            *("PodDisruptionBudget", "NetworkPolicy"),
        ]
        made = replicas(namespace)
        assert {one["spec"]["serviceAccountName"] for one in made} == {"podbridge"}
        assert {one["spec"]["priority"] for one in made} == {1_000_000_000}


def test_no_replica_lands_on_a_virtual_node(place: Place, namespace: Namespace) -> None:
    with fake_node(place.plane) as virtual:
        # Without any taint, as with `no_taint`: the label alone keeps them away.
        place.api.patch(virtual.path, {"metadata": {"labels": {"type": "virtual-kubelet"}}})
        with installed(place, namespace):
            for one in replicas(namespace):
                namespace.until("pods", one["metadata"]["name"], is_unschedulable)
            with fake_node(place.plane) as real:
                for one in replicas(namespace):
                    name = one["metadata"]["name"]
                    bound = namespace.until("pods", name, lambda pod: pod["spec"].get("nodeName"))
                    assert bound["spec"]["nodeName"] == real.name


def is_unschedulable(pod: Object) -> bool:
    return node_kit.condition(pod, "PodScheduled").get("reason") == "Unschedulable"


# What --burst does to pods.


def burst_pod(namespace: Namespace, name: str, **spec: Any) -> tuple[list[Object], Object]:
    """Tolerations (but those that every pod gets) and affinity of a new pod."""
    spec.setdefault("tolerations", [])
    made = namespace.pod(name, **spec)["spec"]
    own = [one for one in made["tolerations"] if not one.get("key", "").startswith("node.")]
    return own, made.get("affinity", {})


def prefers(*terms: Object, **more: Any) -> Object:
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [*terms], **more}}


@pytest.fixture
def bursting(place: Place, namespace: Namespace) -> Iterator[Namespace]:
    """A namespace whose pods burst."""
    version = place.plane.version.removeprefix("v")
    with installed(place, namespace, "--burst", "--kubernetes-version", version):
        label = "podbridge.io/burst=enabled"
        kubectl(place.plane, "label", "namespace", namespace.name, label)
        # The API server learns of policies a moment later than it stores them.
        numbers = iter(range(10_000))
        until(lambda: burst_pod(namespace, f"probe-{next(numbers)}")[0], "the policy is in force")
        yield namespace


def test_burst_adds_just_a_toleration_and_a_preference(bursting: Namespace) -> None:
    other = {"key": "gpu", "operator": "Exists"}
    disk = {
        "weight": 1,
        "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]},
    }
    must = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    apart = {"podAntiAffinity": {required: [{"topologyKey": "zone", "labelSelector": {}}]}}
    cases: list[tuple[Object, list[Object], Object]] = [
        ({}, [TOLERATION], prefers(PREFERENCE)),
        ({"affinity": {}}, [TOLERATION], prefers(PREFERENCE)),
        ({"affinity": {"nodeAffinity": {}}}, [TOLERATION], prefers(PREFERENCE)),
        ({"tolerations": [other]}, [other, TOLERATION], prefers(PREFERENCE)),
        ({"affinity": apart}, [TOLERATION], {**apart, **prefers(PREFERENCE)}),
        ({"affinity": prefers(disk)}, [TOLERATION], prefers(disk, PREFERENCE)),
        (
            {"affinity": {"nodeAffinity": {required: must}}},
            [TOLERATION],
            prefers(PREFERENCE, **{required: must}),
        ),
    ]
    for number, (given, tolerations, affinity) in enumerate(cases):
        assert burst_pod(bursting, f"given-{number}", **given) == (tolerations, affinity), given


def test_burst_leaves_alone_what_a_pod_says_itself(bursting: Namespace) -> None:
    everything = {"operator": "Exists"}
    all_of_it = {"key": TAINT, "operator": "Exists"}
    stays = {"key": TAINT, "operator": "Exists", "effect": "NoExecute"}
    other = {"key": TAINT, "operator": "Equal", "value": "azure"}
    virtual = {
        "weight": 5,
        "preference": {
            "matchExpressions": [{"key": "type", "operator": "In", "values": ["virtual-kubelet"]}]
        },
    }
    for name, given, wanted in (
        ("everything", everything, [everything]),
        ("all", all_of_it, [all_of_it]),
        ("effect", stays, [stays, TOLERATION]),
        ("other", other, [other, TOLERATION]),
    ):
        assert burst_pod(bursting, name, tolerations=[given])[0] == wanted
    assert burst_pod(bursting, "virtual", affinity=prefers(virtual))[1] == prefers(virtual)


def test_burst_leaves_other_pods_alone(place: Place, bursting: Namespace, node: FakeNode) -> None:
    assert burst_pod(bursting, "bound", nodeName=node.name) == ([], {})
    body = {
        "metadata": {"name": "not-me", "labels": {"podbridge.io/burst": "disabled"}},
        "spec": {"containers": [{"name": "main", "image": "registry.example.com/busybox"}]},
    }
    assert "affinity" not in place.api.post(bursting.path("pods"), body)["spec"]
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u"}
    body["metadata"] = {"name": "of-a-daemonset", "ownerReferences": [owner]}
    assert "affinity" not in place.api.post(bursting.path("pods"), body)["spec"]
    kubectl(place.plane, "label", "namespace", bursting.name, "podbridge.io/burst-")
    until(
        lambda: burst_pod(bursting, f"p-{node_kit.uuid.uuid4().hex[:8]}") == ([], {}),
        "pods of a namespace without the label are left alone",
    )


# The rights that are printed, and what is told of a node.


def findings(place: Place, *words: str, code: int) -> dict[str, list[Object]]:
    """What doctor says, by what was looked at, without the node's name."""
    found = json.loads(podbridge(place, *words, "-o", "json", code=code))
    assert found["ok"] is (code == 0)
    out: dict[str, list[Object]] = {}
    for one in found["findings"]:
        out.setdefault(one["look"].replace(f" {place.name}", ""), []).append(one)
    return out


def levels(found: dict[str, list[Object]]) -> dict[str, set[str]]:
    return {look: {one["level"] for one in some} for look, some in found.items()}


def test_the_printed_account_keeps_a_node_and_doctor_says_what_it_lacks(
    place: Place, namespace: Namespace
) -> None:
    mine = place.node_config(serving={})
    with installed(place, namespace, nodes=[mine]) as objects:
        (printed,) = (one for one in objects if one["kind"] == "ConfigMap")
        account = place.plane.account_kubeconfig(namespace.name, "podbridge")
        config = in_this_place(place, printed["data"]["podbridge.yaml"], mine, account)
        doctor = ("--config", str(config), "doctor")
        admin = (*doctor, "--kubeconfig", str(place.plane.kubeconfig))

        before = findings(place, *doctor, code=1)
        assert levels(before)["permissions for"] == {"ok"}
        assert before["identity"][0]["message"].startswith(
            f"system:serviceaccount:{namespace.name}:podbridge"
        )
        assert before["node"][0]["message"] == "there is none"

        up = place.start("--config", str(config), "up")
        place.ready(process=up)
        refers(place, namespace)
        place.pod(namespace, "p", "echo $FROM_CONFIG $FROM_SECRET; sleep 1000", **REFERRING)
        place.running(namespace, "p")

        who = f"system:serviceaccount:{namespace.name}:podbridge"
        until(
            lambda: [
                one for one in place.api.get(REQUESTS)["items"] if one["spec"]["username"] == who
            ],
            "a certificate is asked for",
        )
        unverified = findings(place, *admin, code=1)
        (broken,) = unverified["API of"]
        assert broken["message"].startswith("logs and exec will not work: the API server cannot")
        assert "does not verify the certificate" in broken["message"]
        assert broken["message"].endswith("; pods still run")
        assert unverified["certificate of"][0]["message"].startswith("self-signed")
        # Just what it says is to be done.
        (waiting,) = unverified["certificate requests of"]
        assert waiting["advice"].startswith("kubectl certificate approve podbridge-serving-")
        kubectl(place.plane, *waiting["advice"].split()[1:])
        until(lambda: log(namespace, "p") == "from a config from a secret\n", "the log is read")

        well = findings(place, *admin, code=0)
        assert levels(well)["node"] == {"ok"}
        assert levels(well)["lease of"] == {"ok"}
        assert levels(well)["certificate of"] == {"ok"}
        assert levels(well)["backend process"] == {"ok"}
        # Who keeps the node may not look at all of it, and that is no problem.
        assert levels(findings(place, *doctor, code=0))["API of"] == {"note"}
        podbridge(place, "--config", str(config), "doctor", "--alive")
        assert up.stop() == 0
        podbridge(place, "--config", str(config), "doctor", "--alive", code=1)
        stopped = findings(place, *admin, code=1)
        assert "connection refused" in stopped["API of"][0]["message"]
        assert stopped["lease of"][0]["message"] == "handed over, and nobody has taken it"


REQUESTS = (
    "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    "?fieldSelector=spec.signerName%3Dkubernetes.io/kubelet-serving"
)
REFERRING: Object = {
    "containers": [
        {
            **node_kit.container("echo $FROM_CONFIG $FROM_SECRET; sleep 1000"),
            "env": [
                {
                    "name": "FROM_CONFIG",
                    "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}},
                },
                {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ],
        }
    ]
}


def refers(place: Place, namespace: Namespace) -> None:
    """What that pod refers to."""
    for kind, name, value in (
        ("configmaps", "c", {"data": {"k": "from a config"}}),
        ("secrets", "s", {"stringData": {"k": "from a secret"}}),
    ):
        place.api.post(namespace.path(kind), {"metadata": {"name": name}, **value})


def in_this_place(place: Place, text: str, node: Object, account: Path) -> Path:
    """The configuration that was printed, where no pod is: only how the cluster is reached, and
    where the node listens, is of this place."""
    full = yaml.safe_load(text)
    assert full["cluster"].pop("identity") == "service-account"
    full["cluster"] |= {"kubeconfig": str(account), "state": str(place.folder / "nodes")}
    (only,) = full["nodes"]
    assert only["name"] == node["name"]
    only |= {key: node[key] for key in ("address", "serving") if key in node}
    path = place.folder / "printed.yaml"
    path.write_text(json.dumps(full))
    return path


def log(namespace: Namespace, pod: str) -> str:
    """What it says; empty while it cannot be read."""
    code, body = namespace.api.request("GET", f"{namespace.path('pods', pod)}/log")
    return body.decode() if code == 200 else ""


def test_the_printed_account_writes_only_what_is_its_own(
    place: Place, namespace: Namespace, node: FakeNode
) -> None:
    mine = place.node_config()
    with installed(place, namespace, nodes=[mine]) as objects:
        (printed,) = (one for one in objects if one["kind"] == "ConfigMap")
        (policy,) = (one for one in objects if one["kind"] == "ValidatingAdmissionPolicy")
        account = place.plane.account_kubeconfig(namespace.name, "podbridge")
        own = {"metadata": {"name": "elsewhere"}, "spec": {"holderIdentity": "somebody"}}
        with contextlib.closing(Api(account)) as api:

            def said(method: str, path: str, body: Object | None = None) -> str:
                """Why it is denied; empty: it is not. Nothing is stored."""
                kind = MERGE if method == "PATCH" else "application/json"
                code, answer = api.request(method, f"{path}?dryRun=All", body, kind)
                assert code in (200, 201, 403), answer
                return json.loads(answer)["message"] if code == 403 else ""

            # An API server hears of a new policy a moment later.
            until(lambda: said("POST", node_kit.LEASES, own), "the policy is in force")

            config = in_this_place(place, printed["data"]["podbridge.yaml"], mine, account)
            up = place.start("--config", str(config), "up")
            place.ready(process=up)
            place.serves(process=up)
            refers(place, namespace)
            place.pod(namespace, "p", **REFERRING)
            place.running(namespace, "p")
            assert log(namespace, "p") == "from a config from a secret\n"
            place.api.delete(place.path())
            until(place.node, "the node is made anew")
            place.pod(namespace, "q", f"cat {TOKEN}; exec sleep 1000")
            here = place.running(namespace, "q")
            there = place.pod(namespace, "r", node=node.name)

            only = f"this account keeps only {place.name}"
            pods = namespace.path("pods")
            denied = said("DELETE", f"{pods}/r")
            assert f"the pod {namespace.name}/r is on the node {node.name}: {only}" in denied
            failed = {"status": {"phase": "Failed"}}
            assert only in said("PATCH", f"{pods}/r/status", failed)
            assert said("PATCH", f"{pods}/q/status", {"status": {"message": "well"}}) == ""
            labelled = {"metadata": {"labels": {"a": "b"}}}
            assert "its labels are not its status" in said("PATCH", f"{pods}/q/status", labelled)
            assert f"the node elsewhere: {only}" in said(
                "POST", "/api/v1/nodes", {"metadata": {"name": "elsewhere"}}
            )
            lease = f"the Lease kube-node-lease/elsewhere: {only}"
            assert lease in said("POST", node_kit.LEASES, own)

            tokens = f"{namespace.path('serviceaccounts', 'default')}/token"

            def bound(**to: str) -> Object:
                return {"spec": {"audiences": [], "boundObjectRef": to} if to else {}}

            pod = {"apiVersion": "v1", "kind": "Pod", "name": "q"}
            uid = here["metadata"]["uid"]
            words = f"the token of {namespace.name}/default must be bound to a pod"
            assert words in said("POST", tokens, bound())
            assert words in said("POST", tokens, bound(**pod))
            secret = {"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": uid}
            assert words in said("POST", tokens, bound(**secret))
            assert said("POST", tokens, bound(**pod, uid=uid)) == ""

            # Nobody else is meant by it.
            assert there["metadata"]["name"] == "r"
            place.api.delete(f"{pods}/r", grace=0)
            place.api.delete(f"{pods}/q", grace=1)
            place.gone(namespace, "q")
            assert up.stop() == 0
        stored = place.api.get(f"{POLICIES}/{policy['metadata']['name']}")
        assert not stored.get("status", {}).get("typeChecking", {}).get("expressionWarnings")


POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"


def test_doctor_names_each_permission_that_is_missing(place: Place) -> None:
    nobody = place.plane.account_kubeconfig("kube-system", "may-nothing")
    config = place.config(kubeconfig=nobody)
    found = findings(place, "--config", str(config), "doctor", code=1)
    said = {one["message"] for one in found["permissions for"]}
    assert f"may not get, list, watch, patch nodes {place.name}" in said
    assert "may not patch pods/status" in said
    assert "may not create leases.coordination.k8s.io in kube-node-lease" in said
    assert levels(found)["node"] == {"note"}


def test_doctor_knows_a_node_of_somebody_else(place: Place, node: FakeNode) -> None:
    config = place.config(nodes=[{"name": node.name}], kubeconfig=place.plane.kubeconfig)
    words = ("--config", str(config), "doctor", "-o", "json")
    found = json.loads(podbridge(place, *words, code=1))["findings"]
    (one,) = (one for one in found if one["look"] == f"node {node.name}")
    assert one["message"].startswith("it is kept by a kubelet v1.")
    assert one["level"] == "problem"


def test_doctor_knows_what_a_node_may(place: Place) -> None:
    uid = place.api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"]
    known = {"id": uid, "client_ca": place.plane.ca}
    own = place.config(kubeconfig=place.plane.node_kubeconfig(place.name), cluster=known)
    found = findings(place, "--config", str(own), "doctor", code=1)
    assert found["identity"][0]["message"].startswith(f"system:node:{place.name} ")
    assert levels(found)["permissions for"] == {"ok"}

    bootstrap = place.plane.bootstrap_kubeconfig()
    asking = {"identity": "node", "bootstrap_kubeconfig": bootstrap, "kubeconfig": None}
    first = place.config(cluster={**known, **asking})
    found = findings(place, "--config", str(first), "doctor", code=1)
    (lacking,) = found["client certificate of"]
    assert lacking["message"].startswith("there is none in ")
    # It looked, and asked for nothing.
    assert found["identity"][0]["message"].startswith("system:bootstrap:")
    assert not list((place.folder / "nodes").rglob("*.key"))


def test_doctor_refuses_a_kubeconfig_whose_certificate_is_over(place: Place) -> None:
    config = place.config(kubeconfig=place.plane.expired_kubeconfig())
    done = run(place, "--config", str(config), "doctor")
    assert (done.returncode, done.stdout) == (2, "")
    assert "users[0].user.client-certificate-data: the certificate expired at" in done.stderr
    assert "Traceback" not in done.stderr
