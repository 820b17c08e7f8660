"""Where the checks write what they find."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bridge.errors import Violation


@dataclass(slots=True)
class Report:
    """The violations found so far, in the order of the checks."""

    violations: list[Violation] = field(default_factory=list)

    def add(self, path: str, problem: str | None) -> None:
        """Note a problem at `path`; None is no problem."""
        if problem is not None:
            self.violations.append(Violation(path, problem))

    def exactly_one(self, obj: dict[str, object], path: str, allowed: Iterable[str]) -> None:
        """Exactly one of the fields `allowed` must be there."""
        choices = tuple(allowed)
        found = [name for name in choices if name in obj]
        if len(found) != 1:
            seen = " and ".join(found) or "none"
            self.add(path, f"found {seen}; allowed: exactly one of {', '.join(choices)}")

    def at_most_one(self, obj: dict[str, object], path: str, allowed: Iterable[str]) -> None:
        """No more than one of the fields `allowed` may be there."""
        found = [name for name in allowed if name in obj]
        if len(found) > 1:
            self.add(path, f"found {' and '.join(found)}; allowed: one of them")
