"""`podbridge install`: what is printed, what is left out and told, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands_kit import home, invoke
from pydantic import BaseModel

from bridge.config import SecretRef, check_text
from bridge.errors import Invalid
from bridge.kubelet import rbac
from bridge.kubelet.manifests import in_cluster
from bridge.provider.registry import options_model

__all__ = ["home"]

pytestmark = pytest.mark.usefixtures("home")

FULL = """\
apiVersion: podbridge.io/v1
max_run: 90m
cluster:
  id: 6a0c1b3e-0000-4000-8000-000000000000
  kubeconfig: /here/kubeconfig
  context: dev
  client_ca: /here/ca.pem
  api_server_address: api.example.com:6443
provider:
  listen: 127.0.0.1:7443
nodes:
- name: west
  backends: [quick]
  labels: {team: a}
  region: eu-west-1
  address: 10.1.2.3
- name: all
  port: 10251
  serving: {cert: /here/c.pem, key: "file:/here/k.pem"}
backends:
- {name: quick, type: "null", cpu: "8", memory: 16Gi, max_pods: 40}
- {name: here, type: process, path: /opt/bin}
"""


def printed(*words: str, text: str = "") -> tuple[dict[str, Any], str]:
    """The objects by kind (the last of each), and what is told beside them."""
    if text:
        Path("podbridge.yaml").write_text(text)
    code, out, error = invoke("install", *words)
    assert code == 0, error
    return {one["kind"]: one for one in yaml.safe_load_all(out)}, error


def test_a_bare_type_is_enough() -> None:
    objects, told = printed("--on", "process")
    text = objects["ConfigMap"]["data"]["podbridge.yaml"]
    config = check_text(text, "printed", options_model)
    assert [(one.name, one.type) for one in config.backends] == [("process", "process")]
    assert config.cluster.identity == "service-account"
    assert "process: pods run inside the replica" in told


def test_the_configuration_goes_along_and_means_the_same() -> None:
    objects, told = printed(text=FULL)
    there = objects["ConfigMap"]["data"]["podbridge.yaml"]
    config = check_text(there, "printed", options_model)
    here = check_text(FULL, "here", options_model)
    assert config.max_run == here.max_run == 5400
    assert config.backends == here.backends
    assert config.backends[0].cpu == 8000
    assert [one.name for one in config.nodes] == ["west", "all"]
    assert config.nodes[0].model_copy(update={"address": here.nodes[0].address}) == here.nodes[0]
    assert config.cluster.id == here.cluster.id
    assert config.cluster.api_server_address == "api.example.com:6443"
    assert "/here" not in there
    for field in (
        *("cluster.kubeconfig", "cluster.context", "cluster.client_ca", "nodes[0].address"),
        *("nodes[1].serving.cert", "nodes[1].serving.key", "provider.listen"),
    ):
        assert field in told


def test_what_will_not_work_there_is_told() -> None:
    text = "apiVersion: podbridge.io/v1\nnodes: [{name: a, no_taint: true}]\nbackends:\n"
    _, told = printed(text=f"{text}- {{name: near, type: engine}}\n")
    assert "near: a replica has no container engine of its own" in told
    assert "no_taint: pods that need a real machine" in told
    _, told = printed(text=f"{text}- {{name: far, type: engine, host: 'tcp://10.0.0.9:2376'}}\n")
    assert "far: a replica" not in told


def test_only_the_configured_nodes_may_be_changed() -> None:
    objects, _ = printed(text=FULL)
    assert objects["ClusterRole"]["rules"] == rbac.rules(["west", "all"])
    assert objects["Role"]["rules"] == rbac.namespaced_rules(["west", "all"])["kube-node-lease"]
    ports = objects["NetworkPolicy"]["spec"]["ingress"][0]["ports"]
    assert [one["port"] for one in ports] == [10250, 10251]


def test_the_replicas() -> None:
    objects, _ = printed("--on", "process", "--image", "registry.example.com/p:1")
    spec = objects["Deployment"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["replicas"] == 2
    assert container["image"] == "registry.example.com/p:1"
    assert container["command"][-1] == "up"
    assert container["livenessProbe"]["exec"]["command"][-2:] == ["doctor", "--alive"]
    assert "tolerations" not in pod
    assert pod["enableServiceLinks"] is False
    address = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    assert address in container["env"]


def test_another_configuration_replaces_the_replicas() -> None:
    def digest(text: str) -> str:
        objects, _ = printed(text=text)
        template = objects["Deployment"]["spec"]["template"]
        return str(template["metadata"]["annotations"]["podbridge.io/config"])

    first = digest(FULL)
    assert digest(FULL) == first
    assert digest(FULL.replace("90m", "91m")) != first


def test_names_outside_the_namespace_tell_two_installations_apart() -> None:
    one, _ = printed("--on", "process")
    two, _ = printed("--on", "process", "--namespace", "other")
    for kind in ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "PriorityClass"):
        names = [both[kind]["metadata"]["name"] for both in (one, two)]
        assert names == ["podbridge", "podbridge-other"]


def test_a_namespace_that_every_cluster_has_is_not_described() -> None:
    objects, _ = printed("--on", "process", "--namespace", "kube-system")
    assert "Namespace" not in objects
    assert objects["Deployment"]["metadata"]["namespace"] == "kube-system"


def test_only_our_own_namespace_is_restricted() -> None:
    own, _ = printed("--on", "process")
    other, _ = printed("--on", "process", "-n", "other")
    key = "pod-security.kubernetes.io/enforce"
    assert own["Namespace"]["metadata"]["labels"][key] == "restricted"
    assert key not in other["Namespace"]["metadata"]["labels"]


@pytest.mark.parametrize(
    ("version", "api"),
    [("1.36", "v1"), ("v1.37.2", "v1"), ("1.35.4-eks-1", "v1beta1"), ("1.34", "v1beta1")],
)
def test_the_policy_is_of_the_version_that_there_is(version: str, api: str) -> None:
    objects, _ = printed("--on", "process", "--burst", "--kubernetes-version", version)
    policy, binding = (
        objects[kind] for kind in ("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding")
    )
    assert policy["apiVersion"] == binding["apiVersion"] == f"admissionregistration.k8s.io/{api}"
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]


def test_without_burst_there_is_no_policy() -> None:
    objects, _ = printed("--on", "process")
    assert "MutatingAdmissionPolicy" not in objects


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--on", "process", "--namespace", "Not A Name"], '--namespace: found "Not A Name"'),
        (["--on", "process", "--namespace", "n" * 51], "--namespace: found"),
        (["--on", "process", "--image", "x y"], '--image: found "x y"'),
        (["--on", "process", "--burst", "--kubernetes-version", "1.33"], "1.34 or newer"),
        (["--on", "process", "--kubernetes-version", "two"], '--kubernetes-version: found "two"'),
        (["--on", "nothing"], '--on: found "nothing"'),
        ([], "backends: no backend is configured"),
    ],
)
def test_bad_input(words: list[str], said: str) -> None:
    code, out, error = invoke("install", *words)
    assert code == 2
    assert said in error
    assert not out


def test_a_node_whose_backend_does_not_go_along() -> None:
    Path("podbridge.yaml").write_text(FULL)
    code, out, error = invoke("install", "--on", "here")
    assert code == 2
    assert 'nodes[0].backends: found "quick", which --on leaves out' in error
    assert not out


def test_a_path_of_this_machine_is_refused_by_its_field() -> None:
    Path("podbridge.yaml").write_text(
        "apiVersion: podbridge.io/v1\nbackends:\n- {name: p, type: process, root: /here/runs}\n"
    )
    code, out, error = invoke("install")
    assert code == 2
    assert "backends[0].root: found /here/runs, a place on this machine" in error
    assert not out


class Cloud(BaseModel):
    """Options of a backend that has secrets."""

    region: str
    key: SecretRef
    extra: dict[str, SecretRef] = {}


def cloud(key: str) -> Any:
    text = (
        "apiVersion: podbridge.io/v1\n"
        f"backends:\n- {{name: c, type: cloud, region: r, key: {json.dumps(key)},"
        ' extra: {a: "env:EXTRA"}}\n'
    )
    config = check_text(text, "here", lambda _: Cloud)
    return in_cluster(config, config.backends, lambda _: Cloud)


def test_a_secret_goes_along_by_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_KEY", "sentinel")
    settings = cloud("env:CLOUD_KEY")
    assert settings.variables == ("CLOUD_KEY", "EXTRA")
    assert "key: env:CLOUD_KEY" in settings.text
    assert "sentinel" not in settings.text


def test_a_secret_in_a_file_is_refused() -> None:
    with pytest.raises(Invalid) as caught:
        cloud("file:/here/key")
    (wrong,) = caught.value.violations
    assert wrong.field == "backends[0].key"
    assert "allowed in a cluster: env:NAME" in wrong.message


class Rounded(BaseModel):
    """Options that are not written as they are held."""

    size: int

    def model_post_init(self, _: Any) -> None:
        """Holds another value than it was given."""
        self.size += 1


def test_options_that_cannot_be_written_back_are_refused() -> None:
    text = "apiVersion: podbridge.io/v1\nbackends:\n- {name: c, type: cloud, size: 1}\n"
    config = check_text(text, "here", lambda _: Rounded)
    with pytest.raises(Invalid, match="options of type cloud cannot be written for a cluster"):
        in_cluster(config, config.backends, lambda _: Rounded)
