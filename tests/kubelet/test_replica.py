"""The name of a process among those that may act for a node."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.kubelet.replica import BOOT_ID, replica

UID = "0c8b4c3e-2f4d-4a53-9d0c-5f1f3f1d2a4b"


def test_a_replica_keeps_its_name_while_its_folder_lives(tmp_path: Path) -> None:
    first = replica(tmp_path / "n", "n")
    assert first.identity.startswith("n_")
    assert not first.returning
    assert stat.S_IMODE((tmp_path / "n" / "replica").stat().st_mode) == 0o600
    # While it lives nobody else is it.
    second = replica(tmp_path / "n", "n")
    assert second.identity != first.identity
    assert not second.returning
    first.close()
    again = replica(tmp_path / "n", "n")
    assert (again.identity, again.returning) == (first.identity, True)
    again.close()
    second.close()


@pytest.mark.slow
def test_a_replica_whose_process_died_is_back(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from bridge.kubelet.replica import replica\n"
        "print(replica(pathlib.Path(sys.argv[1]), 'n').identity, flush=True)\n"
        "sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        other = replica(tmp_path, "n")
        assert other.identity != name
        child.kill()
        child.wait()
    again = replica(tmp_path, "n")
    assert (again.identity, again.returning) == (name, True)
    again.close()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "nonsense",
        f"n_{UID} another-boot",
        f"m_{UID} {BOOT_ID.read_text().strip()}",
        f"n_not-a-uuid {BOOT_ID.read_text().strip()}",
        "\xff" * 1000,
    ],
)
def test_a_name_from_elsewhere_is_not_taken(tmp_path: Path, content: str) -> None:
    (tmp_path / "replica").write_text(content, "latin-1")
    made = replica(tmp_path, "n")
    assert not made.returning
    assert UID not in made.identity
    made.close()
    again = replica(tmp_path, "n")
    assert (again.identity, again.returning) == (made.identity, True)
    again.close()


def test_where_nothing_can_be_kept_the_name_is_new(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    made = replica(tmp_path / "file" / "n", "n")
    assert made.identity.startswith("n_")
    assert not made.returning
    made.close()
    assert os.listdir(tmp_path) == ["file"]
