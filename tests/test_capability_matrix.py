from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from bridge.adapter import YES, approximately, no
from bridge.provider.capabilities import BASE

SCRIPT = Path(__file__).parent.parent / "tools" / "capability_matrix.py"


@pytest.fixture
def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("capability_matrix", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TARGET", tmp_path / "docs" / "capabilities.md")
    monkeypatch.setattr(module, "tables", lambda: TABLES)
    return module


TABLES = {
    "all": {**BASE, "spec": YES},
    "some": {
        **BASE,
        "spec": no("is nothing here"),
        "spec.containers[].resources": approximately("is a hint"),
        "spec.hostIPC": no("is nothing here"),
    },
}


def test_one_row_for_each_field_that_differs_from_what_holds_it(matrix: Any) -> None:
    found = {path: line for line in matrix.render(TABLES).splitlines() if (path := _path(line))}
    assert found["spec.hostIPC"] == "| `spec.hostIPC` | yes | no [1](#notes) |"
    assert found["spec.containers[].resources"].endswith("| yes | about [3](#notes) |")
    assert found["spec.tolerations"] == "| `spec.tolerations` | yes | yes |"
    assert "spec.tolerations[].key" not in found
    assert "spec.containers[].resources.limits" not in found
    assert "spec.initContainers[].resources" not in found


def _path(line: str) -> str:
    return line.split("`")[1] if line.startswith("| `") else ""


def test_notes_are_numbered_once(matrix: Any) -> None:
    text = matrix.render(TABLES)
    assert text.count("is nothing here") == 1
    assert "\n3. is a hint\n" in text


def test_stale_is_an_error(matrix: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert matrix.main(["--check"]) == 1
    assert "capabilities.md is stale" in capsys.readouterr().err
    assert matrix.main([]) == 0
    assert matrix.main(["--check"]) == 0
    matrix.TARGET.write_text("other")
    assert matrix.main(["--check"]) == 1
