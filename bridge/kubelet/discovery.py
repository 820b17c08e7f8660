"""What is asked first: the API server's version, the id of its cluster (part of every name at a
backend), and the address at which it reaches us."""

from __future__ import annotations

import ipaddress
import socket
import urllib.parse
import uuid
from collections.abc import Mapping
from typing import Protocol

from bridge.errors import Invalid, NotFound, Unauthorized, Unavailable, Violation
from bridge.pods import Manifest

KUBE_SYSTEM = "/api/v1/namespaces/kube-system"


class Api(Protocol):
    """What this needs of `ApiClient`."""

    async def get(self, path: str) -> Manifest:
        """One object."""


async def server_version(api: Api) -> str:
    """The API server's own version: "v1.36.3". Unavailable where it tells none."""
    version = (await api.get("/version")).get("gitVersion")
    if not isinstance(version, str) or not version:
        raise Unavailable("the API server does not tell its version: is it one?")
    return version


async def cluster_id(api: Api, configured: str | None) -> str:
    """The UUID that stands for the cluster: the configured one, or that of its namespace
    kube-system. Invalid where that may not be read; errors of the call."""
    if configured is not None:
        return configured
    try:
        found = (await api.get(KUBE_SYSTEM)).get("metadata") or {}
        return str(uuid.UUID(str(found.get("uid"))))
    except (Unauthorized, NotFound) as error:
        words = (
            f"missing, and cannot be read from the cluster ({error}); allowed: a UUID, best the"
            " output of `kubectl get namespace kube-system -o jsonpath={.metadata.uid}`"
        )
        raise Invalid(violations=[Violation("cluster.id", words)]) from None
    except ValueError:
        words = "missing, and the namespace kube-system has no UUID; allowed: a UUID"
        raise Invalid(violations=[Violation("cluster.id", words)]) from None


def own_address(server: str, env: Mapping[str, str]) -> str:
    """The IP address at which the API server at `server` reaches us: POD_IP, or the one from which
    we reach it. Unavailable where there is no way to it; Invalid for a POD_IP that is none."""
    if given := env.get("POD_IP"):
        try:
            return str(ipaddress.ip_address(given))
        except ValueError:
            words = f'found "{given[:60]}"; allowed: an IP address'
            raise Invalid(violations=[Violation("", words, "POD_IP")]) from None
    parsed = urllib.parse.urlsplit(server)
    try:
        found = socket.getaddrinfo(
            parsed.hostname, parsed.port or 443, type=socket.SOCK_DGRAM, proto=socket.IPPROTO_UDP
        )
        family, kind, proto, _, address = found[0]
        with socket.socket(family, kind, proto) as probe:
            # Sends nothing: it only has the kernel choose the way.
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise Unavailable(f"there is no way to {server}: {error.strerror or error}") from None
