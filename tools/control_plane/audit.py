"""Counts calls in an API server's audit log, which says who called what, and how it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson


def position(log: Path) -> int:
    """How far it has come: what is written later belongs to what is done now."""
    return log.stat().st_size if log.exists() else 0


def calls(log: Path, agent: str, since: int = 0, *, namespace: str = "") -> Counter[str]:
    """Completed calls by whoever has this in the user agent: `patch pods/status 200` -> 12. With a
    namespace only those about its objects."""
    found: Counter[str] = Counter()
    for entry in _entries(log, since):
        if agent in entry.get("userAgent", "") and entry.get("stage") == "ResponseComplete":
            about = entry.get("objectRef") or {}
            if namespace and about.get("namespace") != namespace:
                continue
            resource = about.get("resource") or entry.get("requestURI", "").partition("?")[0]
            if part := about.get("subresource"):
                resource = f"{resource}/{part}"
            found[f"{entry['verb']} {resource} {entry['responseStatus']['code']}"] += 1
    return found


def _entries(log: Path, since: int) -> Iterator[dict[str, Any]]:
    with log.open("rb") as file:
        file.seek(since)
        for line in file:
            # The last one may be half written.
            if line.endswith(b"\n"):
                yield orjson.loads(line)
