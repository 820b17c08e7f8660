"""Where the checks write what they find."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bridge.errors import Violation


@dataclass(slots=True)
class Report:
    """The violations found so far, in the order of the checks."""

    told: frozenset[str] = frozenset()
    """The paths of which the check of the shape has said what is wrong; what it left out is missing
    for the rules."""
    violations: list[Violation] = field(default_factory=list)

    def add(self, path: str, problem: str | None, *, beside: str = "") -> None:
        """Note a problem at `path`, unless it was told of already; None is no problem.

        `beside`: what else the rule looks at; it is silent where that or a part of it is wrong.
        """
        if problem is None or self._is_told(path) or (beside and self._is_doubtful(beside)):
            return
        self.violations.append(Violation(path, problem))

    def _is_told(self, path: str) -> bool:
        """Whether that was said of the path, of what it is in, or of a field of it."""
        return self._is_in(path) or any(_parent(one) == path for one in self.told)

    def _is_doubtful(self, path: str) -> bool:
        """Whether something was said of the path, of what it is in, or of anything in it."""
        inside = (f"{path}.", f"{path}[")
        return self._is_in(path) or any(one.startswith(inside) for one in self.told)

    def _is_in(self, path: str) -> bool:
        return path in self.told or any(
            path[:at] in self.told for at, letter in enumerate(path) if letter in ".["
        )

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


def _parent(path: str) -> str:
    """What the field or item is in."""
    return path[: max(path.rfind("."), path.rfind("["), 0)]
