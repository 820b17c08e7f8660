"""Whether we may do what keeping a node takes: each permission of `bridge.kubelet.rbac`, asked for.

The API server answers for whoever asks (SelfSubjectAccessReview), by all of its authorisers: also
by the one for nodes, whose identity no role describes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bridge.kubelet import rbac
from bridge.kubelet.client import ApiClient
from bridge.kubelet.findings import Finding


@dataclass(frozen=True, slots=True)
class Question:
    """One permission."""

    group: str
    resource: str
    """With its subresource: pods/status."""
    verb: str
    name: str = ""
    namespace: str = ""

    @property
    def attributes(self) -> dict[str, str]:
        """As a SelfSubjectAccessReview has it."""
        resource, _, subresource = self.resource.partition("/")
        made = {"group": self.group, "resource": resource, "subresource": subresource}
        made |= {"verb": self.verb, "name": self.name, "namespace": self.namespace}
        return {key: value for key, value in made.items() if value}


def questions(rules: Sequence[rbac.Rule], namespace: str = "") -> Iterator[Question]:
    """Every permission that the rules give."""
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    for name in rule.get("resourceNames") or ("",):
                        yield Question(group, resource, verb, name, namespace)


def needed(node: str, user: str, *, knows_cluster: bool, knows_cas: bool) -> list[Question]:
    """What keeping a node takes. A node's own identity is not asked about what its pods refer to:
    that follows from its pods. `knows_cluster`, `knows_cas`: both are configured."""
    is_node = user.startswith("system:node:")
    asked = list(questions(rbac.rules([node])))
    for where, rules in rbac.namespaced_rules([node]).items():
        asked += questions(rules, where)
    if is_node:
        about_pods = ("pods", "configmaps", "secrets", "serviceaccounts", "services", "namespaces")
        asked = [one for one in asked if one.resource.partition("/")[0] not in about_pods]
        asked = [one for one in asked if one.verb not in ("list", "watch")]
    elif knows_cluster:
        asked = [one for one in asked if one.resource != "namespaces"]
    if not knows_cas:
        name = "extension-apiserver-authentication"
        asked.append(Question("", "configmaps", "get", name, rbac.CA_NAMESPACE))
    return asked


async def permissions(client: ApiClient, node: str, asked: Sequence[Question]) -> list[Finding]:
    """Each of these, asked for at the same time."""
    look = f"permissions for {node}"
    answers = await asyncio.gather(*(_allowed(client, one) for one in asked))
    missing: dict[tuple[str, str, str], list[str]] = {}
    for one, allowed in zip(asked, answers, strict=True):
        if not allowed:
            what = f"{one.resource}.{one.group}" if one.group else one.resource
            missing.setdefault((what, one.name, one.namespace), []).append(one.verb)
    if not missing:
        return [Finding(look, "ok", f"all {len(asked)} that are needed")]
    found = []
    for (what, name, namespace), verbs in missing.items():
        about = f" {name}" if name else ""
        where = f" in {namespace}" if namespace else ""
        words = f"may not {', '.join(verbs)} {what}{about}{where}"
        found.append(Finding(look, "problem", words, _how_allowed(what)))
    return found


def _how_allowed(what: str) -> str:
    if what == "configmaps":
        return "set cluster.client_ca, or apply the roles that podbridge install prints"
    return "apply the roles that podbridge install prints"


async def _allowed(client: ApiClient, one: Question) -> bool:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": one.attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = await client.post(path, review)
    return bool((answer.get("status") or {}).get("allowed"))
