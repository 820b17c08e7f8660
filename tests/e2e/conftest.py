from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_kit import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A place of its own, in which afterwards nothing may be left."""
    made = Place(tmp_path)
    yield made
    made.close()
