"""The images of both nodes: stand-ins, made once with the engine and handed to containerd."""

from __future__ import annotations

import http.client
import shutil
import socket
from pathlib import Path
from urllib.parse import quote

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
