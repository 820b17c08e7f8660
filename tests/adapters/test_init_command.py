"""`podbridge init aws`, as people type it, on moto's server."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from moto_kit import REGION, Account, gateway, moto

__all__ = ["moto"]

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def environment(home: Path, moto: str) -> dict[str, str]:
    """The standard variables, and nothing of this process's own."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "AWS_ENDPOINT_URL": moto,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "hidden-key",
    }


def init(home: Path, moto: str, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "podbridge.py"), *words],
        env=environment(home, moto),
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "hidden-key" not in done.stdout + done.stderr
    return done


def test_it_writes_a_configuration_and_overwrites_none(tmp_path: Path, moto: str) -> None:
    gateway(Account(moto))
    file = tmp_path / "pods.yaml"
    done = init(tmp_path, moto, "--config", str(file), "init", "aws")
    assert f"fargate: account 123456789012, {REGION}, as arn:aws:" in done.stderr
    assert f"wrote {file}" in done.stderr
    assert "aws ecs create-cluster --cluster-name podbridge --capacity-providers FARGATE" in (
        done.stderr
    )
    assert "next: podbridge backends fargate --verify" in done.stderr
    (backend,) = yaml.safe_load(file.read_text())["backends"]
    assert (backend["type"], backend["region"], backend["public_ip"]) == ("fargate", REGION, True)
    assert "endpoint_url" not in backend
    assert init(tmp_path, moto, "--config", str(file), "config", "check").stdout.startswith(
        f"{file}: valid; backends: fargate (fargate)"
    )

    file.write_text("max_run: 1h\n")
    done = init(tmp_path, moto, "--config", str(file), "init", "aws", code=2)
    assert f"{file} exists, and is not overwritten" in done.stderr
    # What is missing is said all the same.
    assert "warning: helper_image: no image has the helper yet" in done.stderr
    assert file.read_text() == "max_run: 1h\n"


def test_a_dry_run_prints_it(tmp_path: Path, moto: str) -> None:
    done = init(tmp_path, moto, "init", "aws", "--dry-run", "--endpoint-url", moto)
    (backend,) = yaml.safe_load(done.stdout)["backends"]
    assert backend["endpoint_url"] == moto
    assert not (tmp_path / ".config").exists()


def test_a_terminal_is_asked(tmp_path: Path, moto: str) -> None:
    file = tmp_path / "pods.yaml"
    file.write_text("max_run: 1h\n")
    for answer, written in (("n", False), ("y", True)):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "podbridge.py"), "--config", str(file), "init", "aws"],
            env={**environment(tmp_path, moto), "TERM": "dumb"},
            cwd=tmp_path,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        said = b""
        while b"[y/N]" not in said:
            said += os.read(ours, 4096)
        os.write(ours, f"{answer}\n".encode())
        _drain(ours)
        assert process.wait(120) == (0 if written else 2), said
        os.close(ours)
        assert ("backends:" in file.read_text()) is written


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:
        # EIO: the last who had it open has gone.
        return


def test_wrong_words(tmp_path: Path, moto: str) -> None:
    done = init(tmp_path, moto, "init", "awss", code=2)
    assert 'CLOUD: found "awss"; allowed: aws; did you mean "aws"?' in done.stderr
