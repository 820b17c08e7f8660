"""Manifests with statuses, a home of one's own, and the command line in process or as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bridge.cli.entry import cli
from bridge.cli.wiring import Target
from bridge.config import BackendConfig
from bridge.errors import BridgeError, Invalid, NotFound, Unsupported
from bridge.local.runs import Run, Runs, Wanted

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home: no runs, no configuration, no variables of ours."""
    for name in list(os.environ):
        if name.startswith("PODBRIDGE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*words: str, text: str | None = None) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command, in this process; errors become words as in main."""
    result: Result = CliRunner().invoke(cli, words, input=text, standalone_mode=False)
    code = result.return_value if isinstance(result.return_value, int) else result.exit_code
    error = result.stderr
    if result.exception is not None:
        wrong = result.exception
        if isinstance(wrong, BridgeError):
            code = 2 if isinstance(wrong, (Invalid, NotFound, Unsupported)) else 3
            error += "\n".join(f"error: {one}" for one in wrong.violations or (wrong.message,))
        elif hasattr(wrong, "format_message"):
            code = 2
            error += wrong.format_message()
        else:
            raise wrong
    return code, result.stdout, error


def podbridge(
    *words: str, text: str = "", timeout: float = 60
) -> subprocess.CompletedProcess[bytes]:
    """The command as people start it."""
    return subprocess.run(
        [sys.executable, str(ROOT / "podbridge.py"), *words],
        input=text.encode(),
        capture_output=True,
        timeout=timeout,
        check=False,
    )


def make_run(name: str, *objects: dict[str, Any], created: float = 0.0) -> Run:
    """A run on disk that nobody attends."""
    return Runs().create(name, list(objects), _options("null"), created)


def fake_run(name: str = "words", folder: Path = Path("/nowhere")) -> Run:
    """A run that is on no disk."""
    uid = "6a0c1b3e-0000-4000-8000-000000000000"
    return Run(folder / name, Wanted(name, uid, 0.0, [], _options("process")))


def _options(name: str) -> dict[str, Any]:
    return Target((BackendConfig(name=name, type=name),), None, 3600.0).remember()


def pod(name: str = "web", *, spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    """A pod with one container and a status."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"},
        "spec": spec or {"containers": [{"name": "main", "image": "busybox"}]},
        "status": {"phase": "Running", **status},
    }


def container(name: str = "main", *, restarts: int = 0, **state: Any) -> dict[str, Any]:
    """A container's status; `last`: how its run before ended."""
    last = state.pop("last", None)
    ready = state.pop("ready", "running" in state)
    return {
        "name": name,
        "state": state,
        "lastState": {"terminated": last} if last else {},
        "restartCount": restarts,
        "ready": ready,
        "started": ready,
    }
