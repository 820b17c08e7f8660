from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands_kit import ROOT, home, podbridge

pytestmark = pytest.mark.slow

__all__ = ["home"]

MANIFESTS = """\
apiVersion: batch/v1
kind: Job
metadata: {name: words}
spec:
  completions: 3
  parallelism: 3
  completionMode: Indexed
  template:
    metadata: {labels: {app: words}}
    spec:
      restartPolicy: Never
      containers:
      - {name: count, image: none, command: [sh, -c, "echo shard $JOB_COMPLETION_INDEX"]}
---
apiVersion: v1
kind: Pod
metadata: {name: gate, labels: {app: gate}}
spec:
  restartPolicy: OnFailure
  containers:
  - name: main
    image: none
    command:
    - sh
    - -c
    - |
      printf 'first\\nno newline'
      until test -e GO; do sleep 0.02; done
      printf ', then the end\\377'
"""


@pytest.fixture
def live(home: Path) -> Iterator[Path]:
    """A run in the background: a Job that ends, and a pod that waits for a file."""
    text = MANIFESTS.replace("GO", str(home / "go"))
    started = podbridge("run", "-f", "-", "--name", "live", "--on", "process", "-d", text=text)
    assert started.returncode == 0, started.stderr
    yield home
    (home / "go").touch()
    podbridge("delete", "live")


def follow(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "podbridge.py"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for_gate() -> None:
    """Returns once the gate runs and the Job is done."""
    watching = follow("logs", "live", "gate", "-f")
    assert watching.stdout is not None
    assert watching.stdout.readline() == b"first\n"
    watching.terminate()
    watching.communicate(timeout=30)
    jobs = follow("logs", "job/words", "-f")
    out, _ = jobs.communicate(timeout=30)
    assert sorted(one.split()[-1] for one in out.splitlines()) == [b"0", b"1", b"2"]


def test_a_run_from_its_middle_to_its_end(live: Path) -> None:
    wait_for_gate()
    late = podbridge("wait", "live", "--timeout", "100ms")
    assert late.returncode == 124
    assert b"it goes on" in late.stderr

    rows = podbridge("ps").stdout.decode().splitlines()
    assert rows[0].split() == ["NAME", "STATUS", "PODS", "FAILED", "AGE", "BACKEND"]
    assert rows[1].split()[:4] == ["live", "Running", "3/4", "0"]

    rows = podbridge("get", "pods", "-o", "wide").stdout.decode().splitlines()
    assert [one.split()[2] for one in rows[1:]] == ["Running"] + ["Completed"] * 3
    assert all(one.split()[-1] == "process" for one in rows[1:])
    names = podbridge("get", "po", "-l", "app in (words)", "-o", "name").stdout.split()
    assert len(names) == 3
    one = json.loads(podbridge("get", names[0].decode(), "-o", "json").stdout)
    assert (one["kind"], one["apiVersion"]) == ("Pod", "v1")
    row = podbridge("get", "jobs").stdout.decode().splitlines()[1]
    assert row.split()[:3] == ["words", "Complete", "3/3"]
    assert "SuccessfulCreate" in podbridge("get", "events", "words").stdout.decode()

    watching, following = follow("get", "pods", "-w"), follow("logs", "gate", "-f")
    assert watching.stdout is not None
    assert following.stdout is not None
    assert watching.stdout.readline().split()[:2] == [b"NAME", b"READY"]
    assert following.stdout.readline() == b"first\n"
    (live / "go").touch()
    out, error = following.communicate(timeout=30)
    assert (following.returncode, out) == (0, b"no newline, then the end\377"), error
    out, error = watching.communicate(timeout=30)
    assert (watching.returncode, error) == (0, b"")
    assert [one for one in out.splitlines() if one.startswith(b"gate ")][-1].split()[2] == (
        b"Completed"
    )

    ended = podbridge("wait", "live")
    assert (ended.returncode, ended.stderr) == (0, b"run/live succeeded\n")


def test_an_ended_run_is_read_from_its_backend(live: Path) -> None:
    (live / "go").touch()
    assert podbridge("wait", "live").returncode == 0

    (run,) = json.loads(podbridge("ps", "-o", "json").stdout)["items"]
    assert run["status"]["phase"] == "Succeeded"
    assert run["status"]["exitCode"] == 0
    assert run["status"]["pods"] == {"total": 4, "succeeded": 4, "failed": 0}
    log = podbridge("logs", "gate")
    assert log.stdout == b"first\nno newline, then the end\377"
    assert podbridge("logs", "gate", "--tail", "1").stdout == b"no newline, then the end\377"
    lines = podbridge("logs", "live").stdout.splitlines()
    assert b"[pod/gate/main] first" in lines
    assert len(lines) == 5
    missing = podbridge("logs", "gate", "-p")
    assert missing.returncode == 2
    assert b'previous terminated container "main" in pod "gate" not found' in missing.stderr
    wrong = podbridge("logs", "gate", "-c", "man")
    assert wrong.returncode == 2
    assert b"allowed: main" in wrong.stderr
    text = podbridge("describe", "pod", "gate").stdout.decode()
    assert "Status:" in text
    assert "Exit Code:" in text
    assert podbridge("describe", "live", "job/words").stdout.startswith(b"Name:")
    near = podbridge("describe", "live", "gat")
    assert near.returncode == 2
    assert b'did you mean "gate"' in near.stderr
