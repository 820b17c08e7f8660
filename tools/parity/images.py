"""The images of both nodes: stand-ins, made once with the engine and handed to containerd.

Both nodes hold a pod's namespaces with the same program: it counts in the pod's own memory limit.
"""

from __future__ import annotations

import http.client
import io
import platform
import shutil
import socket
import tarfile
from pathlib import Path
from urllib.parse import quote

from adapters.engine import pause
from tools.conformance import images
from tools.conformance.containers import engine
from tools.parity.kubelet import PAUSE

AGNHOST = "stand-ins.invalid/e2e-test-images/agnhost:2.63.0"
SHORT = {"busybox": images.BUSYBOX, "agnhost": AGNHOST}
"""What a manifest writes for an image, and what it gets."""
_PATIENCE = 300.0
"""Seconds that the engine may take to write them all."""


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._path)


def archive(agnhost: Path, into: Path) -> Path:
    """Has them made where the engine lacks them, and writes them to a file for containerd."""
    images.provide(agnhost)
    _provide_pause()
    names = "&".join(f"names={quote(one, safe='')}" for one in (*SHORT.values(), PAUSE))
    connection = _Unix(engine.address().removeprefix("unix://"))
    try:
        connection.request("GET", f"/v1.41/images/get?{names}")
        answer = connection.getresponse()
        if answer.status != 200:
            raise LookupError(f"the engine exports no images: {answer.read(500)!r}")
        with into.open("wb") as file:
            shutil.copyfileobj(answer, file)
    finally:
        connection.close()
    return into


def _provide_pause() -> None:
    program = pause.program(platform.machine())
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(pause.COMMAND.lstrip("/"))
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
    change = quote(f'ENTRYPOINT ["{pause.COMMAND}"]')
    made = engine.call("POST", f"/images/create?fromSrc=-&changes={change}", out.getvalue())
    identifier = (made.get("id") or made["status"]).removeprefix("sha256:")
    repository, _, tag = PAUSE.rpartition(":")
    engine.call("POST", f"/images/{identifier}/tag?repo={quote(repository)}&tag={tag}")
