"""Addresses of the machine that the engine is on."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

_ELSEWHERE = (("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6))
"""Addresses of the documentation's networks: they are always behind the default route."""


def of_host(address: str) -> tuple[str, ...]:
    """This machine's addresses for an engine that is on it, else the engine's own."""
    if not address.startswith("unix://"):
        host = urlsplit(address).hostname
        return (host,) if host else ()
    found = [one for target, family in _ELSEWHERE if (one := _toward(target, family))]
    return tuple(found) or ("127.0.0.1",)


def _toward(target: str, family: int) -> str:
    """Our end of a way to that address; nothing is sent, since UDP has no connections."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as made:
            made.connect((target, 9))
            return str(made.getsockname()[0])
    except OSError:
        return ""
