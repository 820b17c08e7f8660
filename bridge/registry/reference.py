"""Image references, as Docker and Kubernetes read them. Pure.

The grammar, its defaults and its words for what is wrong are those of the distribution project
(github.com/distribution/reference); the digests are those that OCI registers
(image-spec, descriptor.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bridge.errors import Invalid

DOCKER_HUB = "docker.io"
_HUB_INDEX = "index.docker.io"
"""Docker Hub's older name; it means the same."""
_HUB_ENDPOINT = "registry-1.docker.io"
_LONGEST_PATH = 255
"""Characters of a repository's path."""
_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
"""Hexadecimal digits."""
_LOWER = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_PART}(?:\.{_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_ALGORITHM = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*"
_REFERENCE = re.compile(
    rf"(?P<host>{_HOST})/(?P<path>{_LOWER}(?:/{_LOWER})*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?"
    rf"(?:@(?P<digest>{_ALGORITHM}:[0-9a-fA-F]{{32,}}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Reference:
    """The whole name of an image: `docker.io/library/busybox:1.37`."""

    registry: str
    """host[:port], as names have it; Docker Hub is `docker.io`."""
    path: str
    """The repository at that registry: `library/busybox`."""
    tag: str = ""
    """Empty only where there is a digest."""
    digest: str = ""
    """`<algorithm>:<hex>`; empty: the tag decides."""

    @property
    def repository(self) -> str:
        """The name without tag and digest."""
        return f"{self.registry}/{self.path}"

    @property
    def endpoint(self) -> str:
        """host[:port] where the registry is asked."""
        return _HUB_ENDPOINT if self.registry == DOCKER_HUB else self.registry

    @property
    def target(self) -> str:
        """What the registry is asked for: the digest, else the tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"


def parse(image: str) -> Reference:
    """An image as a manifest names it. Invalid, in the kubelet's words (pkg/util/parsers)."""
    try:
        return _parse(image)
    except ValueError as error:
        raise Invalid(f'couldn\'t parse image name "{image}": {error}') from None


def _parse(image: str) -> Reference:
    if re.fullmatch("[a-f0-9]{64}", image):
        raise ValueError(
            f"invalid repository name ({image}), cannot specify 64-byte hexadecimal strings"
        )
    registry, rest = _split(image)
    path = rest.partition(":")[0]
    if path != path.lower():
        raise ValueError(f"invalid reference format: repository name ({path}) must be lowercase")
    match = _REFERENCE.fullmatch(f"{registry}/{rest}")
    if match is None:
        raise ValueError("invalid reference format")
    if len(match["path"]) > _LONGEST_PATH:
        raise ValueError(f"repository name must not be more than {_LONGEST_PATH} characters")
    tag, digest = match["tag"] or "", match["digest"] or ""
    if digest:
        check_digest(digest)
    return Reference(match["host"], match["path"], tag if tag or digest else "latest", digest)


def _split(image: str) -> tuple[str, str]:
    """The registry, and what follows: only what can be no part of a path is a registry."""
    first, slash, rest = image.partition("/")
    if not slash:
        return DOCKER_HUB, f"library/{image}"
    if first == _HUB_INDEX:
        first = DOCKER_HUB
    elif not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return DOCKER_HUB, image
    if first == DOCKER_HUB and "/" not in rest:
        rest = f"library/{rest}"
    return first, rest


def check_digest(digest: str) -> None:
    """ValueError where it is not of an algorithm that OCI registers, or not of its length."""
    algorithm, _, encoded = digest.partition(":")
    length = _DIGEST_LENGTHS.get(algorithm)
    if length is None:
        raise ValueError("unsupported digest algorithm")
    if len(encoded) != length:
        raise ValueError("invalid checksum digest length")
    if not re.fullmatch("[a-f0-9]+", encoded):
        raise ValueError("invalid checksum digest format")
