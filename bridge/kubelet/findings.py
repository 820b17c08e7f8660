"""What a look at a cluster, a node or this machine has seen. Imports nothing that takes time: a
liveness probe begins a new process each time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look saw."""

    look: str
    """What was looked at, in a word or two."""
    level: Level
    message: str
    advice: str = ""
    """What to do; empty: nothing."""
