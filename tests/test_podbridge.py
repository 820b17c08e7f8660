"""The console script and the packages that it finds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import podbridge

ROOT = Path(podbridge.__file__).parent


def run(*words: str, path: list[Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    script = "import podbridge, sys; podbridge.main()"
    return subprocess.run(
        [sys.executable, "-S", "-c", script, *words],
        capture_output=True,
        text=True,
        env=env,
        cwd=cwd,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", ["adapters", "bridge"])
def test_a_foreign_package_is_one_clear_error_with_the_fix(name: str, tmp_path: Path) -> None:
    foreign = tmp_path / "site" / name
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").write_text('"""Somebody else\'s."""\n')
    ran = run("--help", path=[foreign.parent, ROOT], cwd=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert f'the package "{name}"' in ran.stderr
    assert str(foreign) in ran.stderr
    assert "pipx install podbridge" in ran.stderr


def test_a_package_overwritten_in_place_is_found(tmp_path: Path) -> None:
    home = tmp_path / "site"
    for name in ("bridge", "adapters"):
        (home / name).mkdir(parents=True)
        (home / name / "__init__.py").write_text('"""Somebody else\'s."""\n')
    (home / "podbridge.py").write_text((ROOT / "podbridge.py").read_text())
    ran = run("--help", path=[home], cwd=tmp_path)
    assert ran.returncode == 2
    assert 'the package "bridge"' in ran.stderr


def test_our_own_packages_are_accepted_and_nothing_else_is_imported() -> None:
    assert podbridge.foreign_package() == ""
    heavy = ("pydantic", "grpc", "yaml", "orjson", "click", "adapters")
    script = f"import podbridge, sys; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
