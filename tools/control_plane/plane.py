"""Starts a control plane's programs, watches over them and stops them in order.

Each takes free ports; where somebody else was quicker the program says so and ends, and is started
again on others. Clients end first, then the API server, etcd last: the API server needs etcd to
end in order. Every program dies with this process, however that ends (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.control_plane import objects
from tools.control_plane.api import Api
from tools.control_plane.authority import (
    Authority,
    kubeconfig,
    signing_keys,
    with_certificate,
    write_kubeconfig,
)
from tools.control_plane.components import (
    API_SERVER,
    AUDIT_POLICY,
    CONTROLLERS,
    ETCD,
    FIRST_SERVICE,
    KUBELET_CLIENT,
    METRICS,
    PORTS,
    SCHEDULER,
    Setup,
    command,
)

START = 90.0
"""Seconds that one component may take to answer; it takes one or two."""
STOP = 15.0
"""Seconds that one may take to end; then it is killed."""
TRIES = 5
"""How often other ports are tried where somebody else was quicker."""
ENDED_EARLY = b"address already in use"
PR_SET_PDEATHSIG = 1


class Broken(Exception):
    """A component does not start, or has ended; the text has its last words."""


class Plane:
    """One control plane. `start`, then `ended` from time to time, and `stop` in any case."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.ports: dict[str, Sequence[int]] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._authority = Authority.new("podbridge-test-ca")
        # Loaded now: between fork and exec a library must not be looked for.
        self._libc = ctypes.CDLL(None)

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://127.0.0.1:{self.ports[API_SERVER][0]}"

    @property
    def admin(self) -> Path:
        """The kubeconfig of somebody who may do everything."""
        return self.setup.folder / "admin.kubeconfig"

    def start(self) -> None:
        """Returns once all answer. Raises Broken; what was started is for `stop` to end."""
        self._write_files()
        self._start(ETCD)
        self._start(API_SERVER)
        self._write_client("admin", "admin", ["system:masters"])
        self._write_client(SCHEDULER, f"system:{SCHEDULER}")
        self._write_client(CONTROLLERS, f"system:{CONTROLLERS}")
        self._write_client(METRICS, METRICS)
        self._provide(objects.always())
        for name in (SCHEDULER, CONTROLLERS):
            self._spawn(name)
        for name in (SCHEDULER, CONTROLLERS):
            self._await(name)

    def start_one(self, name: str) -> None:
        """Starts it again after `stop_one`, on the ports that it had; metrics-server also for the
        first time. Raises Broken."""
        if name in self.processes:
            return
        if name == METRICS:
            self._provide(objects.metrics_rights())
        moves = name not in self.ports
        self._spawn(name, self.ports.get(name))
        self._await(name, moves=moves)
        if name == METRICS:
            self._provide(objects.metrics(self.ports[METRICS][0]))
            self._await_metrics()
        if name == API_SERVER:
            self._start_ended_clients()

    def _start_ended_clients(self) -> None:
        # A real cluster's kubelet would do so for its static pods.
        ended = [name for name in self.processes if self.processes[name].poll() is not None]
        for name in ended:
            self._spawn(name, self.ports[name])
        for name in ended:
            self._await(name, moves=False)

    def stop_one(self, name: str) -> None:
        """Ends one component in order; returns once it is gone."""
        process = self.processes.pop(name, None)
        if process is None:
            return
        # One that was paused cannot hear.
        for number in (signal.SIGTERM, signal.SIGCONT):
            process.send_signal(number)
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """Ends all that was started and removes the data; certificates and logs stay."""
        for name in reversed([*PORTS]):
            self.stop_one(name)
        shutil.rmtree(self.setup.folder / "etcd", ignore_errors=True)

    def ended(self) -> str:
        """What has ended by itself, and its last words; empty while all run that can: without an
        API server some of its clients give up."""
        able = self.processes if API_SERVER in self.processes else {ETCD}
        for name, process in self.processes.items():
            if name in able and process.poll() is not None:
                return f"{name} has ended with {process.returncode}: {self._last_words(name)}"
        return ""

    def _write_files(self) -> None:
        at = self.setup.folder
        self._authority.own.write(at, "ca")
        # Whoever speaks for others shows a certificate of another CA: as a client's it is none.
        front = Authority.new("podbridge-test-front-ca")
        (at / "front-ca.crt").write_bytes(front.own.certificate)
        front.client("front-proxy-client").write(at, "front-proxy")
        hosts = ["localhost", "kubernetes", "kubernetes.default.svc", "127.0.0.1", FIRST_SERVICE]
        self._authority.server(API_SERVER, hosts).write(at, "server")
        self._authority.client(KUBELET_CLIENT).write(at, "kubelet-client")
        signing_keys().write(at, "tokens")
        (at / "audit-policy.json").write_text(json.dumps(AUDIT_POLICY))

    def _write_client(self, file: str, name: str, groups: Sequence[str] = ()) -> None:
        user = with_certificate(self._authority.client(name, groups))
        made = kubeconfig(self.server, self._authority.own.certificate, user)
        write_kubeconfig(self.setup.folder / f"{file}.kubeconfig", made)

    def _provide(self, wanted: Sequence[objects.Placed]) -> None:
        api = Api(self.admin)
        with contextlib.closing(api):
            for path, one in wanted:
                api.ensure(path, one)

    def _start(self, name: str) -> None:
        self._spawn(name)
        self._await(name)

    def _spawn(self, name: str, ports: Sequence[int] | None = None) -> None:
        self.ports[name] = ports or list(_free_ports(PORTS[name]))
        with self._log(name).open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command(self.setup, name, self.ports),
                cwd=self.setup.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # ^C in a terminal is for us alone, or the order would be lost.
                start_new_session=True,
                preexec_fn=self.die_with_us,  # noqa: PLW1509 - there is one thread
            )

    def die_with_us(self) -> None:
        """For `preexec_fn`: what is started is killed when this process ends."""
        self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def _await(self, name: str, *, moves: bool = True) -> None:
        """Returns once it answers. Where its ports were taken it is started on others; one that
        must not move waits for its own to be free again."""
        deadline = time.monotonic() + START
        tries = 1
        while not self._answers(name):
            if self.processes[name].poll() is not None:
                clash = ENDED_EARLY in self._log(name).read_bytes()
                if not clash or tries == TRIES:
                    raise Broken(f"{name} does not start: {self._last_words(name)}")
                tries += 1
                self._spawn(name, None if moves else self.ports[name])
            if time.monotonic() > deadline:
                raise Broken(f"{name} does not answer after {START:.0f} s")
            time.sleep(0.03)

    def _answers(self, name: str) -> bool:
        port = self.ports[name][0]
        path = {ETCD: "/health", API_SERVER: "/readyz"}.get(name, "/healthz")
        connection: http.client.HTTPConnection
        if name == ETCD:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        else:
            # Not whom it is, only whether it is ready: some sign their certificates themselves.
            tls = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=tls)
        with contextlib.closing(connection):
            try:
                connection.request("GET", path)
                if connection.getresponse().status != 200:
                    return False
            except (OSError, http.client.HTTPException):
                return False
        return name != CONTROLLERS or self._is_controlled()

    def _is_controlled(self) -> bool:
        """Whether the controllers work, which is some time after they say that they are healthy."""
        with contextlib.closing(Api(self.admin)) as api:
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            return api.request("GET", account)[0] == 200

    def _await_metrics(self) -> None:
        """Returns once the API server passes questions on to metrics-server."""
        with contextlib.closing(Api(self.admin)) as api:
            try:
                api.until(objects.METRICS_SERVICE, _is_available, limit=START)
            except AssertionError as error:
                raise Broken(str(error)) from None

    def _log(self, name: str) -> Path:
        return self.setup.folder / f"{name}.log"

    def _last_words(self, name: str) -> str:
        return self._log(name).read_bytes()[-1500:].decode(errors="replace").strip()


def _is_available(service: objects.Object) -> bool:
    found = service.get("status", {}).get("conditions", [])
    return any(one["type"] == "Available" and one["status"] == "True" for one in found)


def _free_ports(number: int) -> Iterator[int]:
    with contextlib.ExitStack() as held:
        for _ in range(number):
            one = held.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            yield one.getsockname()[1]


def parent_is(pid: int) -> bool:
    """Whether whoever started us still lives: an orphan gets another parent."""
    return os.getppid() == pid
