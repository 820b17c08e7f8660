"""The form of answers: which members there are, of which type, and the words of their states. Pure.

Members of things that have a state are told apart by it (`tasks[RUNNING].startedAt: time`), since a
task has more of them the further it has come.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.real.plain import kind

ORDER = (
    *("PROVISIONING", "PENDING", "ACTIVATING", "RUNNING"),
    *("DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"),
)
"""A task's states ("Amazon ECS task lifecycle")."""
_LASTING = ("RUNNING", "STOPPED")
_STATE = "lastStatus"
_WORDS = frozenset(
    ("desiredStatus", "stopCode", "healthStatus", "connectivity", "launchType", "platformFamily")
)
"""Members whose words are compared, too."""


def shape(value: Any, path: str = "") -> Iterator[str]:
    """One line for each member: `tasks[RUNNING].taskArn: text`."""
    found = kind(value)
    if path:
        yield f"{path}: {found}"
    if found == "object":
        for key, one in value.items():
            where = f"{path}.{key}" if path else key
            if key in _WORDS and isinstance(one, str):
                yield f"{where} = {one}"
            yield from shape(one, f"{where}[{state}]" if (state := _state(one)) else where)
    elif found == "list":
        for one in value:
            yield from shape(one, f"{path}[{_state(one)}]")


def _state(value: Any) -> str:
    return str(value.get(_STATE, "")) if isinstance(value, Mapping) else ""


def states(answer: Any) -> dict[str, int]:
    """How far each of an answer's tasks has come (`ORDER`), by its ARN."""
    return {
        str(one.get("taskArn")): ORDER.index(state)
        for one in _tasks(answer)
        if (state := _state(one)) in ORDER
    }


def _tasks(answer: Any) -> list[Any]:
    """An answer's tasks: StopTask has one."""
    if not isinstance(answer, Mapping):
        return []
    found = [*(answer.get("tasks") or ()), answer.get("task")]
    return [one for one in found if isinstance(one, Mapping)]


@dataclass
class Side:
    """All that one side has said."""

    shapes: dict[str, set[str]] = field(default_factory=dict)
    """By operation."""
    lives: dict[str, list[str]] = field(default_factory=dict)
    """The states that each task was seen in, by its ARN."""

    def add(self, operation: str, answer: Any) -> None:
        """One answer."""
        self.shapes.setdefault(operation, set()).update(shape(answer))
        self.saw(answer)

    def saw(self, answer: Any) -> None:
        """An answer of which only the tasks' states count."""
        for one in _tasks(answer):
            if state := _state(one):
                life = self.lives.setdefault(str(one.get("taskArn")), [])
                if not life or life[-1] != state:
                    life.append(state)


def differences(recorded: Side, played: Side) -> Iterator[str]:
    """What the two sides say differently, in words."""
    for operation in sorted(recorded.shapes):
        theirs, ours = recorded.shapes[operation], played.shapes.get(operation, set())
        for line in _only(theirs, ours):
            yield f"{operation}: only recorded: {line}"
        for line in _only(ours, theirs):
            # No account shows every word.
            if " = " not in line:
                yield f"{operation}: only simulated: {line}"
    yield from _lives(recorded.lives.values(), played.lives.values())


def _lives(recorded: Iterable[list[str]], played: Iterable[list[str]]) -> Iterator[str]:
    """States in another order, and those that only an account has. Who looks now and then misses
    short ones."""
    theirs, ours = _pairs(recorded), _pairs(played)
    for earlier, later in sorted(theirs - ours):
        if (later, earlier) in ours:
            yield f"states of a task: recorded {earlier} before {later}, simulated after it"
    seen = {state for life in played for state in life}
    for state in sorted({state for life in recorded for state in life} - seen):
        if state in _LASTING or state not in ORDER:
            yield f"states of a task: only recorded: {state}"


def _pairs(lives: Iterable[list[str]]) -> set[tuple[str, str]]:
    return {pair for life in lives for pair in itertools.combinations(life, 2)}


def _only(some: set[str], others: set[str]) -> list[str]:
    """What is in `some` alone, of states that both have seen, without the members of what is
    missing as a whole."""
    seen = {prefix for one in others for prefix in _states_of(one)}
    anywhere = {_stateless(one) for one in others}
    alone = sorted(
        one
        for one in some - others
        if all(prefix in seen for prefix in _states_of(one))
        # Whether a state in between has a member yet is a matter of when somebody looks.
        and not (_PASSING.search(one) and _stateless(one) in anywhere)
    )
    gone = tuple(f"{_path(one)}{mark}" for one in alone for mark in ".[")
    return [one for one in alone if not _path(one).startswith(gone)]


_PASSING = re.compile(rf"\[(?:{'|'.join(one for one in ORDER if one not in _LASTING)})\]")


def _stateless(line: str) -> str:
    return re.sub(r"\[[A-Z]*\]", "[]", line)


def _path(line: str) -> str:
    return line.partition(": ")[0].partition(" = ")[0]


def _states_of(line: str) -> Iterator[str]:
    """What has a state of what a line is about: `tasks[RUNNING]`."""
    path = _path(line)
    for found in re.finditer(r"\[[A-Z]+\]", path):
        yield path[: found.end()]


def missing(played: Any, recorded: Any) -> set[str]:
    """What an answer lacks of another one's form."""
    return set(shape(recorded)) - set(shape(played))
