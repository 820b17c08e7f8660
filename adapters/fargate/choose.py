"""What a pod is given of Fargate's: size, disk, role, network. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from adapters.fargate.options import Options
from adapters.fargate.sizes import STORAGE, Size, fit, largest, storage
from bridge.errors import Violation
from bridge.groups import choose
from bridge.groups.choose import closest, requested
from bridge.requests import pod_request
from bridge.workload import EmptyDir, Workload


@dataclass(frozen=True, slots=True)
class Given:
    """What the configuration has for a pod."""

    task_role: str
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]


def given(workload: Workload, options: Options) -> Given:
    """By namespace and service account; the closest entry."""
    found = closest(workload, options.identities)
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


def size(workload: Workload, *, wrapped: bool) -> Size | None:
    """The smallest that holds what its containers request; None: there is none."""
    asked = requested(workload, wrapped=wrapped)
    return fit(asked.get("cpu", 0), asked.get("memory", 0))


def disk(workload: Workload) -> int | None:
    """GiB of ephemeral storage to ask for; None: more than there is."""
    limits = sum(one.size_limit or 0 for one in workload.volumes if isinstance(one, EmptyDir))
    return storage(pod_request(workload).requests.get("ephemeral-storage", 0) + limits)


def problems(workload: Workload, options: Options, *, wrapped: bool) -> Iterator[Violation]:
    """Why nothing can be given to it, by field."""
    yield from choose.problems(workload, options.architecture, ("amd64", "arm64"))
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
