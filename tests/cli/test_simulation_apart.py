"""Two simulated clouds at once, as two terminals have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.cli import simulation as simulated
from bridge.config import Config

pytestmark = pytest.mark.slow


def test_what_is_kept_for_helpers_is_each_simulations_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated, "present", lambda _: "")
    folders = []
    for _ in range(2):
        with simulated.simulation(Config(), "fargate", quiet=True) as (backend,):
            folder = Path(backend.options.helper_state)
            assert folder.is_dir()
            folders.append(folder)
    assert folders[0] != folders[1]
    assert not any(folder.exists() for folder in folders)
