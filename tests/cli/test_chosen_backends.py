"""What `--on` may name, and what is said where it may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands_kit import home, invoke

__all__ = ["home"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "fargate",
            '--on: "fargate" is not configured: podbridge init aws makes a configuration, and '
            "run, check, plan and backends take --simulate, which needs none",
        ),
        (
            "fargat",
            '--on: found "fargat"; allowed: engine, null, process; did you mean "fargate"?',
        ),
        ("nothing", '--on: found "nothing"; allowed: engine, null, process'),
    ],
)
def test_what_cannot_be_named(home: Path, word: str, said: str) -> None:
    code, _, error = invoke("run", "hello", "--on", word, "--", "true")
    assert (code, error) == (2, f"error: {said}")


def test_what_is_not_configured_says_what_to_do_next(home: Path) -> None:
    (line,) = [one for one in invoke("backends")[1].splitlines() if one.startswith("fargate ")]
    assert line.endswith(
        "not configured: podbridge init aws makes a configuration, and run, check, plan and"
        " backends take --simulate, which needs none"
    )
