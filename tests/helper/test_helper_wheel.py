"""A wheel carries the helper as it was pinned."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bridge.helper.program import pinned
from helper.build import MACHINES, build

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow

_READ = """
import hashlib, json
from bridge.helper import program
machines = json.loads(input())
print(json.dumps({one: hashlib.sha256(program.program(one)).hexdigest() for one in machines}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    command = ["pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run(
        [sys.executable, "-m", *command, "-w", str(folder), str(ROOT)], check=True, timeout=300
    )
    (made,) = folder.glob("*.whl")
    with zipfile.ZipFile(made) as file:
        file.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_it_has_the_programs_that_were_pinned_and_no_others(wheel: Path) -> None:
    built = {one: hashlib.sha256(build(one).read_bytes()).hexdigest() for one in MACHINES}
    expected = {one: digest for one, digest in built.items() if digest == pinned()[one]}
    found = {one.name for one in (wheel / "bridge" / "helper" / "bin").glob("*")}
    assert found == {f"podbridge-helper-{one}" for one in expected}
    said = subprocess.run(
        [sys.executable, "-c", _READ],
        input=json.dumps(list(expected)),
        # What a checkout has built is elsewhere.
        env={"PYTHONPATH": str(wheel), "XDG_CACHE_HOME": str(wheel), "PATH": ""},
        cwd=wheel,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(said.stdout) == expected


def test_a_program_that_was_changed_is_not_taken(wheel: Path) -> None:
    folder = wheel / "bridge" / "helper" / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "podbridge-helper-amd64").write_bytes(b"another")
    said = subprocess.run(
        [sys.executable, "-c", _READ],
        input='["amd64"]',
        env={"PYTHONPATH": str(wheel), "PATH": ""},
        cwd=wheel,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert said.returncode
    assert "is not the program that this package was made with" in said.stderr
