"""Bursting: pods of namespaces that ask for it run on real nodes while there is room there, and on
virtual ones after that.

A MutatingAdmissionPolicy does it, inside the API server: no webhook of ours that could be away. It
gives a pod the toleration of virtual nodes' taint and the preference for real ones. JSON patches,
because `tolerations` is one atomic list, which an apply configuration may not touch; and a pod that
says either by itself is left as it is there.
"""

from __future__ import annotations

import json
from typing import Any

from bridge.errors import Invalid, Violation
from bridge.kubelet.manifests.parts import Part, described
from bridge.kubelet.node import TAINT

LABEL = "podbridge.io/burst"
"""On a namespace: `enabled`. On a pod there: `disabled` leaves it as it is."""
POLICY = "podbridge-burst"
STABLE = 36
"""The minor version from which every API server has the policy as v1."""
FIRST = 34
"""The minor version that has it as v1beta1, where the administrator has switched that on."""

_KEY = TAINT["key"]
_TOLERATES = f"""\
has(object.spec.tolerations) && object.spec.tolerations.exists(t,
  (!has(t.key) || t.key == "" || t.key == "{_KEY}") &&
  (!has(t.effect) || t.effect == "" || t.effect == "NoSchedule") &&
  ((has(t.operator) && t.operator == "Exists") ||
    (has(t.value) && t.value == "{TAINT["value"]}")))"""
_TOLERATION = json.dumps(TAINT | {"operator": "Equal"})
_TOLERATE = """\
variables.tolerates ? [] :
has(object.spec.tolerations)
  ? [JSONPatch{op: "add", path: "/spec/tolerations/-", value: variables.toleration}]
  : [JSONPatch{op: "add", path: "/spec/tolerations", value: [variables.toleration]}]
"""

_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_NODE = "object.spec.affinity.nodeAffinity"
_PREFERS = f"""\
has(object.spec.affinity) && has({_NODE}) && has({_NODE}.{_PREFERRED}) &&
{_NODE}.{_PREFERRED}.exists(t,
  has(t.preference.matchExpressions) && t.preference.matchExpressions.exists(e, e.key == "type"))"""


# CEL wants the values of a map to be of one type, or each to be dyn. The weight is the greatest
# that there is: whatever else a pod prefers is about which real node.
_TERM = """\
{"weight": dyn(100), "preference": dyn({"matchExpressions": [
  {"key": dyn("type"), "operator": dyn("NotIn"), "values": dyn(["virtual-kubelet"])}]})}"""
_PREFER = f"""\
variables.prefers ? [] :
!has(object.spec.affinity)
  ? [JSONPatch{{op: "add", path: "/spec/affinity", value:
      {{"nodeAffinity": {{"{_PREFERRED}": [variables.term]}}}}}}] :
!has({_NODE})
  ? [JSONPatch{{op: "add", path: "/spec/affinity/nodeAffinity", value:
      {{"{_PREFERRED}": [variables.term]}}}}] :
!has({_NODE}.{_PREFERRED})
  ? [JSONPatch{{op: "add", path: "/spec/affinity/nodeAffinity/{_PREFERRED}", value:
      [variables.term]}}]
  : [JSONPatch{{op: "add", path: "/spec/affinity/nodeAffinity/{_PREFERRED}/-", value:
      variables.term}}]
"""


def api_version(minor: int) -> str:
    """Of the policy in Kubernetes 1.MINOR. Invalid: that has none."""
    if minor < FIRST:
        words = f"found 1.{minor}; allowed with --burst: 1.{FIRST} or newer"
        raise Invalid(violations=[Violation("--kubernetes-version", words)])
    return f"admissionregistration.k8s.io/{'v1' if minor >= STABLE else 'v1beta1'}"


def burst(minor: int = STABLE) -> list[Part]:
    """The policy and its binding, for Kubernetes 1.MINOR. Invalid as `api_version`."""
    api = api_version(minor)
    words = (
        f"Pods made in namespaces labelled {LABEL}=enabled may run on virtual nodes, and prefer"
        f"\nreal ones. A pod labelled {LABEL}=disabled is left as it is."
    )
    if minor < STABLE:
        words += (
            f"\nKubernetes 1.{minor} has this where the API server runs with"
            f"\n--runtime-config={api}=true --feature-gates=MutatingAdmissionPolicy=true."
        )
    binding = {
        "policyName": POLICY,
        "matchResources": {
            "namespaceSelector": {"matchLabels": {LABEL: "enabled"}},
            "objectSelector": {
                "matchExpressions": [{"key": LABEL, "operator": "NotIn", "values": ["disabled"]}]
            },
        },
    }
    return [
        Part(described(api, "MutatingAdmissionPolicy", POLICY, spec=_policy()), words),
        Part(described(api, "MutatingAdmissionPolicyBinding", POLICY, spec=binding)),
    ]


def _policy() -> dict[str, Any]:
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["pods"],
    }
    return {
        "matchConstraints": {"resourceRules": [rule]},
        "matchConditions": [
            # Its controller has chosen the node already, by what the pod's template tolerates.
            {
                "name": "of-no-daemonset",
                "expression": "!has(object.metadata.ownerReferences) ||"
                ' !object.metadata.ownerReferences.exists(o, o.kind == "DaemonSet")',
            },
            {
                "name": "to-be-scheduled",
                "expression": '!has(object.spec.nodeName) || object.spec.nodeName == ""',
            },
        ],
        # A pod that the policy fails on runs on a real node, as it would without.
        "failurePolicy": "Ignore",
        "reinvocationPolicy": "Never",
        "variables": [
            {"name": "toleration", "expression": _TOLERATION},
            {"name": "term", "expression": _TERM},
            {"name": "tolerates", "expression": _TOLERATES},
            {"name": "prefers", "expression": _PREFERS},
        ],
        "mutations": [
            {"patchType": "JSONPatch", "jsonPatch": {"expression": _TOLERATE}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": _PREFER}},
        ],
    }
