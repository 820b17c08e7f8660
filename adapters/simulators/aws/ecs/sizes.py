"""Which sizes a Fargate task may have.

Source: "Task size" in the ECS developer guide, and the prose of `RegisterTaskDefinitionRequest`.
The row of 32 vCPU is not in that prose: third parties report it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

GIB = 1024
"""MiB in a GiB."""


def _steps(first: int, last: int, step: int) -> tuple[int, ...]:
    return tuple(GIB * one for one in range(first, last + 1, step))


MEMORY: Mapping[int, tuple[int, ...]] = {
    256: (512, 1 * GIB, 2 * GIB),
    512: _steps(1, 4, 1),
    1024: _steps(2, 8, 1),
    2048: _steps(4, 16, 1),
    4096: _steps(8, 30, 1),
    8192: _steps(16, 60, 4),
    16384: _steps(32, 120, 8),
    32768: (60 * GIB, 120 * GIB, 244 * GIB),
}
"""MiB that go with so many CPU units."""

_CPU = re.compile(r"(\d+(?:\.\d+)?)\s*vcpu", re.IGNORECASE)
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*gb", re.IGNORECASE)


def cpu_units(text: str) -> int | None:
    """`1024`, `1 vCPU` or `.25 vcpu` in CPU units; None where it is none of these."""
    return _amount(text, _CPU, 1024)


def mebibytes(text: str) -> int | None:
    """`1024`, `1GB` or `0.5 GB` in MiB; None where it is none of these."""
    return _amount(text, _MEMORY, GIB)


def _amount(text: str, pattern: re.Pattern[str], unit: int) -> int | None:
    text = text.strip()
    if text.isdigit():
        return int(text)
    found = pattern.fullmatch("0" + text if text.startswith(".") else text)
    return round(float(found[1]) * unit) if found else None


def is_legal(cpu: int, memory: int) -> bool:
    """Whether Fargate has that size."""
    return memory in MEMORY.get(cpu, ())
