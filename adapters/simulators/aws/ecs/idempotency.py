"""clientToken: the same call again starts nothing more.

A token lives for 24 hours, or until an hour after its last task has stopped, whichever is sooner
("Ensuring idempotency" in the API reference).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adapters.simulators.aws.ecs.records import Task
from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.shapes import Json
from adapters.simulators.common.clock import Clock

LIFE = 24 * 3600.0
AFTER_END = 3600.0


@dataclass(frozen=True, slots=True)
class _Used:
    call: str
    at: float
    tasks: Sequence[Task]


class Tokens:
    """Those of one account; a token is of its cluster."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._used: dict[tuple[str, str], _Used] = {}

    def earlier(self, cluster: str, given: Json) -> Sequence[Task] | None:
        """The tasks of the same call, made before; None: there was none. ConflictException: the
        token was used for another call."""
        token = given.get("clientToken")
        used = self._used.get((cluster, token)) if token else None
        if used is None or self._is_over(used):
            return None
        if used.call != _call(given):
            raise ApiError(
                "ConflictException",
                "The provided clientToken is already in use with a different RunTask request.",
                fields={"resourceIds": [one.arn for one in used.tasks]},
            )
        return used.tasks

    def note(self, cluster: str, given: Json, tasks: Sequence[Task]) -> None:
        """The call was made, and these are its tasks."""
        token = given.get("clientToken")
        if token and tasks:
            for key in list(self._expired()):
                del self._used[key]
            self._used[cluster, token] = _Used(_call(given), self._clock.now(), tasks)

    def _expired(self) -> Iterator[tuple[str, str]]:
        for key, used in self._used.items():
            if self._is_over(used):
                yield key

    def _is_over(self, used: _Used) -> bool:
        if self._clock.passed(used.at) > LIFE:
            return True
        ends = [one.moments.get("stoppedAt") for one in used.tasks]
        return all(end is not None and self._clock.passed(end) > AFTER_END for end in ends)


def _call(given: Json) -> str:
    return json.dumps({k: v for k, v in given.items() if k != "clientToken"}, sort_keys=True)
