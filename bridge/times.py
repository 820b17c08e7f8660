"""Times as Kubernetes writes them, and as we count them: seconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def rfc3339(seconds: float) -> str:
    """UTC in whole seconds, as metav1.Time: `2026-01-02T03:04:05Z`."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@lru_cache(maxsize=8192)
def parse_rfc3339(text: str) -> float:
    """Seconds since the epoch; ValueError where it is no such time."""
    return datetime.fromisoformat(text).timestamp()
