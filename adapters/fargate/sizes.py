"""The sizes of Fargate's tasks: a table, and the smallest that holds a pod. Pure.

"Task definition parameters for Fargate", Task CPU and memory; the row of 32 vCPU is not in the
service model's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_GIB = 1024


def _steps(first: int, last: int, step: int) -> tuple[int, ...]:
    return tuple(_GIB * one for one in range(first, last + 1, step))


TABLE: dict[int, tuple[int, ...]] = {
    256: (512, *_steps(1, 2, 1)),
    512: _steps(1, 4, 1),
    1024: _steps(2, 8, 1),
    2048: _steps(4, 16, 1),
    4096: _steps(8, 30, 1),
    8192: _steps(16, 60, 4),
    16384: _steps(32, 120, 8),
    32768: tuple(_GIB * one for one in (60, 120, 244)),
}
"""MiB of memory by CPU units (1,024 a vCPU), both ascending."""

STORAGE = (20, 21, 200)
"""GiB of ephemeral storage: what a task has anyway; the least and the most to ask for."""


@dataclass(frozen=True, slots=True)
class Size:
    """A task's size."""

    cpu: int
    """CPU units, 1,024 a vCPU."""
    memory: int
    """MiB."""

    @property
    def millicores(self) -> int:
        """The same in thousandths of a vCPU."""
        return self.cpu * 1000 // 1024

    def __str__(self) -> str:
        return f"{self.cpu / 1024:g} vCPU, {self.memory / _GIB:g} GiB"


def fit(millicores: int, memory: int, table: dict[int, tuple[int, ...]] = TABLE) -> Size | None:
    """The smallest size with so many thousandths of a vCPU and so many bytes; None: there is none.

    The fewest vCPUs come first: a vCPU costs as much as nine GiB.
    """
    units, mebibytes = -(-millicores * 1024 // 1000), -(-memory // 2**20)
    for cpu, amounts in table.items():
        found = next((one for one in amounts if one >= mebibytes), None)
        if cpu >= units and found is not None:
            return Size(cpu, found)
    return None


def storage(bytes_: int) -> int | None:
    """GiB of ephemeral storage to ask for; 0: what every task has. None: more than there is."""
    included, least, most = STORAGE
    gibibytes = -(-bytes_ // 2**30)
    if gibibytes <= included:
        return 0
    return max(least, gibibytes) if gibibytes <= most else None


def largest(table: dict[int, tuple[int, ...]] = TABLE) -> Sequence[int]:
    """(CPU units, MiB) of the largest size."""
    cpu = max(table)
    return cpu, table[cpu][-1]
