"""A container engine for tests: the machine's own, or Podman's service started for this process.

`address()` gives its address and `BUSYBOX` an image that it has: built from the machine's static
busybox, since no registry can be reached from here. Where something is missing `problem()` says
what, which is the reason that skipped tests print.
"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

BUSYBOX = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1"
EXAMPLES = "docker.io/library/busybox:1.37"
"""What the examples name."""
_ROUNDS = 6
_PATIENCE = 90.0
"""Seconds that the service may take to listen; it takes 0.1."""
_CONF = """\
[engine]
runtime = "runc"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"""
"""crun fails on a cgroup layout of version 1 without systemd, and a container inherits the limits
of its machine, which may be higher than the runtime may set."""


class Missing(Exception):
    """No engine here; the text says why."""


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


def call(method: str, path: str, body: Any = None, *, at: str = "") -> Any:
    """One call of the Docker API, for a test's own look at the engine. JSON, or None."""
    connection = _Unix((at or address()).removeprefix("unix://"))
    try:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        connection.request(method, f"/v1.41{path}", body=data, headers={"Content-Type": kind})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise LookupError(f"{method} {path}: {answer.status} {text[:500].decode()}")
        with contextlib.suppress(ValueError, IndexError):
            # An import tells its progress, one object a line.
            return json.loads(text if text[:1] == b"[" else text.splitlines()[-1])
        return None
    finally:
        connection.close()


def owned(owner: str) -> list[str]:
    """The containers and volumes that carry this owner's label."""
    if problem():
        return []
    label = quote(json.dumps({"label": [f"podbridge.io/owner={owner}"]}))
    found = call("GET", f"/containers/json?all=1&filters={label}")
    volumes = call("GET", f"/volumes?filters={label}")["Volumes"] or []
    return [one["Id"] for one in found] + [one["Name"] for one in volumes]


def remove(owner: str) -> None:
    """Removes what a failed test has left."""
    for _ in range(_ROUNDS):
        # The engine's list fails where something goes meanwhile, and a pause container cannot go
        # before those that share its namespaces.
        with contextlib.suppress(LookupError):
            if not (left := owned(owner)):
                return
            for kind in ("containers", "volumes"):
                for one in left:
                    with contextlib.suppress(LookupError):
                        call("DELETE", f"/{kind}/{one}?force=1&v=1")


@cache
def problem() -> str:
    """Why no test can run containers here; empty where they can."""
    try:
        address()
    except Missing as missing:
        return str(missing)
    return ""


@cache
def address() -> str:
    """The engine's address, `unix://...`, with the images there. Raises Missing."""
    found = _given() or _running() or _start()
    _provide(found)
    return found


def _given() -> str:
    return os.environ.get("PODBRIDGE_TEST_ENGINE", "")


def _running() -> str:
    """An engine of this machine that answers at one of the usual sockets."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    given = os.environ.get("DOCKER_HOST", "")
    usual = [
        given.removeprefix("unix://") if given.startswith("unix://") else "",
        "/var/run/docker.sock",
        f"{runtime}/docker.sock" if runtime else "",
        f"{runtime}/podman/podman.sock" if runtime else "",
        "/run/podman/podman.sock",
    ]
    for path in filter(None, usual):
        if _answers(path):
            return f"unix://{path}"
    return ""


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _start() -> str:
    """Podman's service, for as long as this process lives. It shares Podman's own storage."""
    if shutil.which("podman") is None:
        raise Missing("no container engine: neither Docker nor Podman answers, nor is podman here")
    folder = Path(tempfile.mkdtemp(prefix="podbridge-engine-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if shutil.which("runc") and "CONTAINERS_CONF" not in os.environ:
        (folder / "containers.conf").write_text(_CONF)
        # Also for a `podman` that a test runs itself.
        os.environ["CONTAINERS_CONF"] = str(folder / "containers.conf")
    path = str(folder / "podman.sock")
    # Also where the tests are killed nothing stays behind.
    mortal = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    with (folder / "podman.log").open("wb") as log:
        service = subprocess.Popen(
            [*mortal, "podman", "system", "service", "--time=0", f"unix://{path}"],
            # Where a container runs out of memory, its monitor leaves a file "oom" here.
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    atexit.register(_end, service)
    deadline = time.monotonic() + _PATIENCE
    while not _answers(path):
        if service.poll() is not None or time.monotonic() > deadline:
            words = (folder / "podman.log").read_text(errors="replace")[-500:]
            raise Missing(f"podman's service does not start: {words}")
        time.sleep(0.02)
    return f"unix://{path}"


def _end(service: subprocess.Popen[bytes]) -> None:
    service.terminate()
    try:
        service.wait(10)
    except subprocess.TimeoutExpired:
        service.kill()
        service.wait()


def _provide(at: str) -> None:
    """Has the images made where the engine lacks them. Twice at once does no harm."""
    for image in (BUSYBOX, EXAMPLES):
        try:
            call("GET", f"/images/{quote(image, safe='')}/json", at=at)
        except LookupError:
            repository, _, tag = image.rpartition(":")
            made = _build(at)
            call("POST", f"/images/{made}/tag?repo={quote(repository)}&tag={tag}", at=at)
        except OSError as error:
            raise Missing(f"{at} does not answer: {error}") from error


@cache
def _build(at: str) -> str:
    """An image of the static busybox with its applets, as the official one has them: its ID."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise Missing("no busybox here to make an image of (Debian: busybox-static)")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    changes = "&".join(
        f"changes={quote(one)}"
        for one in (
            'CMD ["sh"]',
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
    )
    answer = call("POST", f"/images/create?fromSrc=-&{changes}", _layer(busybox, applets), at=at)
    made: str = (answer.get("id") or answer["status"]).removeprefix("sha256:")
    return made


def _layer(busybox: str, applets: subprocess.CompletedProcess[str]) -> bytes:
    files = {
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        "etc/group": b"root:x:0:\nnobody:x:65534:\n",
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, mode in (
            *((one, 0o755) for one in ("bin", "etc", "root", "usr", "usr/bin", "sbin", "var")),
            ("tmp", 0o1777),
        ):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            tar.addfile(folder)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
        binary = Path(busybox).read_bytes()
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(binary), 0o755
        tar.addfile(entry, io.BytesIO(binary))
        for name in sorted({*applets.stdout.split()} - {"busybox"}):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.LNKTYPE, "bin/busybox"
            link.mode = 0o755
            tar.addfile(link)
    return out.getvalue()
