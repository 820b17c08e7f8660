"""Names of what this backend makes, all from the pod's mark, the owner or what is in them. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b32encode
from collections.abc import Mapping
from typing import Any

from bridge.workload import PullCredential

Json = dict[str, Any]

STREAM = "pod"
"""How the names of log streams begin."""


def started_by(owner: str, mark_: str, nonce: str) -> str:
    """A task's `startedBy`, which a task keeps when its tags are gone. `nonce` is of the order: a
    pod that was deleted and comes again has another one."""
    return f"{owner}/{mark_}/{nonce}"


def mark_of(owner: str, started: str) -> tuple[str, str]:
    """(mark, nonce) of a task's `startedBy`; empty ones: it is not this owner's."""
    head, *tail = started.split("/")
    return (tail[0], tail[1]) if head == owner and len(tail) == 2 else ("", "")


def order_prefix(owner: str) -> str:
    """Where orders are in the bucket."""
    return f"{owner}/orders/"


def order_key(owner: str, mark_: str) -> str:
    """The object that has the order for a pod."""
    return f"{order_prefix(owner)}{mark_}.json"


def payload_prefix(owner: str) -> str:
    """Where payloads are in the bucket."""
    return f"{owner}/payloads/"


def payload_key(owner: str, mark_: str, container: str) -> str:
    """The object that has a container's environment. ECS takes none without `.env`."""
    return f"{payload_prefix(owner)}{mark_}/{container}.env"


def family(owner: str, document: Mapping[str, Any]) -> str:
    """A task definition's family, by its content."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return f"{owner}-{b32encode(hashlib.sha256(text.encode()).digest()[:20]).decode().lower()}"


def secret(owner: str, key: bytes, login: PullCredential) -> str:
    """The name of a registry's login in Secrets Manager. Who does not have the key cannot try out
    passwords against it."""
    text = "\0".join((login.registry, login.username, login.password))
    digest = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return f"{owner}/registry/{b32encode(digest[:20]).decode().lower()}"


def task_id(arn: str) -> str:
    """The last part of a task's ARN."""
    return arn.rpartition("/")[2]


def stream(container: str, arn: str) -> str:
    """The log stream of a container (the awslogs driver's prefix/container/task)."""
    return f"{STREAM}/{container}/{task_id(arn)}"
