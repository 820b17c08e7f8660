"""What a canary's end says, and runs whose simulated cloud has gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands_kit import home, invoke

from bridge.cli.canary import _judge, waits
from bridge.cli.wiring import Target
from bridge.config import BackendConfig
from bridge.local.runs import Runs

__all__ = ["home"]


def ended(code: int, reason: str = "Error") -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "reason": reason}}
    return {"phase": "Failed", "containerStatuses": [{"name": "main", "state": state}]}


def pending(reason: str, message: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
    return {"phase": "Pending", "containerStatuses": [{"name": "main", "state": state}]}


@pytest.mark.parametrize(
    ("status", "good", "words"),
    [
        (ended(7), True, "7, as it should be"),
        (ended(1), False, "found 1, wanted 7: Error"),
        (ended(127, "StartError"), False, "found 127, wanted 7: StartError"),
        (
            {"phase": "Failed", "reason": "DeadlineExceeded", "message": "too long"},
            False,
            "found none, wanted 7: DeadlineExceeded: too long",
        ),
        ({}, False, "found none, wanted 7: the pod is Pending"),
    ],
)
def test_how_it_came_back(status: dict[str, Any], *, good: bool, words: str) -> None:
    step = _judge({"status": status}, 1.0)
    assert (step.good, step.words) == (good, words)


def test_a_run_whose_simulated_cloud_has_gone(home: Path) -> None:
    backend = BackendConfig(name="null", type="null").with_options({}, simulated=True)
    Runs().create("gone", [], Target((backend,), None, 60.0).remember(), 0.0)
    code, _, error = invoke("attach", "gone")
    assert code == 3
    assert "its simulated cloud ended with the command that began it" in error
    assert invoke("delete", "gone")[0] == 0
    assert Runs().find("gone") is None


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({}, ""),
        (pending("ContainerCreating"), ""),
        (
            pending("ContainerCreating", 'Pulling image "i"'),
            'ContainerCreating: Pulling image "i"',
        ),
        (pending("ErrImagePull", "no"), "the image could not be pulled (ErrImagePull): no"),
        ({"phase": "Pending", "reason": "Queued", "message": "2 pods"}, "Queued: 2 pods"),
        (ended(7), ""),
    ],
)
def test_what_it_waits_for(status: dict[str, Any], words: str) -> None:
    assert waits({"status": status}) == words
