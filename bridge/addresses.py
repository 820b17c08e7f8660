"""Where a provider listens: `unix:///path`, or `host:port`."""

from __future__ import annotations

import ipaddress


def is_local(address: str) -> bool:
    """Whether nobody on another host can reach it: a unix socket, or a loopback address."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
