from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_kit import Place
from support import engine, helper_program


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A place of its own, in which afterwards nothing may be left."""
    made = Place(tmp_path)
    yield made
    made.close()


@pytest.fixture
def helper() -> dict[str, str]:
    """Variables by which commands find the helper's program, built where it is not yet."""
    return {"XDG_CACHE_HOME": str(helper_program.built().parents[2])}


@pytest.fixture(params=["process", "engine"])
def anywhere(request: pytest.FixtureRequest, place: Place) -> Place:
    """Such a place on each backend of this machine."""
    if request.param == "engine":
        if problem := engine.problem():
            pytest.skip(problem)
        place.use_engine()
    return place
