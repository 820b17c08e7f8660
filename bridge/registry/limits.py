"""How much of a registry is left, as its answers say. Pure.

Retry-After is RFC 9110's; `ratelimit-limit: 100;w=21600` and `ratelimit-remaining: 0;w=21600` are
Docker Hub's (docs.docker.com, "Docker Hub pull usage and limits"): pulls in a window of seconds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_LONGEST = 3600.0
"""Seconds: whatever a registry says, it is asked again after an hour."""


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds until a refused call is worth another; None: the registry does not say.

    `now` is in seconds since the epoch, for a date; None: the present.
    """
    said = headers.get("Retry-After", "").strip()
    if re.fullmatch("[0-9]{1,12}", said):
        return min(float(said), _LONGEST)
    if said:
        try:
            at = parsedate_to_datetime(said).timestamp()
        except ValueError:
            return exhausted(headers)
        return min(max(at - (time.time() if now is None else now), 0.0), _LONGEST)
    return exhausted(headers)


def exhausted(headers: Mapping[str, str]) -> float | None:
    """Seconds until one more pull is to be had where none is left; None: some are.

    The window slides: on average a pull comes back each `window / limit`.
    """
    remaining = _amount(headers.get("ratelimit-remaining", ""))
    if remaining is None or remaining[0] > 0:
        return None
    limit = _amount(headers.get("ratelimit-limit", "")) or (1, remaining[1])
    return min(remaining[1] / max(limit[0], 1), _LONGEST)


def _amount(said: str) -> tuple[int, float] | None:
    """(pulls, seconds of their window)."""
    match = re.fullmatch(r"([0-9]{1,9})(?:\s*;\s*w=([0-9]{1,9}))?", said.strip())
    return (int(match[1]), float(match[2] or 0)) if match else None
