"""The command as people type it, in a place of its own, and a look at what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import engine

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 180.0
"""Seconds that anything may take on a machine with much else to do; it takes one or two, and a
minute where fifty pods run in containers."""

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """All of its words, for a failing test's reader."""
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"

    @property
    def errors(self) -> list[str]:
        """Its lines of error."""
        return [line for line in self.err.splitlines() if line.startswith(("error: ", "Error: "))]

    def json(self) -> Any:
        """What it printed, as one JSON value."""
        return json.loads(self.out)

    def lines(self) -> list[Manifest]:
        """What it printed, as one JSON value a line."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Going:
    """A command that goes on. Its output goes to files, so that it never waits for a reader."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def end(self, timeout: float = PATIENCE) -> Done:
        """Waits for its end."""
        code = self.process.wait(timeout)
        return Done(code, self.out.read_text(errors="replace"), self.err.read_text("utf-8"))

    def signal(self, number: int) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """As `kill -9` does; returns once it is gone."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def says(self, words: str) -> None:
        """Waits until it has said this."""
        until(
            lambda: words in self.out.read_text() + self.err.read_text(), words, self.process.poll
        )


def until(
    ready: Callable[[], object], what: str, ended: Callable[[], int | None] = lambda: None
) -> None:
    """Waits for a condition of the world outside; fails at once where `ended` has a code."""
    deadline = time.monotonic() + PATIENCE
    while not ready():
        code = ended()
        assert code is None or ready(), f"it ended with {code} before: {what}"
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.01)


@dataclass
class Place:
    """A folder with a state directory of its own, and the commands that were started in it."""

    path: Path
    going: list[Going] = field(default_factory=list)
    on: str = "process"
    """The backend of its runs."""
    variables: dict[str, str] = field(default_factory=dict)
    """What every command gets beside the usual."""

    @property
    def runs(self) -> Path:
        """Where runs are kept."""
        return self.path / "state" / "podbridge" / "runs"

    @property
    def environment(self) -> dict[str, str]:
        """What every command here gets: nothing of this process's own."""
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.path),
            "LANG": "C.UTF-8",
            "XDG_STATE_HOME": str(self.path / "state"),
            "XDG_CONFIG_HOME": str(self.path / "config"),
            **self.variables,
        }

    def use_engine(self, **options: str) -> None:
        """From now on its runs go to containers, apart from whatever else the engine has."""
        self.on = "engine"
        self.write(
            "config/podbridge/config.yaml",
            "apiVersion: podbridge.io/v1\n"
            "backends:\n"
            "  - name: engine\n"
            "    type: engine\n"
            f"    host: {engine.address()}\n"
            f"    owner: {self.owner}\n"
            + "".join(f"    {name}: {value}\n" for name, value in options.items()),
        )

    @property
    def owner(self) -> str:
        """What its containers and volumes are labelled with."""
        return f"test-{self.path.parent.parent.name}-{self.path.name}".replace("_", "-")[-60:]

    def write(self, name: str, *content: Manifest | str) -> str:
        """A file: text, or manifests as a stream of JSON documents."""
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        parts = [one if isinstance(one, str) else json.dumps(one) + "\n" for one in content]
        place.write_text("---\n".join(parts))
        return str(place)

    def podbridge(
        self,
        *words: str,
        stdin: bytes = b"",
        code: int | None = 0,
        env: dict[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> Done:
        """A command to its end; fails where it does not exit with `code`."""
        ended = subprocess.run(
            [sys.executable, "-m", "podbridge", *words],
            cwd=ROOT,
            env={**self.environment, **(env or {})},
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        out, err = ended.stdout.decode(errors="replace"), ended.stderr.decode()
        done = Done(ended.returncode, out, err)
        assert "Traceback" not in done.err, done.said
        assert code is None or done.code == code, done.said
        return done

    def run(self, *words: str, **more: Any) -> Done:
        """`podbridge run` on its backend, to its end."""
        return self.podbridge("run", "--on", self.on, *words, **more)

    def start(self, *words: str, **more: Any) -> Going:
        """A command that goes on."""
        number = len(self.going)
        out, err = self.path / f"{number}.out", self.path / f"{number}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "podbridge", *words],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                **more,
            )
        one = Going(process, out, err)
        self.going.append(one)
        return one

    def exists(self, name: str) -> Callable[[], bool]:
        """Whether a file is there, as a condition to wait for."""
        return (self.path / name).exists

    def lines(self, name: str) -> list[str]:
        """The whole lines of a file that pods append to."""
        try:
            return (self.path / name).read_text().splitlines()
        except FileNotFoundError:
            return []

    def run_names(self) -> list[str]:
        """The runs that are known on disk."""
        return sorted(one.name for one in self.runs.iterdir()) if self.runs.exists() else []

    def pods(self, run: str) -> list[Manifest]:
        """The pods of a run."""
        done = self.podbridge("get", "pods", "--run", run, "-o", "json")
        found: list[Manifest] = done.json()["items"]
        return found

    def status(self, run: str) -> str:
        """What `ps` says of a run."""
        return next(
            line.split()[1]
            for line in self.podbridge("ps").out.splitlines()
            if line.split()[0] == run
        )

    # What is left.

    def processes(self) -> list[str]:
        """The processes, other than this one, that have to do with this place."""
        marker = "/".join(self.path.parts[-3:]).encode() + b"/"
        mine = (os.getpid(), os.getppid())
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return [
            f"{pid}: {what}" for pid in pids if pid not in mine and (what := _uses(pid, marker))
        ]

    def containers(self) -> list[str]:
        """The containers and volumes at the engine that have to do with this place."""
        if self.on != "engine":
            return []
        return engine.owned(self.owner)

    def close(self) -> None:
        """Ends what a test has left, and fails where there was anything."""
        left = [" ".join(map(str, one.process.args)) for one in self.going if _ends(one.process)]
        deadline = time.monotonic() + 10
        # A keeper that has published an exit goes a moment later.
        while (processes := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for one in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(one.split(":")[0]), signal.SIGKILL)
        sockets = [str(one) for one in self.path.rglob("*") if one.is_socket()]
        mounts = [line for line in Path("/proc/mounts").read_text().split() if self._is_here(line)]
        # A finished run's directory holds the socket at which its keeper listened.
        sockets = [one for one in sockets if not one.endswith("/control")]
        found = {"commands": left, "processes": processes, "sockets": sockets, "mounts": mounts}
        found["containers"] = self.containers()
        if found["containers"]:
            engine.remove(self.owner)
        assert not any(found.values()), found

    def _is_here(self, path: str) -> bool:
        return path.startswith(f"{self.path}/")


def _ends(process: subprocess.Popen[bytes]) -> bool:
    """Whether it had to be ended."""
    if process.poll() is not None:
        return False
    process.kill()
    process.wait()
    return True


def _uses(pid: int, marker: bytes) -> str:
    """What of a process names that place: empty where nothing does."""
    base = f"/proc/{pid}"
    try:
        command = Path(f"{base}/cmdline").read_bytes()
        for name in ("cmdline", "environ", "mountinfo"):
            if marker in Path(f"{base}/{name}").read_bytes():
                return f"{name}: {command!r}"
        for link in _links(base):
            if marker in os.fsencode(link) + b"/":
                return f"{link}: {command!r}"
    except OSError:
        # It has ended, or is a zombie.
        return ""
    return ""


def _links(base: str) -> Iterator[str]:
    yield os.readlink(f"{base}/cwd")
    for descriptor in os.listdir(f"{base}/fd"):
        with contextlib.suppress(OSError):
            yield os.readlink(f"{base}/fd/{descriptor}")


# Manifests.


def container(script: str, name: str = "main", **more: Any) -> Manifest:
    """A container of one shell script."""
    return {"name": name, "image": "busybox:1.37", "command": ["/bin/sh", "-c", script], **more}


def pod(name: str, script: str | Manifest, **spec: Any) -> Manifest:
    """A pod of one container that is never restarted, unless `spec` says otherwise."""
    one = script if isinstance(script, dict) else container(script)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [one], **spec},
    }


def job(
    name: str, script: str | Manifest, template: Manifest | None = None, **spec: Any
) -> Manifest:
    """A Job of such pods. `template`: more of the pod's spec."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": pod("x", script, **(template or {}))["spec"]}, **spec},
    }


def exit_codes(pods: list[Manifest]) -> dict[str, int]:
    """Exit codes of the first containers of ended pods, by the pod's index in its Job, or its
    name."""
    found = {}
    for one in pods:
        notes = one["metadata"].get("annotations", {})
        who = notes.get("batch.kubernetes.io/job-completion-index", one["metadata"]["name"])
        ended = one["status"]["containerStatuses"][0]["state"]["terminated"]
        found[who] = int(ended["exitCode"])
    return found
