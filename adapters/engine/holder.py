"""What is done to volumes through the pause container, which holds them at `/v/<name>`.

The engine takes the container's name for its ID, and the name follows from the pod.
"""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress
from typing import Any

import orjson

from adapters.engine import names, streams
from adapters.engine.client import Engine, part
from adapters.engine.pause import COMMAND
from adapters.engine.scratch import bounded
from bridge.errors import Invalid, NotFound, Unavailable
from bridge.workload import Identity

PLACE = "/v"
_RENAME = 10.0
"""Seconds: a pause image of somebody else's may take our words for its own, and sleep."""


def _archive(identity: Identity) -> str:
    return f"containers/{part(names.pause(identity))}/archive"


async def put(engine: Engine, identity: Identity, data: bytes) -> None:
    """Unpacks a tar at `/v`. NotFound."""
    await engine.send("PUT", _archive(identity), params={"path": PLACE}, data=data)


async def get(engine: Engine, identity: Identity, path: str) -> bytes:
    """A tar of what is at a path below `/v`. NotFound. Unavailable: it is longer than 8 MiB."""
    place = {"path": f"{PLACE}/{path}"}
    async with engine.stream("GET", _archive(identity), params=place) as answer:
        content = await bounded(answer)
    if not content:
        raise Unavailable(f"{path}: somebody made it too large to be read")
    return content


async def stat(engine: Engine, identity: Identity, path: str) -> dict[str, Any] | None:
    """What is at a path below `/v`: name, size, mode, linkTarget; None: nothing."""
    place = {"path": f"{PLACE}/{path}"}
    try:
        async with engine.stream("HEAD", _archive(identity), params=place) as answer:
            head = answer.headers.get("X-Docker-Container-Path-Stat", "")
    except NotFound:
        return None
    found: dict[str, Any] = orjson.loads(base64.b64decode(head))
    return found


async def rename(engine: Engine, identity: Identity, old: str, new: str) -> bool:
    """Renames one path below `/v` to another, replacing what is there; whether it could be done:
    an image of somebody else's may have no program for it."""
    command = [COMMAND, "rename", f"{PLACE}/{old}", f"{PLACE}/{new}"]
    with suppress(Invalid, TimeoutError):
        async with asyncio.timeout(_RENAME):
            return (await streams.run(engine, names.pause(identity), command))[0] == 0
    return False
