"""A control plane in the hands of a test or the bench: started, asked, troubled, stopped.

It runs under a keeper, a process of its own (`run.py --held`): whatever becomes of the process that
holds it, also SIGKILL, the keeper notices and stops everything in order.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
import select
import signal
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.control_plane import objects
from tools.control_plane.api import Api
from tools.control_plane.authority import (
    LIFE,
    Authority,
    kubeconfig,
    with_certificate,
    write_kubeconfig,
)
from tools.control_plane.recipes import VERSIONS

START = 240.0
"""Seconds that all of it may take to start; it takes four."""
STOP = 90.0
"""Seconds that all of it may take to end; it takes one or two."""
ORDER = 120.0
"""Seconds that one component may take to stop or start."""
RUN = Path(__file__).resolve().with_name("run.py")
_LETTERS = string.ascii_lowercase + string.digits


def _stands_still(pid: int) -> bool:
    """Whether all threads of a process are stopped."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    states = [(one / "stat").read_text().rpartition(")")[2].split()[0] for one in threads]
    return all(state in ("T", "t", "Z", "X") for state in states)


@contextlib.contextmanager
def folder_at(given: Path | None, prefix: str) -> Iterator[Path]:
    """The folder that was named, made where it is not there; else a temporary one, and its end."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as one:
        yield Path(one)


class NotRunning(Exception):
    """It does not start, or has ended by itself; the text has its keeper's words."""


@dataclass
class ControlPlane:
    """One that runs. Every `*_kubeconfig` writes a new file, readable for its owner only."""

    version: str
    """`v1.36.3`."""
    server: str
    """The API server's URL."""
    folder: Path
    """Certificates, kubeconfigs, logs."""
    programs: Mapping[str, Path]
    """Also kubectl."""
    pids: dict[str, int]
    keeper: subprocess.Popen[bytes] = field(repr=False)
    _number: int = 0

    @property
    def kubeconfig(self) -> Path:
        """Of an administrator."""
        return self.folder / "admin.kubeconfig"

    @property
    def ca(self) -> Path:
        """The file with the CA's certificate, which signs clients and kubelets alike."""
        return self.folder / "ca.crt"

    @property
    def audit_log(self) -> Path:
        """One JSON object a call, where it was started with `audit`: see `audit.calls`."""
        return self.folder / "audit.log"

    @property
    def authority(self) -> Authority:
        """The CA itself."""
        return Authority.read(self.folder)

    def api(self, path: Path | None = None) -> Api:
        """A client with this kubeconfig, else the administrator's."""
        return Api(path or self.kubeconfig)

    # -- identities ---------------------------------------------------------------------------

    def node_kubeconfig(self, node: str) -> Path:
        """As that node: the Node authoriser and NodeRestriction hold for it."""
        return self.user_kubeconfig(f"system:node:{node}", ["system:nodes"])

    def user_kubeconfig(
        self, name: str, groups: Sequence[str] = (), *, life: datetime.timedelta = LIFE
    ) -> Path:
        """As any user, by a client certificate."""
        return self._write(with_certificate(self.authority.client(name, groups, life=life)))

    def expired_kubeconfig(self, name: str = "system:node:late") -> Path:
        """With a client certificate that expired an hour ago."""
        past = datetime.timedelta(hours=-1)
        return self.user_kubeconfig(name, ["system:nodes"], life=past)

    def bootstrap_kubeconfig(
        self, *, life: datetime.timedelta = datetime.timedelta(hours=1)
    ) -> Path:
        """With a new bootstrap token, which buys a node its certificate and nothing else."""
        token_id, secret = _random(6), _random(16)
        self._ensure(objects.bootstrap(token_id, secret, life))
        return self._write({"token": f"{token_id}.{secret}"})

    def account_kubeconfig(
        self,
        namespace: str,
        name: str,
        rules: Sequence[Mapping[str, Any]] = (),
        *,
        seconds: int = 3600,
    ) -> Path:
        """As a service account, made where it is not there, that may do what these rules say in all
        namespaces, and nothing without any."""
        where = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        role = f"{namespace}:{name}"
        wanted: list[objects.Placed] = [(where, {"metadata": {"name": name}})]
        if rules:
            subject = objects.account(namespace, name)
            wanted.append(objects.cluster_role(role, rules))
            wanted.append(objects.cluster_binding(role, role, subject))
        self._ensure(wanted)
        with contextlib.closing(self.api()) as api:
            asked = {"spec": {"expirationSeconds": seconds}}
            answer = api.post(f"{where}/{name}/token", asked)
        return self._write({"token": answer["status"]["token"]})

    def _ensure(self, wanted: Sequence[objects.Placed]) -> None:
        with contextlib.closing(self.api()) as api:
            for path, one in wanted:
                api.ensure(path, one)

    def _write(self, user: Mapping[str, str]) -> Path:
        self._number += 1
        path = self.folder / f"user-{self._number}.kubeconfig"
        return write_kubeconfig(path, kubeconfig(self.server, self.ca.read_bytes(), user))

    # -- trouble ------------------------------------------------------------------------------

    def stop_one(self, name: str) -> None:
        """Ends one component; whoever calls it finds nobody there."""
        self._order(f"stop {name}")

    def start_one(self, name: str) -> None:
        """Starts it again, at the same address; returns once it answers. metrics-server, which is
        not there from the beginning, is started so for the first time."""
        self._order(f"start {name}")

    @contextlib.contextmanager
    def without(self, name: str) -> Iterator[None]:
        """While this goes on one component is not there."""
        self.stop_one(name)
        try:
            yield
        finally:
            self.start_one(name)

    @contextlib.contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """While this goes on one component accepts connections and answers nothing."""
        os.kill(self.pids[name], signal.SIGSTOP)
        try:
            # Each of its threads stops when it next is looked at: until then it may answer.
            deadline = time.monotonic() + ORDER
            while not _stands_still(self.pids[name]):
                if time.monotonic() > deadline:
                    raise NotRunning(f"{name} does not stop")
                time.sleep(0.01)
            yield
        finally:
            os.kill(self.pids[name], signal.SIGCONT)

    def _order(self, words: str) -> None:
        assert self.keeper.stdin is not None
        try:
            self.keeper.stdin.write(f"{words}\n".encode())
            self.keeper.stdin.flush()
        except BrokenPipeError:
            raise _Silent from None
        answer = _line(self.keeper, ORDER)
        if "error" in answer:
            raise NotRunning(answer["error"])
        self.pids = answer["pids"]


