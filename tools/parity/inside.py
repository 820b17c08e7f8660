"""The first process of the real node's own namespaces: containerd, its images, the kubelet.

Usage: python -m tools.parity.inside FOLDER CONTAINERD CTR IMAGES -- KUBELET ARG ...

It ends with its standard input, and with it everything that was started in its PID namespace:
shims, containers, and every mount that they made. Until then it buries whatever is orphaned.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

COVERED = ("/var/lib/kubelet", "/var/log/containers", "/var/lib/cni", "/run/containerd")
"""Folders that a kubelet and containerd use whatever they are told: here they get empty ones."""
START = 120.0
"""Seconds that containerd may take to listen; it takes one or two."""
LOOK = 0.25
"""Seconds between two looks at whether both still run."""


def main(arguments: Sequence[str]) -> int:
    """The command."""
    split = [*arguments].index("--")
    folder, containerd, ctr, images = arguments[:split]
    at = Path(folder)
    for one in COVERED:
        subprocess.run(["mount", "-t", "tmpfs", "podbridge-parity", one], check=True)
    runtime = _spawn(at, "containerd", [containerd, "-c", str(at / "containerd.toml")])
    address = str(at / "containerd.sock")
    deadline = time.monotonic() + START
    while not _answers(address):
        if time.monotonic() > deadline or _ended(runtime):
            return 1
        time.sleep(0.05)
    with (at / "import.log").open("wb") as log:
        words = [ctr, "-a", address, "-n", "k8s.io", "images", "import", images]
        subprocess.run(words, stdout=log, stderr=log, check=True)
    kubelet = _spawn(at, "kubelet", arguments[split + 1 :])
    while not select.select([sys.stdin], [], [], LOOK)[0]:
        if _ended(runtime) or _ended(kubelet):
            return 1
        _bury({runtime.pid, kubelet.pid})
    for process in (kubelet, runtime):
        process.terminate()
        process.wait()
    return 0


def _spawn(folder: Path, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(address) == 0


def _ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None


def _bury(ours: set[int]) -> None:
    """Orphans come to the first process of a PID namespace; those that have ended wait for it."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in ours:
            return
        os.waitpid(found.si_pid, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
