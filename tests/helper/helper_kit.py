"""The helper's program, built once, and a pod of it in a folder: each container one process."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.helper_program import built

from bridge.helper.payload import (
    Settings,
    Tree,
    encode,
    install_payload,
    run_payload,
    watch_payload,
)
from bridge.helper.record import Record, read
from bridge.workload import Container, ContainerState, Identity, RestartPolicy, Role, Workload

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
"""Seconds that anything may take."""
KEY = bytes(range(32))
IDENTITY = Identity("c", "n", "ns", "p", "uid-1", 2)
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")
BASE = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "IMAGE": "from the image"}


@pytest.fixture(scope="session")
def program() -> Path:
    return built()


def container(name: str, script: str, role: Role = Role.MAIN, **more: Any) -> Container:
    more.setdefault("restart_policy", RestartPolicy.NEVER)
    more.setdefault("termination_message_path", "")
    return Container(name, role, "i", command=("/bin/sh", "-c", script), **more)


def workload(*containers: Container, **more: Any) -> Workload:
    more.setdefault("grace", 5.0)
    return Workload(IDENTITY, containers, **more)


class Pod:
    """A pod's helpers as processes. Its folder is what the board's volume would be, `bin` what the
    program's."""

    def __init__(self, program: Path, folder: Path, workload: Workload, **settings: Any) -> None:
        self.program, self.workload = program, workload
        self.folder = folder / "podbridge"
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True, exist_ok=True)
        settings = {"program": str(self.bin), "address": "127.0.0.1", "peer_wait": 20.0, **settings}
        self.settings = Settings(KEY, str(self.folder), **settings)
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        name: str,
        verb: str,
        payload: Mapping[str, object],
        *more: str,
        env: Mapping[str, str] = BASE,
        **how: Any,
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [self.program, verb, *more],
            env={**env, **encode(dict(payload))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **how,
        )
        self.running[name] = process
        return process

    def install(self, *trees: Tree) -> None:
        process = self.start("install", "install", self.payload("install", trees=trees))
        self.join("install", 0)
        assert process.returncode == 0

    def payload(self, verb: str, name: str = "", trees: Sequence[Tree] = ()) -> dict[str, object]:
        match verb:
            case "install":
                return install_payload(self.workload, self.settings, trees)
            case "watch":
                return watch_payload(self.workload, self.settings)
        return run_payload(self.workload, name, self.settings, trees)

    def run(self, name: str, trees: Sequence[Tree] = (), **how: Any) -> subprocess.Popen[bytes]:
        return self.start(name, "run", self.payload("run", name, trees), **how)

    def watch(self) -> subprocess.Popen[bytes]:
        return self.start("watch", "watch", self.payload("watch"))

    def all(self) -> None:
        """All containers and the watcher at once, as the poorest cloud starts them."""
        for one in reversed(self.workload.containers):
            self.run(one.name)
        self.watch()

    def join(self, name: str, code: int | None = None) -> tuple[bytes, bytes]:
        """What it wrote, once it has ended."""
        process = self.running[name]
        out, err = process.communicate(timeout=PATIENCE)
        assert code is None or process.returncode == code, (process.returncode, err)
        return out, err

    def record(self, out: bytes) -> Record:
        return read(out, KEY, IDENTITY)

    def end(self, code: int = 0) -> Record:
        """The pod's record, once the watcher has ended."""
        return self.record(self.join("watch", code)[0])

    def states(self) -> dict[str, ContainerState]:
        """Of all containers, once all has ended."""
        record = self.end()
        return {one.name: one for one in record.containers}

    def board(self, name: str) -> dict[str, Any]:
        """What that container says of itself now; empty: nothing yet."""
        with contextlib.suppress(OSError):
            text = (self.folder / "state" / name).read_text().split(" ", 1)[1]
            said: dict[str, Any] = json.loads(text)
            return said
        return {}

    def until(self, name: str, met: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        give_up = time.monotonic() + PATIENCE
        while not met(said := self.board(name) or {"state": ""}):
            assert time.monotonic() < give_up, said
            time.sleep(0.01)
        return said

    def until_held(self, process: subprocess.Popen[bytes], what: str) -> None:
        """Waits until the process has something of that name open; only root can see that."""
        give_up = time.monotonic() + PATIENCE
        while True:
            for one in Path(f"/proc/{process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(one) == what:
                        return
            assert time.monotonic() < give_up, f"no {what}"
            time.sleep(0.01)

    def close(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
            process.communicate()


def line_of(process: subprocess.Popen[bytes]) -> bytes:
    """The next line of its output."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
    assert ready, "it says nothing"
    return process.stdout.readline()


Make = Callable[..., Pod]


@pytest.fixture
def make(program: Path, tmp_path: Path) -> Iterator[Make]:
    """Makes pods of containers; whatever still runs of them afterwards is killed."""
    made: list[Pod] = []

    def one(*containers: Container, spec: Mapping[str, Any] | None = None, **settings: Any) -> Pod:
        pod = Pod(program, tmp_path, workload(*containers, **(spec or {})), **settings)
        made.append(pod)
        return pod

    yield one
    for pod in made:
        pod.close()


__all__ = [
    "BASE", "IDENTITY", "KEY", "MACHINE", "PATIENCE", "ROOT", "Make", "Pod", "built", "container",
    "line_of", "make", "program", "replace", "signal", "workload",
]  # fmt: skip
