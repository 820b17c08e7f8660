"""The ways in which clouds write a moment."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime


def iso(seconds: float) -> str:
    """`2026-11-22T08:15:30.250Z`."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def http(seconds: float) -> str:
    """As in HTTP headers."""
    return format_datetime(datetime.fromtimestamp(int(seconds), UTC), usegmt=True)


def parse(text: str) -> float:
    """Any of them, or a number of seconds. ValueError."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return parsedate_to_datetime(text).timestamp()
