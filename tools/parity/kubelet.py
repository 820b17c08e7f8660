"""The real node: a kubelet with containerd and runc beside a control plane, and its end.

Both run in a PID and a mount namespace of their own (see `inside`): when the first process there
ends, so does every container, and no mount is left. What else they change on a machine is undone:
control groups, sysctls, the folders that they insist on.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tools.conformance.containers import MORTAL
from tools.conformance.node import address
from tools.control_plane.api import ApiError
from tools.control_plane.handle import ControlPlane
from tools.parity.inside import COVERED

NAME = "kubelet-1"
"""As long as the other node's name, so that what is printed of it is as long."""
START = 240.0
"""Seconds in which the node must be Ready; it takes ten."""
STOP = 60.0
"""Seconds in which it must end when told to."""
PAUSE = "stand-ins.invalid/parity/pause:1"
CNI = Path("/usr/lib/cni")
"""Where Debian's containernetworking-plugins puts them."""
_PLUGINS = ("ptp", "host-local", "loopback")
_SUBNET = "10.213.0.0/16"
_GROUPS = Path("/sys/fs/cgroup")
_ROOT = "podbridge-parity"
"""The control group under which the kubelet makes its own."""
_SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
"""What a kubelet sets to its liking (setupKernelTunables in its container_manager_linux.go)."""
PROGRAMS = ("kubelet", "containerd", "containerd-shim-runc-v2", "ctr")
_CONTAINERD = """\
version = 3
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/containerd.sock"
[ttrpc]
  address = "{folder}/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{cni}"]
  conf_dir = "{folder}/cni"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""


class Missing(Exception):
    """What a real node needs and this machine lacks; the text says what to install."""


class NotReady(Exception):
    """The node does not become Ready; the text has its own words."""


def lacking() -> str:
    """What is missing here for a real kubelet; empty where all is there."""
    if os.geteuid() != 0:
        return "a real kubelet runs as root only"
    for program, package in (("runc", "runc"), ("unshare", "util-linux"), ("mount", "mount")):
        if shutil.which(program) is None:
            return f"no {program} here: install it (Debian: apt-get install {package})"
    if missing := [one for one in _PLUGINS if not (CNI / one).exists()]:
        words = "install them (Debian: apt-get install containernetworking-plugins)"
        return f"no CNI plugins {', '.join(missing)} in {CNI}: {words}"
    return ""


@contextlib.contextmanager
def running(
    plane: ControlPlane, programs: Mapping[str, Path], images: Path, folder: Path
) -> Iterator[None]:
    """While this goes on the node `NAME` is there and Ready. `images`: an archive with all of them.
    Missing, NotReady."""
    if words := lacking():
        raise Missing(words)
    folder.mkdir(parents=True, exist_ok=True)
    with _tidy(folder):
        _write(plane, folder)
        process = _spawn(programs, images, folder, plane.node_kubeconfig(NAME))
        try:
            _ready(plane, process, folder)
            yield
        finally:
            _end(process)


def _spawn(
    programs: Mapping[str, Path], images: Path, folder: Path, kubeconfig: Path
) -> subprocess.Popen[bytes]:
    flags = {
        "config": folder / "kubelet.json",
        "kubeconfig": kubeconfig,
        "hostname-override": NAME,
        "node-ip": address(),
        "root-dir": folder / "kubelet",
        "cert-dir": folder / "pki",
    }
    kubelet = [str(programs["kubelet"]), *(f"--{name}={value}" for name, value in flags.items())]
    alone = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc"]
    inside = [sys.executable, "-m", "tools.parity.inside", str(folder)]
    inside += [str(programs["containerd"]), str(programs["ctr"]), str(images), "--"]
    # containerd looks for its shim in PATH.
    path = f"{programs['containerd'].parent}:{os.environ['PATH']}"
    with (folder / "node.log").open("wb") as log:
        return subprocess.Popen(
            [*MORTAL, *alone, "--kill-child", "--", *inside, *kubelet],
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, "PATH": path},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(STOP)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _write(plane: ControlPlane, folder: Path) -> None:
    (folder / "cni").mkdir(exist_ok=True)
    settings = _CONTAINERD.format(folder=folder, pause=PAUSE, cni=CNI)
    (folder / "containerd.toml").write_text(settings)
    (folder / "cni" / "10.conflist").write_text(json.dumps(_network(folder)))
    (folder / "kubelet.json").write_text(json.dumps(configuration(plane.ca, folder, _free_port())))


def _network(folder: Path) -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": _SUBNET}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(folder / "addresses"),
    }
    return {
        "cniVersion": "0.4.0",
        "name": "parity",
        "plugins": [{"type": "ptp", "ipam": addresses}],
    }


def configuration(ca: Path, folder: Path, port: int) -> dict[str, object]:
    """The kubelet's own. What is not said is its default."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address(),
        "port": port,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(ca)},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{_ROOT}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "evictionHard": {},
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": False,
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "podLogsDir": str(folder / "logs"),
        "clusterDomain": "cluster.local",
        "clusterDNS": ["10.0.0.10"],
        "maxPods": 200,
        # A changed ConfigMap is in its volumes within this, and not after a minute.
        "syncFrequency": "10s",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


def _ready(plane: ControlPlane, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START
    with contextlib.closing(plane.api()) as api:
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(ApiError):
                node = api.get(f"/api/v1/nodes/{NAME}")
                conditions = (node.get("status") or {}).get("conditions") or ()
                ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
                if ready and not node["spec"].get("taints"):
                    return
            time.sleep(0.2)
    raise NotReady(f"the kubelet's node is not Ready: {_last_words(folder)}")


def _last_words(folder: Path) -> str:
    said = [folder / f"{name}.log" for name in ("node", "import", "containerd", "kubelet")]
    parts = [one.read_text(errors="replace")[-1500:].strip() for one in said if one.exists()]
    return "\n".join(part for part in parts if part) or "it says nothing"


# -- what they change on a machine ----------------------------------------------------------------


@contextlib.contextmanager
def _tidy(folder: Path) -> Iterator[None]:
    made = [one for one in map(Path, COVERED) if not one.exists()]
    for one in map(Path, COVERED):
        one.mkdir(parents=True, exist_ok=True)
    files = [Path("/proc/sys") / name for name in _SYSCTLS]
    before = {one: one.read_text() for one in files if one.exists()}
    groups = _make_groups()
    try:
        yield
    finally:
        _remove_groups(groups)
        for one, value in before.items():
            if one.read_text() != value:
                one.write_text(value)
        for one in made:
            with contextlib.suppress(OSError):
                one.rmdir()
        # Images are large, and can be had again.
        for name in ("root", "state", "kubelet"):
            shutil.rmtree(folder / name, ignore_errors=True)


def _make_groups() -> Sequence[Path]:
    """The kubelet wants its root to be there, in each hierarchy; the runtime makes more of them."""
    if (_GROUPS / "cgroup.controllers").exists():
        found = [_GROUPS / _ROOT]
    else:
        hierarchies = {one.resolve() for one in _GROUPS.iterdir() if one.is_dir()}
        found = [one / _ROOT for one in sorted(hierarchies)]
    for one in found:
        one.mkdir(exist_ok=True)
    return found


def _remove_groups(groups: Sequence[Path]) -> None:
    """Their processes are dead; the last ones are leaving."""
    deadline = time.monotonic() + STOP
    for root in groups:
        while root.exists() and not _removed(root) and time.monotonic() < deadline:
            time.sleep(0.1)


def _removed(root: Path) -> bool:
    for folder, _, _ in os.walk(root, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return not root.exists()
