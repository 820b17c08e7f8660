from __future__ import annotations

import pytest

from bridge.cli import entry
from bridge.cli.output import age, plain, table
from bridge.errors import Invalid, Violation


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119.9, "119s"),
        (120, "2m"),
        (312, "5m12s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (7 * 3600 + 60, "7h1m"),
        (8 * 3600 + 60, "8h"),
        (48 * 3600, "2d"),
        (49 * 3600, "2d1h"),
        (8 * 24 * 3600, "8d"),
        (2 * 365 * 24 * 3600, "2y"),
        (2 * 365 * 24 * 3600 + 24 * 3600, "2y1d"),
        (9 * 365 * 24 * 3600, "9y"),
    ],
)
def test_ages_are_those_of_kubectl(seconds: float, shown: str) -> None:
    assert age(seconds) == shown


def test_columns_are_padded_as_kubectl_pads_them() -> None:
    lines = table(["NAME", "READY", "AGE"], [["web", "1/1", "5m"], ["a-long-name", "0/1", "3s"]])

    assert lines == [
        "NAME          READY   AGE",
        "web           1/1     5m",
        "a-long-name   0/1     3s",
    ]


def test_a_cell_is_one_line_and_never_obeyed_by_a_terminal() -> None:
    (_, line) = table(["MESSAGE"], [["first\x1b[2J\nsecond"]], colour=False)

    assert line == "first^[[2J..."
    assert plain("tab\tand\nline stay") == "tab\tand\nline stay"
    assert plain("\x1b]0;x\x07 \x9b2J \u202etxt.exe") == "^[]0;x^G ^[2J \ufffdtxt.exe"


def test_errors_are_never_obeyed_by_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for error in (Invalid("a\x1b[2Jb"), Invalid(violations=[Violation("f", "a\x1b[2Jb")])):
        assert entry._say_error(error) == 2
        assert "a^[[2Jb" in capsys.readouterr().err


def test_colour_does_not_shift_columns() -> None:
    (_, line) = table(["STATUS", "AGE"], [["Running", "1s"]], colour=True)

    assert line.endswith("Running\x1b[0m   1s")
