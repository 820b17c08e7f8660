"""The end of a control plane: in order, and however it comes nothing is left of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_plane_kit import PATIENCE, none_left, processes_of

from tools.control_plane import assets, handle
from tools.control_plane import plane as under_test
from tools.control_plane.api import Api
from tools.control_plane.components import PORTS, Setup

pytestmark = pytest.mark.slow

PARTS = 4
"""etcd, API server, scheduler, controllers."""
HOLDER = """
import sys, time
from pathlib import Path
from tools.control_plane import handle
with handle.running(Path(sys.argv[1], "plane"), version=sys.argv[2]) as plane:
    print("READY", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def held(folder: Path, version: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own that holds a control plane in `plane`; killed in the end."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), version],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    watch = threading.Timer(handle.START, holder.kill)
    watch.start()
    try:
        assert holder.stdout.readline() == b"READY\n"
        yield holder
    finally:
        watch.cancel()
        holder.kill()
        holder.communicate()


def test_nothing_is_left(tmp_path: Path, kubernetes_version: str) -> None:
    with handle.running(tmp_path, version=kubernetes_version):
        assert len(processes_of(tmp_path)) == PARTS + 1
    assert processes_of(tmp_path) == []
    assert not (tmp_path / "etcd").exists()


def test_nothing_is_left_of_one_whose_holder_is_killed(
    tmp_path: Path, kubernetes_version: str
) -> None:
    with held(tmp_path, kubernetes_version) as holder:
        assert len(processes_of(tmp_path / "plane")) == PARTS + 1
        holder.kill()
        none_left(tmp_path / "plane")
    # Its keeper came to its own end.
    assert not (tmp_path / "plane" / "etcd").exists()


def test_nothing_is_left_of_one_whose_keeper_is_killed(
    tmp_path: Path, kubernetes_version: str
) -> None:
    with held(tmp_path, kubernetes_version):
        keeper = next(one for one in processes_of(tmp_path / "plane") if "run.py" in one)
        os.kill(int(keeper.partition(":")[0]), signal.SIGKILL)
        none_left(tmp_path / "plane")


def test_nothing_is_left_of_one_that_is_stopped_while_it_starts(
    tmp_path: Path, kubernetes_version: str
) -> None:
    command = [sys.executable, str(handle.RUN), "--version", kubernetes_version]
    process = subprocess.Popen(
        [*command, "--folder", str(tmp_path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "kube-apiserver.log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.terminate()
    _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (0, b"")
    assert processes_of(tmp_path) == []


def test_what_ends_by_itself_ends_all_and_is_named(tmp_path: Path, kubernetes_version: str) -> None:
    def trouble() -> None:
        with handle.running(tmp_path, version=kubernetes_version) as plane:
            os.kill(plane.pids["kube-scheduler"], signal.SIGKILL)
            none_left(tmp_path)
            plane.stop_one("etcd")

    with pytest.raises(handle.NotRunning, match="kube-scheduler has ended with -9"):
        trouble()


def test_a_port_that_somebody_else_took_is_left_to_them(
    tmp_path: Path, kubernetes_version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, first = under_test._free_ports, dict.fromkeys(PORTS.values(), True)
    with socket.create_server(("127.0.0.1", 0)) as taken:

        def unlucky(number: int) -> list[int]:
            ports = list(real(number))
            if first.pop(number, False):
                ports[-1] = taken.getsockname()[1]
            return ports

        monkeypatch.setattr(under_test, "_free_ports", unlucky)
        made = under_test.Plane(Setup(tmp_path, assets.locate(kubernetes_version)))
        try:
            made.start()
            assert made.ended() == ""
            used = {port for ports in made.ports.values() for port in ports}
            assert taken.getsockname()[1] not in used
        finally:
            made.stop()
    assert processes_of(tmp_path) == []


def test_for_people_the_pods_end_with_their_cluster(
    tmp_path: Path, kubernetes_version: str
) -> None:
    node = [sys.executable, "-m", "podbridge", "up", "--on", "process", "--no-taint"]
    command = [sys.executable, str(handle.RUN), "--version", kubernetes_version, "--trusting"]
    process = subprocess.Popen(
        [*command, "--folder", str(tmp_path), "--", *node],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    if not any("joining" in line for line in lines):
        raise AssertionError(process.communicate(timeout=PATIENCE))
    script = f"echo {tmp_path} > {tmp_path}/ran; exec tail -f {tmp_path}/ran"
    container = {"name": "main", "image": "none", "command": ["sh", "-c", script]}
    api = Api(tmp_path / "admin.kubeconfig")
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [container]}}
    api.post("/api/v1/namespaces/default/pods", pod)
    api.until(
        "/api/v1/namespaces/default/pods/p",
        lambda pod: pod["status"]["phase"] == "Running",
        limit=PATIENCE,
    )
    api.close()
    assert any("tail" in one for one in processes_of(tmp_path))
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, ""), said
    assert processes_of(tmp_path) == []


def test_for_people_it_goes_on_until_it_is_interrupted_and_so_does_what_runs_beside_it(
    tmp_path: Path, kubernetes_version: str
) -> None:
    beside = f'echo "beside $KUBECONFIG"; exec tail -f {tmp_path}/ca.crt >/dev/null'
    command = [sys.executable, str(handle.RUN), "--version", kubernetes_version]
    process = subprocess.Popen(
        [*command, "--folder", str(tmp_path), "--", "sh", "-c", beside],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    said: list[str] = []
    for line in lines:
        said.append(line.strip())
        if line.startswith("beside"):
            break
    assert f"export KUBECONFIG={tmp_path}/admin.kubeconfig" in said
    assert said[-1] == f"beside {tmp_path}/admin.kubeconfig"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")
    assert processes_of(tmp_path) == []
