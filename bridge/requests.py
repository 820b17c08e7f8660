"""What a whole workload asks for, as the scheduler counts it (KEP-753). Pure."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.workload import Resources, Role, Workload


def pod_request(workload: Workload) -> Resources:
    """What the whole workload asks for and may use, as the scheduler counts (KEP-753).

    For each resource the larger of: all main containers and sidecars together, and each init
    container together with the sidecars before it. Ephemeral containers count nothing.
    """
    return Resources(
        requests=_effective(workload, limits=False), limits=_effective(workload, limits=True)
    )


def _effective(workload: Workload, *, limits: bool) -> dict[str, int]:
    running: dict[str, int] = {}
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in workload.containers:
        own = container.resources.limits if limits else container.resources.requests
        if not own:
            continue
        if container.role is Role.INIT:
            _raise(peak, {name: amount + sidecars.get(name, 0) for name, amount in own.items()})
        elif container.role is not Role.EPHEMERAL:
            _add(running, own)
            if container.role is Role.SIDECAR:
                _add(sidecars, own)
    _raise(running, peak)
    return running


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _raise(total: dict[str, int], least: Mapping[str, int]) -> None:
    for name, amount in least.items():
        total[name] = max(total.get(name, 0), amount)
