"""The helper's program for tests, built for this machine where it is not yet."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bridge.helper.program import machine_of, pinned
from helper.build import NEEDED, SOURCE, build, digest
from tools.control_plane.toolchain import CannotBeHad, environment, find


def built() -> Path:
    """Where it is. Skips the test where there is no Go to build it with, and says so."""
    assert pinned()["sources"] == digest(), "python helper/build.py --pin"
    try:
        return build(machine_of(platform.machine()))
    except CannotBeHad as why:
        pytest.skip(str(why))


def go(*words: str) -> None:
    """A command of Go's on the helper's sources, which must end well and, but for `go`, say
    nothing. Skips the test where there is none."""
    try:
        found = find(NEEDED, sys.stderr.write).resolve()
    except CannotBeHad as why:
        pytest.skip(str(why))
    _run([str(found.with_name(words[0])), *words[1:]], is_quiet=words[0] != "go")


def _run(command: Sequence[str], *, is_quiet: bool) -> None:
    done = subprocess.run(
        command, cwd=SOURCE, env=environment(), capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (is_quiet and done.stdout), done.stdout
