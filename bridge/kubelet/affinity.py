"""Whether a pod may be on a node by what the two say of themselves, asked once more when it comes:
operating system, nodeSelector and required node affinity, taints that evict.

The scheduler has asked already, where it was asked at all: a pod may name its node itself. Rules
and words are those of the kubelet's admission (pkg/kubelet/lifecycle/predicate.go) and of the
helpers that it shares with the scheduler (k8s.io/component-helpers/scheduling/corev1). A taint that
only keeps the scheduler away (NoSchedule) is not asked about: who names the node has passed it by.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bridge.pods import Manifest
from bridge.pods.validation.names import label_value, qualified_name

OS = "kubernetes.io/os"
AFFINITY = (
    "NodeAffinity",
    "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
)
"""Reason and message where labels do not match. A node's labels may just have changed: whoever gets
this from a copy of the Node looks at the Node itself before it counts."""
_TAINTED = (
    "TaintToleration",
    "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
)
_OTHER_LABEL = (
    "PodOSSelectorNodeLabelDoesNotMatch",
    "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
)
_OTHER_OS = (
    "PodOSNotSupported",
    "Failed to admit pod as the OS field doesn't match node OS",
)
_INTEGER = re.compile("[-+]?[0-9]+", re.ASCII)
_LIMIT = 1 << 63
"""Go compares as int64: what is beyond is no number."""


def other_system(pod: Manifest, system: str) -> tuple[str, str] | None:
    """Reason and message where a pod, by its label or by spec.os, is for another operating system
    than the node's (as GOOS has it); None where it is not."""
    labelled = (pod["metadata"].get("labels") or {}).get(OS)
    if labelled is not None and labelled != system:
        return _OTHER_LABEL
    name = (pod["spec"].get("os") or {}).get("name")
    return _OTHER_OS if name is not None and name != system else None


def mismatch(pod: Manifest, node: Manifest) -> tuple[str, str] | None:
    """`AFFINITY` where nodeSelector or required node affinity do not match the Node."""
    labels = node["metadata"].get("labels") or {}
    selector: Mapping[str, str] = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        return AFFINITY
    required = _required(pod)
    if required is None:
        return None
    name = str(node["metadata"]["name"])
    terms = required.get("nodeSelectorTerms") or ()
    return None if any(_matches(term, labels, name) for term in terms) else AFFINITY


def untolerated(pod: Manifest, node: Manifest) -> tuple[str, str] | None:
    """Reason and message where the Node has a NoExecute taint that the pod does not tolerate."""
    tolerations: Sequence[Manifest] = pod["spec"].get("tolerations") or ()
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint.get("effect") == "NoExecute" and not any(
            _tolerates(one, taint) for one in tolerations
        ):
            return _TAINTED
    return None


def _required(pod: Manifest) -> Manifest | None:
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    found: Manifest | None = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return found


def _matches(term: Manifest, labels: Mapping[str, str], name: str) -> bool:
    """A term that says nothing, or something that cannot be, matches no node."""
    expressions = term.get("matchExpressions") or ()
    fields = term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return all(_holds(one, labels) for one in expressions) and all(
        _field_holds(one, name) for one in fields
    )


def _holds(requirement: Manifest, labels: Mapping[str, str]) -> bool:
    key = requirement.get("key", "")
    values: Sequence[str] = requirement.get("values") or ()
    if qualified_name(key) is not None or any(label_value(one) is not None for one in values):
        return False
    has = labels.get(key)
    match requirement.get("operator"):
        case "In":
            return has in values
        case "NotIn":
            return bool(values) and has not in values
        case "Exists":
            return not values and has is not None
        case "DoesNotExist":
            return not values and has is None
        case "Gt" | "Lt" as operator:
            own = _number(has)
            bound = _number(values[0]) if len(values) == 1 else None
            if own is None or bound is None:
                return False
            return own > bound if operator == "Gt" else own < bound
    return False


def _field_holds(requirement: Manifest, name: str) -> bool:
    """The only field that a Node has here is metadata.name, and it is held against one value."""
    values: Sequence[str] = requirement.get("values") or ()
    if len(values) != 1:
        return False
    has = name if requirement.get("key") == "metadata.name" else ""
    match requirement.get("operator"):
        case "In":
            return bool(has == values[0])
        case "NotIn":
            return bool(has != values[0])
    return False


def _number(text: str | None) -> int | None:
    if text is None or not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if -_LIMIT <= number < _LIMIT else None


def _tolerates(toleration: Manifest, taint: Manifest) -> bool:
    """Gt and Lt tolerate nothing: Kubernetes has them behind a gate that is off (1.36)."""
    for part in ("effect", "key"):
        if toleration.get(part) and toleration[part] != taint.get(part):
            return False
    match toleration.get("operator") or "Equal":
        case "Equal":
            return (toleration.get("value") or "") == (taint.get("value") or "")
        case "Exists":
            return True
    return False
