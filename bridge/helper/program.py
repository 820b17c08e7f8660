"""The helper's program, as it is put into images and beside the user's process.

An installed package has it, with its digest in `pinned.json`. A checkout has what `make helper`
built from the sources beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from bridge.errors import Unsupported

_HERE = Path(__file__).resolve().parent
_ALIASES = {"x86_64": "amd64", "aarch64": "arm64"}


def machine_of(architecture: str) -> str:
    """Go's name of an architecture."""
    return _ALIASES.get(architecture, architecture)


def pinned() -> dict[str, str]:
    """SHA-256 of the program by Go's name of the architecture, and of its `sources`."""
    found: dict[str, str] = json.loads((_HERE / "pinned.json").read_text())
    return found


def program(architecture: str) -> bytes:
    """The executable. Raises Unsupported: there is none for that machine, or it is not there, or
    not the one that this package was made with."""
    machine = machine_of(architecture)
    known = pinned()
    if machine not in known:
        raise Unsupported(f"the helper is not made for {architecture or 'an unknown machine'}")
    packed = _HERE / "bin" / f"podbridge-helper-{machine}"
    if packed.exists():
        content = packed.read_bytes()
        if hashlib.sha256(content).hexdigest() != known[machine]:
            raise Unsupported(f"{packed.name} is not the program that this package was made with")
        return content
    built = cache_folder() / f"podbridge-helper-{machine}-{known['sources']}"
    try:
        return built.read_bytes()
    except OSError:
        words = f"the helper for {machine} is not built: `make helper` in a checkout builds it"
        raise Unsupported(words) from None


def cache_folder() -> Path:
    """Where a checkout's programs are."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "podbridge" / "helper"
