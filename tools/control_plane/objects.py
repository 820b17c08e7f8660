"""Objects that a control plane is given: who may do what, a bootstrap token, metrics-server. Pure.

Each comes with the path of the collection that it belongs to.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from tools.control_plane.components import KUBELET_CLIENT, METRICS

Object = dict[str, Any]
Placed = tuple[str, Object]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
METRICS_SERVICE = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"
GROUP = "rbac.authorization.k8s.io"
BOOTSTRAPPERS = "system:bootstrappers:podbridge"
"""The group of whoever shows a bootstrap token; the API server allows no other prefix."""


def user(name: str) -> Object:
    """A subject: one user."""
    return {"kind": "User", "apiGroup": GROUP, "name": name}


def group(name: str) -> Object:
    """A subject: all of a group."""
    return {"kind": "Group", "apiGroup": GROUP, "name": name}


def account(namespace: str, name: str) -> Object:
    """A subject: a service account."""
    return {"kind": "ServiceAccount", "namespace": namespace, "name": name}


def cluster_role(name: str, rules: Sequence[Mapping[str, Any]]) -> Placed:
    """What may be done, in all namespaces."""
    return f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": [*rules]}


def cluster_binding(name: str, role: str, subject: Object) -> Placed:
    """This subject may do what that cluster role says, in all namespaces."""
    return f"{RBAC}/clusterrolebindings", {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }


def namespaced(namespace: str, name: str, kind: str, role: str, subject: Object) -> Placed:
    """This subject may do in one namespace what a Role or ClusterRole says."""
    return f"{RBAC}/namespaces/{namespace}/rolebindings", {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role},
        "subjects": [subject],
    }


def always() -> list[Placed]:
    """What every control plane is given: the API server may call kubelets."""
    name = "podbridge:kube-apiserver-to-kubelet"
    return [cluster_binding(name, "system:kubelet-api-admin", user(KUBELET_CLIENT))]


def bootstrap(token_id: str, secret: str, life: datetime.timedelta) -> list[Placed]:
    """A bootstrap token, and what `kubeadm` grants with one: a node may ask for its certificate,
    gets it without anybody's look, and may renew it."""
    until = datetime.datetime.now(datetime.UTC) + life
    approvers = "system:certificates.k8s.io:certificatesigningrequests"
    return [
        (
            "/api/v1/namespaces/kube-system/secrets",
            {
                "metadata": {"name": f"bootstrap-token-{token_id}"},
                "type": "bootstrap.kubernetes.io/token",
                "stringData": {
                    "token-id": token_id,
                    "token-secret": secret,
                    "expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "usage-bootstrap-authentication": "true",
                    "auth-extra-groups": BOOTSTRAPPERS,
                },
            },
        ),
        cluster_binding(
            "podbridge:node-bootstrapper", "system:node-bootstrapper", group(BOOTSTRAPPERS)
        ),
        cluster_binding(
            "podbridge:approve-client", f"{approvers}:nodeclient", group(BOOTSTRAPPERS)
        ),
        cluster_binding(
            "podbridge:approve-renewal", f"{approvers}:selfnodeclient", group("system:nodes")
        ),
    ]


def metrics_rights() -> list[Placed]:
    """What metrics-server must be allowed to do before it starts."""
    rules = [
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
    ]
    who = user(METRICS)
    reader = "extension-apiserver-authentication-reader"
    return [
        cluster_role(f"podbridge:{METRICS}", rules),
        cluster_binding(f"podbridge:{METRICS}", f"podbridge:{METRICS}", who),
        cluster_binding(f"podbridge:{METRICS}-reviews", "system:auth-delegator", who),
        namespaced("kube-system", f"podbridge:{METRICS}", "Role", reader, who),
    ]


def metrics(port: int) -> list[Placed]:
    """The way to metrics-server. A Service that stands for a DNS name is the one kind that leads to
    this host: endpoints may not be in the loopback range."""
    return [
        (
            "/api/v1/namespaces/kube-system/services",
            {
                "metadata": {"name": METRICS},
                "spec": {
                    "type": "ExternalName",
                    "externalName": "localhost",
                    "ports": [{"port": port}],
                },
            },
        ),
        (
            METRICS_SERVICE.rpartition("/")[0],
            {
                "metadata": {"name": METRICS_SERVICE.rpartition("/")[2]},
                "spec": {
                    "group": "metrics.k8s.io",
                    "version": "v1beta1",
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                    "insecureSkipTLSVerify": True,
                    "service": {"namespace": "kube-system", "name": METRICS, "port": port},
                },
            },
        ),
    ]
