"""Build the control plane for tests, once; it stays in the user's cache.

Usage: python tools/control_plane/build.py [--version 1.36] [--e2e] [--oracle] [--if-possible]

Prints progress, and the folder of the programs at the end. Exit code 3 where something is missing
that cannot be fetched, 1 where a build fails. A program appears in the folder whole or not at all;
two builds at once wait for one another.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tools.control_plane import assets, toolchain
from tools.control_plane.recipes import (
    HERE,
    VERSIONS,
    Recipe,
    cache_folder,
    go_needed,
    place,
    recipes,
    release,
)
from tools.control_plane.toolchain import CannotBeHad

EVERY = 15.0
"""Seconds between two lines of progress."""
OLD = 30 * 86400.0
"""Seconds after which what no test has used any more is removed from the cache."""
Say = Callable[[str], None]


class Failed(Exception):
    """A build that does not work; the text has the compiler's last words."""


def build(wanted: Sequence[Recipe], version: str, say: Say) -> Path:
    """Makes what is missing of these. Raises CannotBeHad or Failed."""
    folder = place(version)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder.parent, say):
        missing = [one for one in wanted if not assets.is_program(folder / one.name)]
        if missing:
            go = toolchain.find(go_needed(version), say)
            for number, one in enumerate(missing, 1):
                say(f"building {one.name} ({number} of {len(missing)})")
                _build(one, go, version, folder, say)
        os.utime(folder.parent)
    _forget_old(folder.parent)
    return folder


@contextlib.contextmanager
def _alone(folder: Path, say: Say) -> Iterator[None]:
    """One build of this folder at a time, on this machine; what a killed one left is removed."""
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build is under way: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob(".new-*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _build(one: Recipe, go: Path, version: str, folder: Path, say: Say) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as made:
        progress = _Progress(one.name)
        command = one.command(go, Path(made), version)
        code = _watched(command, HERE / one.module, progress, say)
        if code != 0:
            said = "\n".join(progress.words) or f"exit code {code}"
            if any(word in said for word in ("dial tcp", "proxyconnect", "no such host")):
                raise CannotBeHad(f"the modules of {one.name} cannot be fetched:\n{said}")
            raise Failed(f"{one.name} does not build:\n{said}")
        os.replace(Path(made) / one.name, folder / one.name)
    size = (folder / one.name).stat().st_size / 1e6
    say(f"  {one.name}: {size:.0f} MB in {time.monotonic() - began:.0f} s")


class _Progress:
    """Reads what Go says: names of packages as they are compiled, modules, and errors."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.packages = self.modules = 0
        self.words: deque[str] = deque(maxlen=30)
        """The last lines that are neither."""

    def read(self, lines: Iterator[str]) -> None:
        for line in lines:
            if line.startswith("go: downloading "):
                self.modules += 1
            elif line.strip() and " " not in line.strip():
                self.packages += 1
            else:
                self.words.append(line.rstrip())

    def __str__(self) -> str:
        fetched = f"{self.modules} modules fetched, " if self.modules else ""
        compiled = f"{self.packages} packages compiled, " if self.packages else ""
        return f"  {self.name}: {fetched}{compiled}"


def _watched(command: Sequence[str], folder: Path, progress: _Progress, say: Say) -> int:
    """Runs Go in its own process group, so that its compilers end with it. Its exit code."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**toolchain.environment()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stderr is not None
    reader = threading.Thread(target=progress.read, args=(iter(process.stderr),))
    reader.start()
    began = time.monotonic()
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(EVERY)
            say(f"{progress}{time.monotonic() - began:.0f} s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join()
        process.stderr.close()


def _forget_old(used: Path) -> None:
    """Removes what was built from other pins and has not been used for a month."""
    for one in cache_folder().glob("v*-*"):
        if one.is_dir() and one != used and time.time() - one.stat().st_mtime > OLD:
            shutil.rmtree(one, ignore_errors=True)
            one.with_name(f"{one.name}.lock").unlink(missing_ok=True)


def _say(line: str) -> None:
    print(line, flush=True)


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--version", choices=VERSIONS, default=VERSIONS[0], help="Kubernetes' minor"
    )
    parser.add_argument("--e2e", action="store_true", help="also e2e.test, ginkgo and agnhost")
    parser.add_argument("--oracle", action="store_true", help="also kubelet and containerd")
    parser.add_argument(
        "--if-possible", action="store_true", help="exit code 0 where it cannot be built, and why"
    )
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    wanted = recipes(given.version, e2e=given.e2e, oracle=given.oracle)
    envtest, why_not = assets.envtest(given.version)
    if why_not:
        _say(why_not)
    wanted = [one for one in wanted if one.name not in envtest]
    try:
        folder = build(wanted, given.version, _say)
    except CannotBeHad as error:
        _say(f"error: {error}")
        return 0 if given.if_possible else 3
    except Failed as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    _say(f"Kubernetes {release(given.version)}: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
