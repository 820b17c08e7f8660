"""What an image's registry says of it, without pulling it."""

from __future__ import annotations

from bridge.registry.credentials import logins
from bridge.registry.reference import Reference, parse

__all__ = ["Reference", "logins", "parse"]
