"""What a check is, how it says that something is wrong, and what becomes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.conformance.kit import Kit

IMAGE = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1"
"""What pods of the checks run where `--image` says nothing: a shell and busybox's tools."""
TIMEOUT = 30.0
"""Seconds that one check may take."""
PARALLEL = 8
"""Checks at once."""

CORE = ""
"""`Check.needs` of what every provider must do."""
FIELDS = "fields"
"""`Check.needs` of what a provider may refuse, naming the field."""
ABILITIES = ("logs", "exec", "attach", "dial", "stats")
"""`Check.needs` of what only a backend with that ability does."""
RESTART = "restart"
"""`Check.needs` of what can be judged only where the provider can be started anew."""


class Broken(Exception):
    """The provider breaks the contract: what was expected, and what was seen instead."""

    def __init__(self, expected: str, seen: str) -> None:
        super().__init__(f"expected {expected}; seen: {seen}")
        self.expected = expected
        self.seen = seen


class Skipped(Exception):
    """The check cannot judge this provider; the message says why."""


def expect(true: object, expected: str, seen: object) -> None:
    """Raises Broken unless `true`."""
    if not true:
        raise Broken(expected, str(seen))


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the contract asks for."""

    id: str
    """`<theme>.<what>`."""
    title: str
    """What a provider does that passes."""
    section: str
    """The heading of docs/contract.md that says it."""
    rule: str
    """The contract's sentence."""
    needs: str
    """CORE, FIELDS, RESTART, an ability that the backend must have, or what else it may lack."""
    run: Callable[[Kit], Awaitable[None]]

    @property
    def theme(self) -> str:
        """The part before the dot."""
        return self.id.partition(".")[0]

    @property
    def level(self) -> str:
        """`core`, or `optional(<what it needs>)`."""
        return f"optional({self.needs})" if self.needs else "core"


class Outcome(StrEnum):
    """What became of a check."""

    PASSED = "PASS"
    FAILED = "FAIL"
    SKIPPED = "SKIP"


@dataclass(frozen=True, slots=True)
class Result:
    """How a check went. `expected` and `seen` where it failed, `reason` where it was skipped."""

    check: Check
    outcome: Outcome
    seconds: float
    expected: str = ""
    seen: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to judge."""

    image: str = IMAGE
    timeout: float = TIMEOUT
    parallel: int = PARALLEL
    restart: Callable[[], Awaitable[None]] | None = None
    """Kills the provider, starts it again at the same address, and returns when that is done."""
