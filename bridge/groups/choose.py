"""What a pod says of the group that it wants, and which of the operator's entries is the pod's.
Pure.

Only the operator's configuration names identities, networks and file systems; a pod's namespace and
service account say which entries are the pod's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TypeVar

from bridge.errors import Violation
from bridge.groups.options import Mapped
from bridge.requests import pod_request
from bridge.workload import Workload

ARCHITECTURE = "kubernetes.io/arch"
CAPACITY = "podbridge.io/capacity-type"
SPOT, ON_DEMAND = "spot", "on-demand"
_HELPER_MEMORY = 12 * 2**20
"""Bytes that each of a pod's helpers takes, measured (docs/helper.md)."""

_T = TypeVar("_T", bound=Mapped)


def closest(workload: Workload, entries: Iterable[_T]) -> _T | None:
    """The entry for its service account, else the one for all of its namespace."""
    account = workload.service_account or "default"
    mine = [one for one in entries if one.namespace == workload.identity.namespace]
    return next((one for one in mine if one.service_account == account), None) or next(
        (one for one in mine if not one.service_account), None
    )


def architecture(workload: Workload, configured: str) -> str:
    """The machine, in Go's words; what else it may say `problems` refuses."""
    return workload.node_selector.get(ARCHITECTURE, configured)


def is_spot(workload: Workload, configured: str) -> bool:
    """Whether the cloud may take it back: the annotation goes before the nodeSelector."""
    said = workload.annotations.get(CAPACITY) or workload.node_selector.get(CAPACITY)
    return (said or configured) == SPOT


def requested(workload: Workload, *, wrapped: bool) -> Mapping[str, int]:
    """What its containers request together, those of the helper too (cpu in millicores, memory in
    bytes)."""
    asked = dict(pod_request(workload).requests)
    if wrapped:
        helpers = len(workload.containers) + 1
        asked["memory"] = asked.get("memory", 0) + _HELPER_MEMORY * helpers
    return asked


def problems(workload: Workload, configured: str, machines: Collection[str]) -> Iterator[Violation]:
    """A machine or a capacity that there is not. `configured`: the machine of pods that name none;
    `machines`: those that the cloud has."""
    machine = architecture(workload, configured)
    if machine not in machines:
        words = f'found "{machine}"; allowed: {", ".join(machines)}'
        yield Violation(f"spec.nodeSelector[{ARCHITECTURE}]", words)
    for where, said in (
        (f"metadata.annotations[{CAPACITY}]", workload.annotations.get(CAPACITY)),
        (f"spec.nodeSelector[{CAPACITY}]", workload.node_selector.get(CAPACITY)),
    ):
        if said is not None and said not in (SPOT, ON_DEMAND):
            yield Violation(where, f'found "{said}"; allowed: {SPOT}, {ON_DEMAND}')
