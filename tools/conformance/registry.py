"""The stand-ins as a registry on this machine has them, for backends that ask one of images.

The engine has the images already: they get names of that registry there, and nothing is pulled.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tools.conformance.containers import engine, paper_registry
from tools.conformance.images import NotHere


@contextlib.contextmanager
def serving(names: Sequence[str], registry: str) -> Iterator[str]:
    """A registry that has these images, of which each name begins with `registry`; its address.
    NotHere; LookupError with the engine's words."""
    paper = paper_registry.PaperRegistry()
    for name in names:
        _keep(paper, name, registry)
    with _in_loop(paper):
        new = [f"{paper.address}{name.removeprefix(registry)}" for name in names]
        try:
            for name, other in zip(names, new, strict=True):
                repository, _, tag = other.rpartition(":")
                path = f"/images/{quote(name, safe='')}/tag?repo={quote(repository)}&tag={tag}"
                engine.call("POST", path)
            yield paper.address
        finally:
            for other in new:
                with contextlib.suppress(LookupError):
                    engine.call("DELETE", f"/images/{quote(other, safe='')}")


def _keep(paper: paper_registry.PaperRegistry, name: str, registry: str) -> None:
    """The image as the engine has it: it will be asked for by the digest."""
    manifest = _manifest(name)
    config = str(json.loads(manifest)["config"]["digest"])
    paper.put(name.removeprefix(f"{registry}/"), manifest, paper_registry.MANIFEST)
    paper.blobs[config] = _stored(name, config)


def _manifest(name: str) -> bytes:
    return _stored(name, "manifest")


def _stored(name: str, what: str) -> bytes:
    """A document of an image, from where Podman keeps it: its API has them only made anew, with
    another digest."""
    image: Any = engine.call("GET", f"/images/{quote(name, safe='')}/json")
    where: Any = engine.call("GET", "/info")
    identity = str(image["Id"]).removeprefix("sha256:")
    folder = Path(where["DockerRootDir"]) / f"{where['Driver']}-images" / identity
    try:
        return (folder / _file_name(what)).read_bytes()
    except OSError as error:
        raise NotHere(
            f"{name}: {error.strerror}: {folder}: this takes Podman as root, with its own storage"
        ) from None


def _file_name(key: str) -> str:
    """As containers/storage names what it keeps of an image."""
    return key if key.isalnum() else "=" + base64.b64encode(key.encode()).decode()


@contextlib.contextmanager
def _in_loop(paper: paper_registry.PaperRegistry) -> Iterator[None]:
    loop = asyncio.new_event_loop()
    ready, done = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with paper_registry.serving(paper):
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="registry")
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()
