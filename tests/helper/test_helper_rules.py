"""The rules that the helper shares with bridge/pods, by one table that its own tests run too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.backoff import backoff, backoff_of_killed
from bridge.pods.lifecycle import plan, should_restart
from bridge.workload import (
    Container,
    ContainerState,
    Exit,
    Identity,
    Observed,
    RestartPolicy,
    RestartRule,
    Role,
    Running,
    State,
    Workload,
)

TABLE = json.loads((Path(__file__).parent / "rules.json").read_text())
NOW = 10_000.0


def rows(name: str) -> Any:
    return pytest.mark.parametrize("row", TABLE[name], ids=lambda row: row["what"])


def ended(run: dict[str, Any] | None) -> Exit | None:
    return (
        None if run is None else Exit(1, run["finished_at"], "Error", started_at=run["started_at"])
    )


@rows("should_restart")
def test_who_runs_again(row: dict[str, Any]) -> None:
    rules = tuple(
        RestartRule(one["restart"], frozenset(one["codes"]), one["negated"]) for one in row["rules"]
    )
    container = Container(
        "c",
        Role(row["role"]),
        "i",
        restart_policy=RestartPolicy(row["policy"]),
        restart_rules=rules,
    )
    assert should_restart(container, Exit(row["code"], 1.0, row["reason"])) is row["restarts"]


@rows("backoff")
def test_when(row: dict[str, Any]) -> None:
    last = ended(row["last"])
    assert last is not None
    assert backoff(row["restart"], last, ended(row["previous"])) == row["seconds"]


@rows("backoff_of_killed")
def test_when_it_was_killed(row: dict[str, Any]) -> None:
    last = ended(row["last"])
    assert last is not None
    assert backoff_of_killed(row["restart"], last, ended(row["previous"])) == row["seconds"]


@rows("gates")
def test_who_starts(row: dict[str, Any]) -> None:
    never = RestartPolicy.NEVER
    containers = tuple(
        Container(name, Role(role), "i", restart_policy=never) for name, role in row["containers"]
    )
    workload = Workload(Identity("c", "n", "ns", "p", "u"), containers, restart_policy=never)
    states = tuple(_state(name, said) for name, said in row["states"].items())
    made = plan(workload, Observed(workload.identity, states), NOW)
    assert [name for name, _ in made.start] == row["starts"]


def _state(name: str, said: dict[str, Any]) -> ContainerState:
    state: State = Running(NOW - 5)
    if "ended" in said:
        code = said["ended"]
        state = Exit(code, NOW - 1, "Error" if code else "Completed", started_at=NOW - 2)
    return ContainerState(name, state, started=said.get("running"))