@contextlib.contextmanager
def running(
    folder: Path,
    *,
    version: str = VERSIONS[0],
    audit: bool = False,
    extra: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[ControlPlane]:
    """A control plane with its files in this folder, and its end. Raises NotRunning.

    `assets.locate` says beforehand whether its programs are there. `extra`: more flags by
    component.
    """
    command = [sys.executable, str(RUN), "--held", "--folder", str(folder), "--version", version]
    command += ["--audit"] if audit else []
    for name, flags in (extra or {}).items():
        command += [f"--extra={name}={flag}" for flag in flags]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "keeper.log").open("wb") as log:
        keeper = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # ^C is for the tests; they stop it when they are done.
            start_new_session=True,
        )
    try:
        told = _line(keeper, START)
        yield ControlPlane(
            told["version"],
            told["server"],
            Path(told["folder"]),
            {name: Path(path) for name, path in told["programs"].items()},
            told["pids"],
            keeper,
        )
    except _Silent:
        words = (folder / "keeper.log").read_text(errors="replace").strip()
        raise NotRunning(words or "its keeper says nothing") from None
    finally:
        _stop(keeper)


def _stop(keeper: subprocess.Popen[bytes]) -> None:
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        keeper.stdin.close()
    try:
        keeper.wait(STOP)
    except subprocess.TimeoutExpired:
        # What it started dies with it.
        keeper.kill()
        keeper.wait()
    keeper.stdout.close()


class _Silent(Exception):
    """The keeper has ended, or says nothing in time."""


def _line(keeper: subprocess.Popen[bytes], limit: float) -> Any:
    """Its next line, as JSON."""
    assert keeper.stdout is not None
    handle, line = keeper.stdout.fileno(), b""
    deadline = time.monotonic() + limit
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        ready = select.select([handle], [], [], left)[0] if left > 0 else []
        # Past the buffer: what lies in that, select cannot see.
        part = os.read(handle, 4096) if ready else b""
        if not part:
            raise _Silent
        line += part
    return json.loads(line)


def _random(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))
