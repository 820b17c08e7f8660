"""The load bench, on a few pods: it counts what there is to count, and says what it cannot do."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_plane_kit import PATIENCE, ControlPlane

from tools.control_plane.recipes import HERE

TOOLS = HERE.parent
PODS = 12

pytestmark = pytest.mark.slow


def bench(plane: ControlPlane, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOLS / "bench_node.py"), "--kubeconfig", str(plane.kubeconfig)]
    return subprocess.run(
        [*command, *words], capture_output=True, text=True, timeout=2 * PATIENCE, check=False
    )


@pytest.fixture
def bare(control_plane: ControlPlane) -> Iterator[subprocess.Popen[bytes]]:
    kubeconfig = control_plane.node_kubeconfig("bare")
    process = subprocess.Popen(
        [sys.executable, str(TOOLS / "bench_bare.py"), "play", str(kubeconfig), "bare"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"READY\n"
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)
        with contextlib.closing(control_plane.api()) as api:
            api.delete("/api/v1/nodes/bare")


def test_it_measures_a_node(control_plane: ControlPlane, bare: subprocess.Popen[bytes]) -> None:
    words = ["--node", "bare", "--pods", str(PODS), "--pid", f"loop={bare.pid}", "--json"]
    words += ["--audit", str(control_plane.audit_log), "--agent", "bare-node"]
    done = bench(control_plane, *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["reached"], found["gone"]) == (PODS, PODS)
    # A token that the API server was not ready to give yet is asked for again.
    calls = {name: many for name, many in found["calls"].items() if name.rpartition(" ")[2] < "4"}
    calls = {name: many for name, many in calls.items() if " leases " not in name}
    assert calls == {
        "create serviceaccounts/token 201": PODS,
        "patch pods/status 200": 2 * PODS,
        "create events 201": 2 * PODS,
        "delete pods 200": PODS,
    }
    assert found["api_calls_a_pod"] >= 6.0
    assert found["pods_per_second"] > 0
    assert found["cpu"]["loop"] > 0
    assert found["memory"]["loop"] > 10e6
    bare.terminate()
    assert bare.wait(PATIENCE) == 0


def test_it_says_what_it_cannot_do(control_plane: ControlPlane, tmp_path: Path) -> None:
    too_many = bench(control_plane, "--node", "n", "--pods", "1000000")
    assert too_many.returncode == 2
    assert "pods: 1000000; allowed: 1 to 10000" in too_many.stderr
    gone = bench(control_plane, "--node", "n", "--pid", "agent=999999999")
    assert gone.returncode == 3
    assert gone.stderr == "error: agent has ended (process 999999999)\n"
    for content in ("{}", "a: [", "a: b"):
        file = tmp_path / "kubeconfig"
        file.write_text(content)
        wrong = bench(control_plane, "--node", "n", "--kubeconfig", str(file))
        assert wrong.returncode == 3
        assert wrong.stderr.startswith(f"error: {file}: this is no kubeconfig")
        assert "Traceback" not in wrong.stderr
