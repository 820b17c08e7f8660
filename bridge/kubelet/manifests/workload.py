"""The replicas themselves: namespace, configuration, Deployment, and what protects them."""

from __future__ import annotations

import hashlib
from typing import Any

from bridge.kubelet.manifests.parts import CONFIG, EXISTING, NAME, STATE, Names, Part, described
from bridge.kubelet.manifests.settings import InCluster

REPLICAS = 2
PRIORITY = 1_000_000_000
"""The highest that is not the system's own. The system's classes would do too, but some clouds let
nobody use them outside kube-system without a ResourceQuota: no replica would ever be made."""
USER = 65532
"""A user that no image gives rights to."""
_FILE = f"{CONFIG}/podbridge.yaml"
_SELECTOR = {"app.kubernetes.io/name": NAME}


def namespace(names: Names) -> list[Part]:
    """The Namespace, unless every cluster has it."""
    if names.namespace in EXISTING:
        return []
    made = described("v1", "Namespace", names.namespace)
    if names.namespace == NAME:
        # Only of the one that is ours alone: another one may hold pods that need more.
        level = {f"pod-security.kubernetes.io/{one}": "restricted" for one in ("enforce", "warn")}
        made["metadata"]["labels"] = level
    return [Part(made)]


def workload(names: Names, settings: InCluster, image: str) -> list[Part]:
    """Everything but the namespace and the rights."""
    config = described(
        "v1", "ConfigMap", NAME, names.namespace, data={"podbridge.yaml": settings.text}
    )
    priority = described("scheduling.k8s.io/v1", "PriorityClass", names.cluster)
    priority |= {"value": PRIORITY, "description": "Keeps virtual nodes, as a kubelet keeps a node"}
    return [
        Part(config),
        Part(
            priority, "Without the replicas their nodes are lost: almost everything else can wait."
        ),
        Part(_deployment(names, settings, image)),
        Part(
            described(
                "policy/v1",
                "PodDisruptionBudget",
                NAME,
                names.namespace,
                spec={
                    "maxUnavailable": 1,
                    # One that is broken must not keep a machine from being drained.
                    "unhealthyPodEvictionPolicy": "AlwaysAllow",
                    "selector": {"matchLabels": _SELECTOR},
                },
            ),
            "A drain takes one replica at a time.",
        ),
        Part(
            _network_policy(names, settings),
            "The API server and metrics-server may come in, by the port of the kubelet's API alone."
            "\nFrom everywhere, because no selector names an API server: it is in no pod network."
            "\nThe API answers nobody whom the API server does not vouch for. Nothing is said of"
            "\nwhat goes out.",
        ),
    ]


def _deployment(names: Names, settings: InCluster, image: str) -> dict[str, Any]:
    digest = hashlib.sha256(settings.text.encode()).hexdigest()[:16]
    template = {
        "metadata": {
            "labels": dict(_SELECTOR),
            # A changed configuration is a new template: the replicas are replaced, one by one.
            "annotations": {"podbridge.io/config": digest},
        },
        "spec": {
            "serviceAccountName": NAME,
            "automountServiceAccountToken": True,
            "priorityClassName": names.cluster,
            # No toleration of our taint, and no node that has none: a replica on its own node would
            # end with it.
            "affinity": _affinity(),
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 30,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(settings, image)],
            "volumes": [
                {"name": "config", "configMap": {"name": NAME}},
                {"name": "state", "emptyDir": {}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    }
    spec = {
        "replicas": REPLICAS,
        "selector": {"matchLabels": _SELECTOR},
        # The new one waits for the Lease before an old one hands it over.
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
        },
        "template": template,
    }
    return described("apps/v1", "Deployment", NAME, names.namespace, spec=spec)


def _affinity() -> dict[str, Any]:
    real = {"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]}
    linux = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
    apart = {
        "labelSelector": {"matchLabels": _SELECTOR},
        "topologyKey": "kubernetes.io/hostname",
    }
    return {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [real, linux]}]
            }
        },
        "podAntiAffinity": {
            # Preferred: a cluster of one machine still gets both.
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 100, "podAffinityTerm": apart}
            ]
        },
    }


def _container(settings: InCluster, image: str) -> dict[str, Any]:
    alive = {"exec": {"command": ["podbridge", "--config", _FILE, "doctor", "--alive"]}}
    variables: list[dict[str, Any]] = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "HOME", "value": STATE},
        {"name": "XDG_STATE_HOME", "value": STATE},
    ]
    variables += [
        {"name": one, "valueFrom": {"secretKeyRef": {"name": NAME, "key": one}}}
        for one in settings.variables
    ]
    return {
        "name": NAME,
        "image": image,
        "command": ["podbridge", "--config", _FILE, "up"],
        "env": variables,
        "ports": [
            {"name": f"kubelet-{index}", "containerPort": port}
            for index, port in enumerate(settings.ports)
        ],
        # Each looks at its own process only: nothing else's trouble may end a replica. The first
        # one has time for the API server and the provider to answer. Each is a new Python, so the
        # others come rarely: who hangs has lost the Lease to the other replica long before.
        "startupProbe": alive | _times(period=2, failures=30),
        "readinessProbe": alive | _times(period=30, failures=2),
        "livenessProbe": alive | _times(period=60, failures=3),
        # 200 MB are enough for 5,000 pods. No limit of cpu: heartbeats must not be throttled.
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"memory": "512Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG, "readOnly": True},
            {"name": "state", "mountPath": STATE},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
        ],
    }


def _times(*, period: int, failures: int) -> dict[str, int]:
    # Seconds. A new Python takes a part of one; a machine with much else to do, some.
    return {"periodSeconds": period, "timeoutSeconds": 10, "failureThreshold": failures}


def _network_policy(names: Names, settings: InCluster) -> dict[str, Any]:
    ports = [{"protocol": "TCP", "port": port} for port in settings.ports]
    spec = {
        "podSelector": {"matchLabels": _SELECTOR},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": ports}],
    }
    return described("networking.k8s.io/v1", "NetworkPolicy", NAME, names.namespace, spec=spec)
