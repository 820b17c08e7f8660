"""The register of checks: each file of a theme puts its own in by decorating them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module

from bridge.conformance.kit import Kit
from bridge.conformance.model import CORE, Check

THEMES = (
    "service",
    "identity",
    "create",
    "environment",
    "ends",
    "containers",
    "errors",
    "secrets",
    "watch",
    "delete",
    "update",
    "logs",
    "execs",
    "attaches",
    "stats",
    "restart",
)
"""Modules of this package, in the order of the report."""

Body = Callable[[Kit], Awaitable[None]]

_checks: list[Check] = []


def check(
    name: str, title: str, *, section: str, rule: str, needs: str = CORE
) -> Callable[[Body], Body]:
    """Registers a check under that id."""

    def keep(body: Body) -> Body:
        _checks.append(Check(name, title, section, rule, needs, body))
        return body

    return keep


def checks() -> Sequence[Check]:
    """All of them, in the order of the report."""
    for theme in THEMES:
        import_module(f"bridge.conformance.{theme}")
    return tuple(_checks)
