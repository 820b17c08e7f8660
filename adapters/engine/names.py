"""What everything in the engine is called, and the labels that say whose it is. Pure.

A name comes from (cluster, uid, attempt), the container and the restart number alone, so that a
repeated create meets its first one. Nothing is ever found by name to be removed: labels tell the
owner. They hold nothing secret: anyone who may ask the engine reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from bridge.workload import Identity

OURS = "podbridge-"
"""How the name of everything that is made here begins."""
PREFIX = "podbridge.io/"
OWNER = f"{PREFIX}owner"
"""Which podbridge this belongs to (option `owner`): what is looked for everywhere."""
CLUSTER = f"{PREFIX}cluster"
NODE = f"{PREFIX}node"
NAMESPACE = f"{PREFIX}namespace"
NAME = f"{PREFIX}name"
UID = f"{PREFIX}uid"
ATTEMPT = f"{PREFIX}attempt"
CONTAINER = f"{PREFIX}container"
"""A container's name; missing on the pause container and on volumes."""
RESTART = f"{PREFIX}restart"
"""Which run of the container this is: 0 is the first."""
IMAGE = f"{PREFIX}image"
"""The image as the pod asked for it."""


def digest(identity: Identity) -> str:
    """Twenty characters that stand for (cluster, uid, attempt)."""
    key = f"{identity.cluster}/{identity.uid}/{identity.attempt}"
    return hashlib.sha256(key.encode()).hexdigest()[:20]


def pause(identity: Identity) -> str:
    """The name of the container that holds the pod's namespaces."""
    return f"{OURS}{digest(identity)}"


def run(identity: Identity, container: str, restart: int) -> str:
    """The name of one run of a container."""
    return f"{OURS}{digest(identity)}-{container}-{restart}"


def volume(identity: Identity, name: str) -> str:
    """The name of one of the pod's volumes."""
    return f"{OURS}{digest(identity)}-{name}"


def labels(identity: Identity, owner: str, **more: str) -> dict[str, str]:
    """The labels of something of that pod; `more` by the part behind the prefix
    (`container="main"`)."""
    own = {
        OWNER: owner,
        CLUSTER: identity.cluster,
        NODE: identity.node,
        NAMESPACE: identity.namespace,
        NAME: identity.name,
        UID: identity.uid,
        ATTEMPT: str(identity.attempt),
    }
    return {**own, **{f"{PREFIX}{key}": value for key, value in more.items()}}


def filters(owner: str, identity: Identity | None = None) -> dict[str, list[str]]:
    """The `filters` parameter of a list: everything of ours, or of one pod.

    For containers alone: of several labels, Podman lists volumes that have any of them.
    """
    wanted = [f"{OWNER}={owner}"]
    if identity is not None:
        wanted += [
            f"{CLUSTER}={identity.cluster}",
            f"{UID}={identity.uid}",
            f"{ATTEMPT}={identity.attempt}",
        ]
    return {"label": wanted}


def identity_of(found: Mapping[str, str]) -> Identity | None:
    """Whose these labels say it is; None where they are not (all) ours."""
    attempt = found.get(ATTEMPT, "")
    if not found.get(UID) or not attempt.isdigit():
        return None
    return Identity(
        cluster=found.get(CLUSTER, ""),
        node=found.get(NODE, ""),
        namespace=found.get(NAMESPACE, ""),
        name=found.get(NAME, ""),
        uid=found[UID],
        attempt=int(attempt),
    )
