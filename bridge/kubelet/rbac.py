"""What a shim may do, as RBAC rules: no more than it calls. Pure.

A node's own identity (`cluster.identity: node`) needs none of this: the node authoriser lets it do
what its pods need, and NodeRestriction no more. A service account is not known to either, so that
what it reads cannot be limited to what its pods refer to: Secrets and ConfigMaps are all or nothing
here, which is the reason to prefer a node's identity.

Rules of a ClusterRole are `rules`; what is needed in one namespace only is in `namespaced_rules`,
for a Role each; beside them a RoleBinding in kube-system to the Role of every cluster that is
named `CA_READER`. Together they are all that a shim needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Rule = dict[str, Any]
"""A PolicyRule of rbac.authorization.k8s.io/v1."""
CA_READER = "extension-apiserver-authentication-reader"
"""The Role in kube-system, made by every API server, that lets whoever is bound to it read the CAs
of client certificates (`bridge.kubelet.serving.CAS`); not needed where cluster.client_ca is set."""
CA_NAMESPACE = "kube-system"
LEASE_NAMESPACE = "kube-node-lease"


def rules(nodes: Sequence[str] = ()) -> list[Rule]:
    """Of a ClusterRole. With names of nodes only those may be changed; the rest does not depend on
    them, as RBAC knows no field selectors."""
    return [
        # The Node is made, and made anew where somebody deletes it; never deleted by us. RBAC
        # cannot restrict by name what has none yet.
        _rule("", "nodes", "create"),
        # A watch of the one Node (metadata.name=NAME is authorised as that name), and a get where
        # it was made at the same time by somebody else, or before a Lease is made. Labels and
        # providerID are mended by a patch.
        _rule("", "nodes", "get", "list", "watch", "patch", names=nodes),
        _rule("", "nodes/status", "patch", names=nodes),
        # Pods bound to the node: followed, and deleted at the end of their handshake.
        _rule("", "pods", "list", "watch", "delete"),
        # Phase, conditions, container statuses, and annotations in the same call.
        _rule("", "pods/status", "patch"),
        # What environment and volumes refer to: each object listed and watched by its name.
        _rule("", ("configmaps", "secrets"), "list", "watch"),
        # Tokens of the pods' own service accounts, each bound to its pod.
        _rule("", "serviceaccounts/token", "create"),
        # The variables by which containers find Services.
        _rule("", "services", "list", "watch"),
        # Events of pods and of the node; one that comes again is counted up.
        _rule("", "events", "create", "patch"),
        # Who calls the kubelet's API, and whether they may: as system:auth-delegator has it.
        _rule("authentication.k8s.io", "tokenreviews", "create"),
        _rule("authorization.k8s.io", "subjectaccessreviews", "create"),
        # A serving certificate is asked for and fetched; approved by others.
        _rule("certificates.k8s.io", "certificatesigningrequests", "create", "get"),
        # The cluster's id, where cluster.id does not say it.
        _rule("", "namespaces", "get", names=[CA_NAMESPACE]),
    ]


def namespaced_rules(nodes: Sequence[str] = ()) -> dict[str, list[Rule]]:
    """Of a Role in each of these namespaces. With names of nodes only their Leases may be read and
    written."""
    return {
        # The heartbeat, which is the lock between replicas too. Only there: in other namespaces
        # Leases are the locks of other controllers.
        LEASE_NAMESPACE: [
            _rule("coordination.k8s.io", "leases", "create"),
            _rule("coordination.k8s.io", "leases", "get", "update", names=nodes),
        ]
    }


def _rule(
    group: str, resources: str | Sequence[str], *verbs: str, names: Sequence[str] = ()
) -> Rule:
    plain = [resources] if isinstance(resources, str) else [*resources]
    made: Rule = {"apiGroups": [group], "resources": plain, "verbs": [*verbs]}
    return made | ({"resourceNames": [*names]} if names else {})
