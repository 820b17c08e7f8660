"""Who the replicas are, and what they may do: what `bridge.kubelet.rbac` names, and about their own
nodes only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bridge.kubelet import rbac
from bridge.kubelet.manifests.limits import limits
from bridge.kubelet.manifests.parts import NAME, Names, Part, described

_GROUP = "rbac.authorization.k8s.io"
_API = f"{_GROUP}/v1"


def rights(names: Names, nodes: Sequence[str]) -> list[Part]:
    """The service account, its roles, what binds them, and what limits them. `nodes`: all that it
    may keep."""
    who = {"kind": "ServiceAccount", "name": NAME, "namespace": names.namespace}
    # The pod asks for its token by itself; no other pod of this account gets one unasked.
    account = described("v1", "ServiceAccount", NAME, names.namespace)
    account["automountServiceAccountToken"] = False
    everywhere = names.cluster
    parts = [
        Part(account),
        Part(
            described(_API, "ClusterRole", everywhere, rules=rbac.rules(nodes)),
            f"What keeping a node takes, and no more; only {', '.join(nodes)} may be changed.\n"
            "Pods may be on the node in any namespace, and RBAC knows no fields to tell them apart:"
            "\nwhat these refer to must be readable everywhere.",
        ),
        Part(_binding("ClusterRole", everywhere, everywhere, "", who)),
    ]
    for where, rules in rbac.namespaced_rules(nodes).items():
        role = described(_API, "Role", everywhere, where, rules=rules)
        parts.append(Part(role, "The nodes' heartbeats, which are the lock between the replicas."))
        parts.append(Part(_binding("Role", everywhere, everywhere, where, who)))
    reader = _binding("Role", rbac.CA_READER, everywhere, rbac.CA_NAMESPACE, who)
    words = "The CA that signs the API server's own client certificate: it calls for logs and exec."
    username = f"system:serviceaccount:{names.namespace}:{NAME}"
    return [*parts, Part(reader, words), *limits(everywhere, username, nodes)]


def _binding(
    kind: str, role: str, name: str, namespace: str, who: dict[str, Any]
) -> dict[str, Any]:
    return described(
        _API,
        "RoleBinding" if namespace else "ClusterRoleBinding",
        name,
        namespace,
        roleRef={"apiGroup": _GROUP, "kind": kind, "name": role},
        subjects=[who],
    )
