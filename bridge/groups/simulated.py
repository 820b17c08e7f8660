"""Gives the helper to a simulated cloud, for the options of a backend there."""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import tarfile
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp

from bridge.errors import Unavailable, Unsupported
from bridge.helper.program import cache_folder, program

_PROGRAM = "helper"
_log = logging.getLogger(__name__)


async def helped(endpoint: str, run_on: str, machine: str) -> dict[str, Any]:
    """The helper's options of `GroupOptions` for a backend on the simulator behind `endpoint`,
    which has the helper then. `run_on`: what it runs containers on, `process` or `engine`.
    `machine`: this host's, in Go's words.

    Where the helper is not built there are none, which is logged: pods that need it are refused.
    Raises Unavailable where no engine takes its image.
    """
    try:
        content = await asyncio.to_thread(program, machine)
    except Unsupported as error:
        _log.warning("%s; pods that need it are refused", error.message)
        return {}
    if run_on == "process":
        path = await asyncio.to_thread(_placed, content)
        return {
            "helper_image": "podbridge/helper",
            "helper_program": str(path),
            "tunnel": {"listen": "127.0.0.1", "address": "127.0.0.1"},
        }
    image, host = await _imported(endpoint, content)
    return {"helper_image": image, "tunnel": {"address": host}}


def _placed(content: bytes) -> Path:
    """The program as a file of this host that can be run."""
    digest = hashlib.sha256(content).hexdigest()[:16]
    path = cache_folder() / "run" / f"podbridge-helper-{digest}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{id(content):x}")
        fresh.write_bytes(content)
        fresh.chmod(0o755)
        fresh.replace(path)
    return path


async def _imported(endpoint: str, content: bytes) -> tuple[str, str]:
    """The helper's image as the simulator's engine has it then, and the address by which its groups
    reach this host. Unavailable."""
    name = f"localhost/podbridge/helper:{hashlib.sha256(content).hexdigest()[:20]}"
    url = f"{endpoint}/_podbridge/images"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, params={"name": name}, data=_archive(content)) as answer,
    ):
        said = await answer.json()
    if answer.status != HTTPStatus.CREATED:
        raise Unavailable(f"the helper's image: {'; '.join(said['errors'])}")
    return name, str(said["host"])


def _archive(content: bytes) -> bytes:
    """An image's one layer, as a tar: the program at `/helper`."""
    one = tarfile.TarInfo(_PROGRAM)
    one.mode, one.size = 0o755, len(content)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(one, io.BytesIO(content))
    return buffer.getvalue()
