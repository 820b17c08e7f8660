"""Prices by region: those of the package, and those that were read since."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from bridge.groups.prices import PriceTable


@dataclass(frozen=True)
class Paper:
    read_on: date
    price: int
    source: str = ""


def read(plain: Mapping[str, Any]) -> Paper:
    return Paper(date.fromisoformat(plain["read_on"]), int(plain["price"]))


def of(day: int, price: Any) -> dict[str, Any]:
    return {"read_on": f"2026-01-{day:02}", "price": price}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PriceTable[Paper]:
    package = tmp_path / "cloud_on_paper"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "price_table.json").write_text(json.dumps({"regions": {"north": of(10, 1)}}))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "cloud_on_paper", raising=False)
    return PriceTable("paper", "cloud_on_paper", read)


def test_the_newer_counts(table: PriceTable[Paper]) -> None:
    assert table.known("north") == Paper(date(2026, 1, 10), 1)
    assert table.known("south") is None
    table.keep("north", of(9, 2))
    table.keep("south", of(9, 3))
    assert table.known("north") == Paper(date(2026, 1, 10), 1)
    assert table.known("south") == Paper(date(2026, 1, 9), 3)
    table.keep("north", of(11, 4))
    assert table.known("north") == Paper(date(2026, 1, 11), 4)
    assert table.known("south") == Paper(date(2026, 1, 9), 3)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"regions": {"south": {"price": "much"}}}'])
def test_a_cache_that_makes_no_sense_is_none(table: PriceTable[Paper], text: str) -> None:
    table.cache.parent.mkdir(parents=True)
    table.cache.write_text(text)
    assert table.known("north") == Paper(date(2026, 1, 10), 1)
    table.keep("south", of(9, 3))
    assert table.known("south") == Paper(date(2026, 1, 9), 3)
