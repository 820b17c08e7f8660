"""Which login goes with which image. Pure.

As the kubelet's keyring finds them (pkg/credentialprovider/keyring.go).
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from bridge.registry.reference import DOCKER_HUB
from bridge.workload import PullCredential

_HUB_KEY = "index.docker.io"
"""What logins for Docker Hub are kept under."""


def logins(repository: str, credentials: Sequence[PullCredential]) -> list[PullCredential]:
    """Which of these logins to try for that repository (`docker.io/library/busybox`), the closest
    place first."""
    keyed = sorted(
        ((_key(one.registry), one) for one in credentials), key=lambda pair: pair[0], reverse=True
    )
    found = [one for key, one in keyed if _matches(key, repository)]
    if not found and repository.startswith(f"{DOCKER_HUB}/"):
        found = [one for key, one in keyed if key == _HUB_KEY]
    return found


def _key(registry: str) -> str:
    """A login's place as host[:port][/path]."""
    parts = urlsplit(registry if "://" in registry else f"https://{registry}")
    path = parts.path
    if path.startswith(("/v1/", "/v2/")):
        path = path[3:]
    return parts.netloc + ("" if path == "/" else path)


def _matches(key: str, target: str) -> bool:
    """Same port, as many parts of the host, each by its pattern, and a path that begins with it."""
    host, _, path = key.partition("/")
    other, _, other_path = target.partition("/")
    name, _, port = host.partition(":")
    other_name, _, other_port = other.partition(":")
    parts, others = name.split("."), other_name.split(".")
    return (
        port == other_port
        and len(parts) == len(others)
        and other_path.startswith(path)
        and all(fnmatchcase(one, pattern) for one, pattern in zip(others, parts, strict=True))
    )
