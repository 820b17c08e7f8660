"""What the objects of an installation are called, and an object with the reason for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NAME = "podbridge"
"""Of everything in the installation's namespace; the default one has that name too."""
EXISTING = ("default", "kube-system", "kube-public", "kube-node-lease")
"""Namespaces that every cluster has: they are not ours to describe."""
CONFIG = "/etc/podbridge"
"""Where the ConfigMap is in a replica."""
STATE = "/var/lib/podbridge"
"""Where a replica may write: keys, and its name among the replicas."""


@dataclass(frozen=True, slots=True)
class Names:
    """Where an installation is, and what its parts are called."""

    namespace: str = NAME

    @property
    def cluster(self) -> str:
        """Of what is in no namespace, and of what is in those of others: two installations in two
        namespaces never share it."""
        return NAME if self.namespace == NAME else f"{NAME}-{self.namespace}"


@dataclass(frozen=True, slots=True)
class Part:
    """One object."""

    object: dict[str, Any]
    words: str = ""
    """Why it is there: comment lines above it."""


def described(api: str, kind: str, name: str, namespace: str = "", **rest: Any) -> dict[str, Any]:
    """An object; without `namespace` it is in none."""
    metadata: dict[str, Any] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **rest}
