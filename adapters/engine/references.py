"""Image names, and which login goes with which image. Pure.

Names as the distribution project's reference grammar has them, logins as the kubelet's keyring
finds them (pkg/credentialprovider/keyring.go).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

import orjson

from bridge.errors import Invalid
from bridge.workload import PullCredential

_DEFAULT = "docker.io"
_DEFAULT_KEY = "index.docker.io"
"""What logins for Docker Hub are kept under."""
_LOWER = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_PART}(?:\.{_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_REFERENCE = re.compile(
    rf"(?P<host>{_HOST})/(?P<path>{_LOWER}(?:/{_LOWER})*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)


def normalized(image: str) -> str:
    """The whole name, with registry and tag: `docker.io/library/busybox:latest`. Invalid."""
    first, slash, _ = image.partition("/")
    if not slash:
        whole = f"{_DEFAULT}/library/{image}"
    elif "." in first or ":" in first or first == "localhost" or first != first.lower():
        whole = image
    else:
        whole = f"{_DEFAULT}/{image}"
    host, _, path = whole.partition("/")
    if host == _DEFAULT_KEY:
        host = _DEFAULT
    if host == _DEFAULT and "/" not in path:
        path = f"library/{path}"
    whole = f"{host}/{path}"
    match = _REFERENCE.fullmatch(whole)
    if match is None:
        raise Invalid(
            f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": '
            "invalid reference format"
        )
    return whole if match["tag"] or match["digest"] else f"{whole}:latest"


def repository(reference: str) -> str:
    """A normalized name without tag and digest."""
    name = reference.partition("@")[0]
    head, colon, tail = name.rpartition(":")
    return head if colon and "/" not in tail else name


def resolved(reference: str, image_id: str, digests: Sequence[str]) -> str:
    """What a pod's status calls the image: its digest at that repository, at another one, or the
    image's own ID where it came from no registry."""
    wanted = f"{repository(reference)}@"
    own = [one for one in digests if one.startswith(wanted)]
    return next(iter([*own, *sorted(digests)]), image_id)


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


def logins(reference: str, credentials: Sequence[PullCredential]) -> list[PullCredential]:
    """Which of these logins to try for that image (a normalized name), the closest place first."""
    target = repository(reference)
    keyed = sorted(
        ((_key(one.registry), one) for one in credentials), key=lambda pair: pair[0], reverse=True
    )
    found = [one for key, one in keyed if _matches(key, target)]
    if not found and target.startswith(f"{_DEFAULT}/"):
        found = [one for key, one in keyed if key == _DEFAULT_KEY]
    return found


def secrets(login: PullCredential) -> list[str]:
    """What of a login is secret: the password, and each form in which it travels."""
    both = f"{login.username}:{login.password}".encode()
    encoded = [base64.b64encode(both), base64.urlsafe_b64encode(both)]
    sent = header(login)["X-Registry-Auth"]
    return [one for one in (login.password, *(one.decode() for one in encoded), sent) if one]


def header(login: PullCredential) -> dict[str, str]:
    """The header in which the engine takes a login."""
    said = {
        "username": login.username,
        "password": login.password,
        "serveraddress": login.registry,
    }
    return {"X-Registry-Auth": base64.urlsafe_b64encode(orjson.dumps(said)).decode("ascii")}
