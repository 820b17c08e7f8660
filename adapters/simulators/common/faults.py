"""What is to go wrong, how often, and whether it does now."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from adapters.simulators.common.settings import Chance
from adapters.simulators.common.web import Json

F = TypeVar("F", bound=Chance)


@dataclass(slots=True)
class Active(Generic[F]):
    """A fault that is in force."""

    id: str
    fault: F
    happened: int = 0

    @property
    def is_spent(self) -> bool:
        """Whether it has happened as often as it should."""
        return self.fault.times is not None and self.happened >= self.fault.times

    def as_json(self) -> Json:
        """For the control API."""
        return {"id": self.id, "happened": self.happened, **self.fault.model_dump()}


class Chances(Generic[F]):
    """All faults; chance is by one seed, so that the same calls meet the same faults."""

    def __init__(self, seed: int, faults: Iterable[F] = ()) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._active: dict[str, Active[F]] = {}
        self._made = 0
        for one in faults:
            self.add(one)

    def add(self, fault: F) -> Active[F]:
        """Puts it in force."""
        self._made += 1
        made = Active(f"fault-{self._made}", fault)
        self._active[made.id] = made
        return made

    def remove(self, id_: str) -> bool:
        """Takes it back; False where there is none."""
        return self._active.pop(id_, None) is not None

    def clear(self) -> None:
        """Takes all back."""
        self._active.clear()

    def all(self) -> Sequence[Active[F]]:
        """Those in force and those that are spent."""
        return list(self._active.values())

    def striking(self, concerned: Callable[[F], bool]) -> list[F]:
        """Of those that are concerned, those that happen now."""
        return [
            one.fault
            for one in self._active.values()
            if concerned(one.fault) and self._strikes(one)
        ]

    def _strikes(self, one: Active[F]) -> bool:
        if one.is_spent or self._random.random() >= one.fault.probability:
            return False
        one.happened += 1
        return True
