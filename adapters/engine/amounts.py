"""A container's resources in the kernel's terms, by the kubelet's formulas. Pure.

MilliCPUToShares and MilliCPUToQuota in pkg/kubelet/cm/helpers_linux.go, and their use in
pkg/kubelet/kuberuntime/kuberuntime_container_linux.go.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge.workload import Resources

PERIOD = 100_000
"""Microseconds: the CFS period."""
_LEAST_QUOTA = 1000
"""Microseconds: the kernel takes no less."""
_LEAST_SHARES, _MOST_SHARES = 2, 262_144
_SHARES_OF_A_CORE = 1024


@dataclass(frozen=True, slots=True)
class Amounts:
    """What one container may use."""

    shares: int
    """Its weight beside others, 1024 for a core."""
    quota: int | None
    """Microseconds of CPU in each `PERIOD`; None: no limit."""
    memory: int | None
    """Bytes, swap included; None: no limit."""


def shares(millicores: int) -> int:
    """The weight that so many thousandths of a core mean."""
    return max(_LEAST_SHARES, min(_MOST_SHARES, millicores * _SHARES_OF_A_CORE // 1000))


def quota(millicores: int) -> int | None:
    """Microseconds in each `PERIOD` for so many thousandths of a core; None for 0: no limit."""
    return max(_LEAST_QUOTA, millicores * PERIOD // 1000) if millicores else None


def of(resources: Resources) -> Amounts:
    """What these resources mean. Only a limit where no request is given counts as one as well."""
    limit = resources.limits.get("cpu", 0)
    return Amounts(
        shares=shares(resources.requests.get("cpu", limit)),
        quota=quota(limit),
        memory=resources.limits.get("memory") or None,
    )
