"""What RBAC cannot say of the service account, said at admission: as NodeRestriction has it for a
node's own identity, its writes are about its own nodes and about what is on them.

A ValidatingAdmissionPolicy, evaluated inside the API server. It sees one request and the object
that this changes, and nothing beside: a TokenRequest names a pod, and not the node of that pod.
That the pod exists, by its UID, and runs as that account, the API server asks by itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bridge.kubelet import rbac
from bridge.kubelet.manifests.parts import Part, described

API = "admissionregistration.k8s.io/v1"
"""Of the policy, from Kubernetes 1.30 on."""

# What is in no namespace has no such field.
_ASKED = 'request.?namespace.optMap(n, n + "/").orValue("") + request.name'
# The other kinds have no such field, which the API server would say of the policy.
_BOUND = """\
["kind", "apiVersion", "name", "uid"].all(f,
  dyn(object).spec.?boundObjectRef[?f].orValue("") != "") &&
dyn(object).spec.boundObjectRef.kind == "Pod" && dyn(object).spec.boundObjectRef.apiVersion == "v1"
"""


def limits(name: str, username: str, nodes: Sequence[str]) -> list[Part]:
    """The policy and its binding, of this name: what a user, as the API server knows it, may write
    that keeps these nodes."""
    kept = ", ".join(nodes)
    words = (
        f"The account's writes are about {kept} only: these Nodes and Leases, the pods that are on"
        "\nthem, and tokens that end with a pod. What it reads is not limited by this."
    )
    binding = {"policyName": name, "validationActions": ["Deny"]}
    policy = _policy(username, nodes)
    return [
        Part(described(API, "ValidatingAdmissionPolicy", name, spec=policy), words),
        Part(described(API, "ValidatingAdmissionPolicyBinding", name, spec=binding)),
    ]


def _policy(username: str, nodes: Sequence[str]) -> dict[str, Any]:
    kept = f"this account keeps only {', '.join(nodes)}"
    on_node = 'variables.pod.spec.?nodeName.orValue("")'
    return {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                _rule("", ["nodes", "nodes/status"], "CREATE", "UPDATE", "DELETE"),
                _rule("", ["pods", "pods/*"], "UPDATE", "DELETE"),
                _rule("", ["serviceaccounts/token"], "CREATE"),
                _rule("coordination.k8s.io", ["leases"], "CREATE", "UPDATE", "DELETE"),
            ]
        },
        "matchConditions": [
            {
                "name": "this-account",
                "expression": f"request.userInfo.username == {json.dumps(username)}",
            }
        ],
        "variables": [
            {"name": "nodes", "expression": json.dumps(list(nodes))},
            {"name": "kind", "expression": "request.resource.resource"},
            {"name": "asked", "expression": _ASKED},
            {"name": "pod", "expression": 'variables.kind == "pods" ? oldObject : null'},
        ],
        "validations": [
            _validation(
                'variables.kind == "nodes"',
                "request.name in variables.nodes",
                f'"the node " + variables.asked + ": {kept}"',
            ),
            _validation(
                'variables.kind == "leases"',
                f'request.namespace == "{rbac.LEASE_NAMESPACE}" && request.name in variables.nodes',
                f'"the Lease " + variables.asked + ": {kept}"',
            ),
            _validation(
                'variables.kind == "pods"',
                f"{on_node} in variables.nodes",
                f'"the pod " + variables.asked + " is on "'
                f' + ({on_node} == "" ? "no node" : "the node " + {on_node}) + ": {kept}"',
            ),
            _validation(
                'variables.kind == "pods" && request.?subResource.orValue("") == "status"',
                "object.metadata.?labels.orValue({}) == oldObject.metadata.?labels.orValue({})",
                '"the pod " + variables.asked + ": its labels are not its status"',
            ),
            _validation(
                'variables.kind == "serviceaccounts"',
                _BOUND,
                '"the token of " + variables.asked + " must be bound to a pod, by name and UID"',
            ),
        ],
    }


def _rule(group: str, resources: Sequence[str], *operations: str) -> dict[str, Any]:
    return {
        "apiGroups": [group],
        "apiVersions": ["v1"],
        "operations": [*operations],
        "resources": [*resources],
    }


def _validation(where: str, holds: str, message: str) -> dict[str, Any]:
    """`message`, an expression, where it does not hold. Forbidden, as RBAC would say it: a client
    that knows what 403 means needs no other word."""
    return {
        "expression": f"!({where}) || ({holds.strip()})",
        "messageExpression": message,
        "reason": "Forbidden",
    }
