"""Where the programs are: in the folder that KUBEBUILDER_ASSETS names, else in the cache.

Such a folder usually has etcd, kube-apiserver and kubectl only; what it lacks is taken from the
cache. It is left aside where it is of another minor: the parts of a control plane go together.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from tools.control_plane.recipes import VERSIONS, place, recipes

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-scheduler", "kube-controller-manager", "kubectl")


class Missing(Exception):
    """Not built yet; the text says which programs, and how to have them built."""


def is_program(path: Path) -> bool:
    """Whether something that can be run is there."""
    return path.is_file() and os.access(path, os.X_OK)


def locate(version: str = VERSIONS[0], names: Iterable[str] = CONTROL_PLANE) -> Mapping[str, Path]:
    """Each program's path. Raises Missing."""
    found, _ = envtest(version)
    folder = place(version)
    where = {name: found.get(name, folder / name) for name in names}
    if missing := [name for name, path in where.items() if not is_program(path)]:
        options = "" if version == VERSIONS[0] else f" --version {version}"
        options += "".join(
            f" --{group}" for group in ("e2e", "oracle") if _in_group(missing, version, group)
        )
        raise Missing(
            f"no {', '.join(missing)} of Kubernetes {version} here: `make control-plane` builds"
            f" them, or python tools/control_plane/build.py{options}"
        )
    if folder.parent.exists():
        # What is used is not old: see `build`.
        os.utime(folder.parent)
    return where


def _in_group(names: Iterable[str], version: str, group: str) -> bool:
    usual = {one.name for one in recipes(version)}
    more = {one.name for one in recipes(version, e2e=group == "e2e", oracle=group == "oracle")}
    return bool({*names} & (more - usual))


@cache
def envtest(version: str) -> tuple[Mapping[str, Path], str]:
    """What KUBEBUILDER_ASSETS offers, or nothing and why."""
    named = os.environ.get("KUBEBUILDER_ASSETS", "")
    if not named:
        return {}, ""
    found = {name: Path(named) / name for name in CONTROL_PLANE}
    found = {name: path for name, path in found.items() if is_program(path)}
    if "kube-apiserver" not in found:
        return {}, f"KUBEBUILDER_ASSETS is left aside: there is no kube-apiserver in {named}"
    said = subprocess.run(
        [found["kube-apiserver"], "--version"], capture_output=True, text=True, check=False
    ).stdout
    minor = re.search(r"v(\d+\.\d+)\.", said)
    if minor is None or minor[1] != version:
        has = said.strip() or "something that does not tell its version"
        return {}, f"KUBEBUILDER_ASSETS is left aside: {version} is wanted, there is {has}"
    return found, ""
