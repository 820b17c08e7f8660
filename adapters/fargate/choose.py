"""What a pod is given: machine, capacity, size, role, network. Pure.

Only the operator's configuration names roles, subnets and security groups; a pod's namespace and
service account say which of its entries is the pod's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from adapters.fargate.options import Options
from adapters.fargate.sizes import STORAGE, Size, fit, largest, storage
from bridge.errors import Violation
from bridge.requests import pod_request
from bridge.workload import EmptyDir, Workload

ARCHITECTURE = "kubernetes.io/arch"
CAPACITY = "podbridge.io/capacity-type"
SPOT, ON_DEMAND = "spot", "on-demand"
_HELPER_MEMORY = 12 * 2**20
"""Bytes that each of a pod's helpers takes, measured (docs/helper.md)."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the configuration has for a pod."""

    task_role: str
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]


def given(workload: Workload, options: Options) -> Given:
    """By namespace and service account; the closest entry."""
    account = workload.service_account or "default"
    mine = [one for one in options.identities if one.namespace == workload.identity.namespace]
    found = next((one for one in mine if one.service_account == account), None) or next(
        (one for one in mine if not one.service_account), None
    )
    return Given(
        (found.task_role if found else None) or "",
        (found.subnets if found else ()) or options.subnets,
        (found.security_groups if found else ()) or options.security_groups,
    )


def takes_commands(mine: Given, options: Options, *, wrapped: bool) -> bool:
    """Whether commands are started in it through ECS: where no tunnel reaches it. ECS demands a
    role, by which the agent in its containers is let in."""
    has_tunnel = wrapped and options.tunnel is not None
    return options.execute_command and bool(mine.task_role) and not has_tunnel


def architecture(workload: Workload, options: Options) -> str:
    """`amd64` or `arm64`; what else it may say `problems` refuses."""
    return workload.node_selector.get(ARCHITECTURE, options.architecture)


def is_spot(workload: Workload, options: Options) -> bool:
    """Whether AWS may take it back: the annotation goes before the nodeSelector."""
    said = workload.annotations.get(CAPACITY) or workload.node_selector.get(CAPACITY)
    return (said or options.capacity) == SPOT


def size(workload: Workload, *, wrapped: bool) -> Size | None:
    """The smallest that holds what its containers request; None: there is none."""
    asked = pod_request(workload).requests
    memory = asked.get("memory", 0)
    if wrapped:
        memory += _HELPER_MEMORY * (len(workload.containers) + 1)
    return fit(asked.get("cpu", 0), memory)


def disk(workload: Workload) -> int | None:
    """GiB of ephemeral storage to ask for; None: more than there is."""
    limits = sum(one.size_limit or 0 for one in workload.volumes if isinstance(one, EmptyDir))
    return storage(pod_request(workload).requests.get("ephemeral-storage", 0) + limits)


def problems(workload: Workload, options: Options, *, wrapped: bool) -> Iterator[Violation]:
    """Why nothing can be given to it, by field."""
    machine = architecture(workload, options)
    if machine not in ("amd64", "arm64"):
        words = f'found "{machine}"; allowed: amd64, arm64'
        yield Violation(f"spec.nodeSelector[{ARCHITECTURE}]", words)
    for where, said in (
        (f"metadata.annotations[{CAPACITY}]", workload.annotations.get(CAPACITY)),
        (f"spec.nodeSelector[{CAPACITY}]", workload.node_selector.get(CAPACITY)),
    ):
        if said is not None and said not in (SPOT, ON_DEMAND):
            yield Violation(where, f'found "{said}"; allowed: {SPOT}, {ON_DEMAND}')
    if size(workload, wrapped=wrapped) is None:
        cpu, memory = largest()
        asked = pod_request(workload).requests
        words = (
            f"{asked.get('cpu', 0)}m of cpu and {asked.get('memory', 0)} bytes of memory together;"
            f" the largest task has {cpu // 1024} vCPU and {memory // 1024} GiB"
        )
        yield Violation("spec.containers[].resources.requests", words)
    if disk(workload) is None:
        words = f"more than the {STORAGE[2]} GiB that a task can have"
        yield Violation("spec.containers[].resources.requests[ephemeral-storage]", words)
