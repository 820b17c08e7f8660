"""Identifiers that mean nothing."""

from __future__ import annotations

import secrets
import uuid


def hex_id(length: int = 32) -> str:
    """So many hexadecimal digits."""
    return secrets.token_hex(length // 2)


def uuid_id() -> str:
    """A UUID of chance."""
    return str(uuid.uuid4())
