"""Images of one static program each, put into the engine without any registry."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator, Callable

import orjson

from adapters.engine.client import Engine, part
from adapters.engine.names import PREFIX

_PIECE = 256 * 1024
"""Bytes that are sent at a time."""


def archive(name: str, content: bytes) -> bytes:
    """An image's one layer, as a tar: the program at `/<name>`."""
    one = tarfile.TarInfo(name)
    one.mode, one.size = 0o755, len(content)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(one, io.BytesIO(content))
    return buffer.getvalue()


class OwnImage:
    """Makes sure that the engine has one of our images; asks it once.

    `program` gives the executable for an architecture as the engine names it, and may raise what
    `reference` then raises.
    """

    def __init__(self, engine: Engine, name: str, program: Callable[[str], bytes]) -> None:
        self._engine = engine
        self._name = name
        self._program = program
        self._lock = asyncio.Lock()
        self._found = ""

    @property
    def label(self) -> str:
        """On the image: what its program is, as a digest."""
        return f"{PREFIX}{self._name}"

    def forget(self) -> None:
        """Somebody has removed it: look again."""
        self._found = ""

    async def reference(self) -> str:
        """The image's ID. Errors as of the engine's calls, and the program's."""
        async with self._lock:
            if not self._found:
                content = await asyncio.to_thread(self._program, self._architecture)
                mark = hashlib.sha256(content).hexdigest()[:20]
                self._found = await self._find(mark) or await self._import(content, mark)
            return self._found

    @property
    def _architecture(self) -> str:
        return str(self._engine.info.get("Architecture", ""))

    async def _find(self, mark: str) -> str:
        wanted = {"label": [f"{self.label}={mark}"]}
        found = await self._engine.call("GET", "images/json", params={"filters": wanted})
        return str(found[0]["Id"]) if found else ""

    async def _import(self, content: bytes, mark: str) -> str:
        layer = archive(self._name, content)
        change = f"LABEL {self.label}={mark}"
        return await take(self._engine, f"podbridge/{self._name}", mark, layer, change)


async def take(engine: Engine, repository: str, tag: str, layer: bytes, change: str = "") -> str:
    """Gives the engine an image of one layer, a tar; its ID. `change`: a line as of a Dockerfile.
    Errors as of the engine's calls."""
    params = {"fromSrc": "-"}
    if change:
        params["changes"] = change
    answer = await engine.send("POST", "images/create", data=_pieces(layer), params=params)
    # One document or several, one a line: the last one's status is the ID.
    lines = [answer] if isinstance(answer, dict) else str(answer).splitlines()
    last = lines[-1] if lines else {}
    said = last if isinstance(last, dict) else orjson.loads(last)
    made = str(said["status"])
    # Podman takes no tag with it.
    name = part(made.removeprefix("sha256:"))
    params = {"repo": repository, "tag": tag}
    await engine.call("POST", f"images/{name}/tag", params=params)
    return made


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), _PIECE):
        yield content[at : at + _PIECE]
