"""What is built, from which pinned Go module, and the place in the cache that follows from it.

Each folder beside this file is a Go module that requires other people's programs: `go.mod` and
`go.sum` name every version and every digest, and `deps.go` the packages that are wanted of them.
The cache's folder is named by a digest of all that, so what lies there was built from just this.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSIONS = ("1.36", "1.35")
"""The Kubernetes minors that are pinned, the usual one first."""
K8S = "k8s.io/kubernetes"
_ETCD = "go.etcd.io/etcd/server/v3"
_CONTAINERD = "github.com/containerd/containerd/v2/cmd"
_METRICS = "sigs.k8s.io/metrics-server"
_STATIC = "-s -w"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One program."""

    name: str
    module: str
    """The folder beside this file."""
    package: str
    flags: Sequence[str] = ()
    """Of `go build`, besides those that all have."""
    test: bool = False
    """A test binary: `go test -c`."""

    def command(self, go: Path, into: Path, version: str) -> list[str]:
        """What makes it, to be run in the module's folder; it appears in `into` under its name."""
        made = str(into / self.name)
        ldflags = _ldflags(version) if self.module.startswith("kubernetes") else _STATIC
        # `go test -v` is about tests; `go build -v` names what is compiled.
        verb = ["test", "-c"] if self.test else ["build", "-v"]
        words = ["-trimpath", "-ldflags", ldflags, *self.flags, "-o", made, self.package]
        return [str(go), *verb, *words]


def _ldflags(version: str) -> str:
    """Without its version in it no client can parse what a Kubernetes program says it is."""
    full, at = release(version), "k8s.io/component-base/version"
    major, minor = full.removeprefix("v").split(".")[:2]
    return (
        f"{_STATIC} -X {at}.gitVersion={full} -X {at}.gitMajor={major} -X {at}.gitMinor={minor}"
        f" -X {at}.gitTreeState=clean"
    )


def recipes(version: str, *, e2e: bool = False, oracle: bool = False) -> list[Recipe]:
    """The control plane, kubectl and metrics-server of this minor; on demand also Kubernetes' own
    end-to-end tests with what they need, and a real kubelet with its runtime."""
    kubernetes = f"kubernetes-{version}"
    # etcd first: it takes seconds, and shows early that Go and its modules can be had.
    wanted = [Recipe("etcd", "etcd", _ETCD)]
    names = ["kube-apiserver", "kube-scheduler", "kube-controller-manager", "kubectl"]
    wanted += [Recipe(name, kubernetes, f"{K8S}/cmd/{name}") for name in names]
    wanted.append(Recipe("metrics-server", "metrics-server", f"{_METRICS}/cmd/metrics-server"))
    if e2e:
        wanted += [
            Recipe("agnhost", kubernetes, f"{K8S}/test/images/agnhost"),
            # Of the version that the tests are linked with: another one refuses to run them.
            Recipe("ginkgo", kubernetes, "github.com/onsi/ginkgo/v2/ginkgo"),
            Recipe("e2e.test", kubernetes, f"{K8S}/test/e2e", test=True),
        ]
    if oracle:
        wanted.append(Recipe("kubelet", kubernetes, f"{K8S}/cmd/kubelet"))
        # btrfs needs a C compiler and its headers.
        wanted += [
            Recipe(name, "containerd", f"{_CONTAINERD}/{name}", ("-tags", "no_btrfs"))
            for name in ("containerd", "containerd-shim-runc-v2", "ctr")
        ]
    return wanted


@cache
def release(version: str) -> str:
    """The exact version that a minor is pinned to: `v1.36.3`."""
    found = re.search(rf"^\s*{K8S} (v[0-9.]+)", _text(f"kubernetes-{version}"), re.MULTILINE)
    if found is None:
        raise LookupError(f"kubernetes-{version}/go.mod requires no {K8S}")
    return found[1]


def go_needed(version: str) -> tuple[int, ...]:
    """The oldest Go that all modules of this minor allow."""
    return max(
        tuple(int(part) for part in re.findall(r"\d+", line))
        for one in _modules(version)
        for line in re.findall(r"^go (\S+)$", _text(one), re.MULTILINE)
    )


def place(version: str) -> Path:
    """Where the programs of this minor lie, or will."""
    return cache_folder() / f"{release(version)}-{_digest(version)}" / "bin"


def cache_folder() -> Path:
    """podbridge's folder for control planes in the user's cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "podbridge" / "control-plane"


def _modules(version: str) -> Iterator[str]:
    yield from sorted({one.module for one in recipes(version, e2e=True, oracle=True)})


def _text(module: str) -> str:
    return (HERE / module / "go.mod").read_text("utf-8")


@cache
def _digest(version: str) -> str:
    digest = hashlib.sha256()
    for module in _modules(version):
        for name in ("go.mod", "go.sum"):
            content = (HERE / module / name).read_bytes()
            digest.update(f"{module}/{name}\0{len(content)}\0".encode() + content)
    for one in recipes(version, e2e=True, oracle=True):
        digest.update(repr(one.command(Path("go"), Path("."), version)).encode())
    return digest.hexdigest()[:12]
