"""Addresses of the machine that the engine is on."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from adapters.engine.client import Engine, part
from bridge.errors import Unavailable

_ELSEWHERE = (("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6))
"""Addresses of the documentation's networks: they are always behind the default route."""


def of_host(address: str) -> tuple[str, ...]:
    """This machine's addresses for an engine that is on it, else the engine's own."""
    if not address.startswith("unix://"):
        host = urlsplit(address).hostname
        return (host,) if host else ()
    found = [one for target, family in _ELSEWHERE if (one := _toward(target, family))]
    return tuple(found) or ("127.0.0.1",)


async def gateway(engine: Engine, network: str = "") -> str:
    """The machine's own address in a network of the engine, by default that of its containers.
    Unavailable: it has none there."""
    name = network or ("podman" if engine.podman else "bridge")
    said = await engine.call("GET", f"networks/{part(name)}")
    for one in (said.get("IPAM") or {}).get("Config") or ():
        if one.get("Gateway"):
            return str(one["Gateway"])
    raise Unavailable(f"the network {name} has no gateway")


def _toward(target: str, family: int) -> str:
    """Our end of a way to that address; nothing is sent, since UDP has no connections."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as made:
            made.connect((target, 9))
            return str(made.getsockname()[0])
    except OSError:
        return ""
