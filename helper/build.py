"""Builds the helper for a machine, into the user's cache, by a hash of its sources.

`python helper/build.py [amd64|arm64 ...]` prints where each program is. `--pin` builds all of them
and writes their digests into the Python package; `--check` says whether those are of these sources.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
sys.path.insert(0, str(SOURCE.parent))

from bridge.helper.program import cache_folder  # noqa: E402 - only now can it be found
from tools.control_plane.toolchain import (  # noqa: E402 - only now can it be found
    CannotBeHad,
    environment,
    find,
)

MACHINES = ("amd64", "arm64")
NEEDED = (1, 25)
"""The Go version that go.mod asks for."""
PINNED = SOURCE.parent / "bridge" / "helper" / "pinned.json"
"""The digests that a Python package has of its programs."""
_OLD = 7 * 86400
"""Seconds after which a program of other sources is removed from the cache."""
_LIMIT = 500
"""Seconds that one build may take."""


def digest() -> str:
    """A hash of all that goes into the program, 16 hexadecimal digits."""
    made = hashlib.sha256()
    sources = [one for one in SOURCE.glob("*.go") if not one.name.endswith("_test.go")]
    for path in sorted([*sources, SOURCE / "go.mod"]):
        made.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        made.update(path.read_bytes())
    return made.hexdigest()[:16]


def build(machine: str) -> Path:
    """The program for that machine, built where it is not in the cache. Raises CannotBeHad."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / f"podbridge-helper-{machine}-{digest()}"
    with (folder / f"{machine}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _compile(find(NEEDED, _say), machine, program)
            _forget_old(folder, machine, program)
    return program


def _compile(go: Path, machine: str, program: Path) -> None:
    fresh = program.with_suffix(".new")
    command = [str(go), "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid="]
    done = subprocess.run(
        [*command, "-o", str(fresh), "."],
        cwd=SOURCE,
        env=_environment(machine),
        capture_output=True,
        text=True,
        timeout=_LIMIT,
        check=False,
    )
    if done.returncode:
        raise CannotBeHad(f"the helper does not build: {done.stderr.strip()}")
    fresh.replace(program)


def _environment(machine: str) -> Mapping[str, str]:
    return {**environment(), "GOOS": "linux", "GOARCH": machine, "GOFLAGS": ""}


def _forget_old(folder: Path, machine: str, program: Path) -> None:
    for one in folder.glob(f"podbridge-helper-{machine}-*"):
        # Another checkout may be running a fresh one.
        if one != program and one.stat().st_mtime < time.time() - _OLD:
            one.unlink()


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")


def main(machines: list[str]) -> int:
    """Builds for the machines that are named, else for all of them."""
    if machines == ["--check"]:
        return _check()
    pins = machines == ["--pin"]
    for machine in MACHINES if pins or not machines else machines:
        if machine not in MACHINES:
            _say(f"error: {machine} is none of {', '.join(MACHINES)}")
            return 2
        try:
            program = build(machine)
        except CannotBeHad as why:
            _say(f"error: {why}")
            return 3
        sys.stdout.write(f"{program} {program.stat().st_size / 2**20:.1f} MiB\n")
    if pins:
        PINNED.write_text(json.dumps({"sources": digest(), **_digests()}, indent=2) + "\n")
    return 0


def _digests() -> Mapping[str, str]:
    return {one: hashlib.sha256(build(one).read_bytes()).hexdigest() for one in MACHINES}


def _check() -> int:
    if json.loads(PINNED.read_text())["sources"] == digest():
        return 0
    _say("error: the helper's sources have changed: `python helper/build.py --pin`")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
