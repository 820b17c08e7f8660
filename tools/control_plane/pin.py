"""Pin another version: write a module's go.mod, go.sum and deps.go anew. For maintainers.

Usage: python tools/control_plane/pin.py kubernetes v1.36.3
       python tools/control_plane/pin.py etcd v3.6.5        (or metrics-server, containerd)

Kubernetes' own go.mod takes its staging modules from folders beside it, which are not in the
published module: each is replaced by the version of it that is published with that Kubernetes.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.control_plane import toolchain
from tools.control_plane.recipes import HERE, K8S, VERSIONS, recipes

MODULES = {
    "kubernetes": K8S,
    "etcd": "go.etcd.io/etcd/server/v3",
    "metrics-server": "sigs.k8s.io/metrics-server",
    "containerd": "github.com/containerd/containerd/v2",
}


def pin(name: str, version: str) -> Path:
    """Writes the folder; returns it. RuntimeError with Go's words where it cannot."""
    module = MODULES[name]
    minor = ".".join(version.removeprefix("v").split(".")[:2])
    folder = HERE / (f"kubernetes-{minor}" if name == "kubernetes" else name)
    folder.mkdir(exist_ok=True)
    theirs: Any = json.loads(_go(HERE, "mod", "download", "-json", f"{module}@{version}"))
    original = Path(theirs["GoMod"]).read_text("utf-8")
    (folder / "go.mod").write_text(_go_mod(folder.name, module, version, original))
    (folder / "go.sum").unlink(missing_ok=True)
    (folder / "deps.go").write_text(_deps(folder.name))
    _go(folder, "mod", "tidy")
    return folder


def _go_mod(name: str, module: str, version: str, original: str) -> str:
    language = re.search(r"^go (\S+)$", original, re.MULTILINE)
    assert language is not None, "every go.mod names its language's version"
    staged = re.findall(r"^\s*(?:replace )?(\S+) => \./staging/", original, re.MULTILINE)
    published = f"v0.{version.removeprefix('v1.')}"
    lines = [f"module podbridge.test/{name}", f"go {language[1]}", f"require {module} {version}"]
    replaced = [f"\t{one} => {one} {published}" for one in staged]
    if replaced:
        lines.append("\n".join(["replace (", *replaced, ")"]))
    return "\n\n".join(lines) + "\n"


def _deps(folder: str) -> str:
    every = [one for minor in VERSIONS for one in recipes(minor, e2e=True, oracle=True)]
    packages = sorted({one.package for one in every if one.module == folder})
    imports = "\n".join(f'\t_ "{one}"' for one in packages)
    return (
        "//go:build deps\n\n"
        "// Package deps names what is built of the modules that go.mod requires.\n"
        f"package deps\n\nimport (\n{imports}\n)\n"
    )


def _go(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["go", *words],
        cwd=folder,
        env={**toolchain.environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"go {' '.join(words)}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def main(arguments: Sequence[str]) -> int:
    """The command."""
    if len(arguments) != 2 or arguments[0] not in MODULES:
        print(f"error: two arguments: one of {', '.join(MODULES)}, and a version", file=sys.stderr)
        return 2
    try:
        print(pin(*arguments))
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
