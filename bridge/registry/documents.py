"""What a registry keeps of an image, read: index, manifest, configuration. Pure.

The formats are OCI's (image-spec: image-index.md, manifest.md, config.md) and Docker's, which do
not differ in what is read here. Whatever is not as they have it is Unsupported: it runs nowhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from bridge.errors import Unsupported
from bridge.registry.reference import check_digest

INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_CONFIGS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
LIMIT = 4 * 1024 * 1024
"""Bytes of a manifest, an index or a configuration: what registries must take at least
(distribution-spec, "Pushing Manifests"), and where they commonly stop."""
_MACHINES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "armel": "arm",
    "i386": "386",
}
"""Other names of Go's architectures (containerd, platforms/database.go)."""
_VARIANTS = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
"""What an architecture without a variant means."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on, in Go's names: `linux/arm64/v8`."""

    architecture: str = "amd64"
    variant: str = ""
    """Of the CPU (`v7`); empty: the architecture's usual one."""
    os: str = "linux"

    def normalized(self) -> Platform:
        """Usual names, and the variant said in any case."""
        name = _MACHINES.get(self.architecture.lower(), self.architecture.lower())
        variant = self.variant.lower() or _VARIANTS.get(name, "")
        if name == "arm64" and variant == "8":
            variant = "v8"
        return Platform(name, variant, self.os.lower())

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image says of the processes that are started from it (image-spec, config.md)."""

    entrypoint: tuple[str, ...] = field(default=(), repr=False)
    cmd: tuple[str, ...] = field(default=(), repr=False)
    """The command where there is no entry point, its default arguments where there is one."""
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """(name, value), in their order."""
    working_dir: str = ""
    user: str = ""
    """`user`, `uid`, `user:group` and so on; empty: root."""
    stop_signal: str = ""
    """`SIGQUIT` or a number; empty: SIGTERM."""
    exposed_ports: tuple[tuple[int, str], ...] = ()
    """(port, `tcp` or `udp`)."""
    volumes: tuple[str, ...] = ()
    """Paths."""
    architecture: str = ""
    variant: str = ""
    os: str = ""
    digest: str = ""
    """Of the platform's own manifest."""

    def command(self, command: Sequence[str], args: Sequence[str]) -> tuple[str, ...]:
        """The whole command of a container that has these `command` and `args`: its command
        replaces the image's both, its args the image's cmd. Empty: there is none at all."""
        if command:
            return (*command, *args)
        return (*self.entrypoint, *(args or self.cmd))


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Where a document leads to another one."""

    digest: str
    size: int
    """Bytes."""
    media_type: str = ""
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """An image's manifests, one for each platform."""

    manifests: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One platform's image."""

    config: Descriptor


def is_intact(digest: str, content: bytes) -> bool:
    """Whether the digest is that of the content."""
    algorithm, _, encoded = digest.partition(":")
    return hashlib.new(algorithm, content).hexdigest() == encoded


def manifest(image: str, content: bytes) -> Index | Manifest:
    """An index or a manifest: its form tells which, as neither has to say. Unsupported."""
    said = _document(image, content)
    manifests, config = said.get("manifests"), said.get("config")
    if manifests is not None and (config is not None or said.get("layers") is not None):
        # Two readers of one digest could see two images (CVE-2021-41190).
        raise Unsupported(f"{image}: the manifest is an index and an image at once")
    if isinstance(manifests, list):
        kept = (_descriptor(image, one) for one in manifests if not _is_attestation(one))
        return Index(tuple(kept))
    if config is None:
        if said.get("schemaVersion") == 1:
            raise Unsupported(f"{image}: the manifest is of Docker's schema 1, push it anew")
        raise Unsupported(f"{image}: the manifest names no configuration")
    found = _descriptor(image, config)
    if found.media_type not in _CONFIGS:
        kind = found.media_type[:100]
        raise Unsupported(f"{image} is no container image, but an artifact of type {kind!r}")
    return Manifest(found)


def choose(image: str, index: Index, wanted: Platform) -> Descriptor:
    """The manifest for that platform, its nearest older variant else; one that names no platform
    where nothing else fits. Unsupported, with what there is."""
    platforms = [(one, one.platform.normalized()) for one in index.manifests if one.platform]
    for platform in _accepted(wanted):
        for one, offered in platforms:
            if offered == platform:
                return one
    for one in index.manifests:
        if one.platform is None:
            return one
    raise _mismatch(image, wanted, (one.platform for one in index.manifests if one.platform))


def config(image: str, content: bytes, wanted: Platform, digest: str) -> ImageConfig:
    """The configuration of the manifest with that digest. Unsupported."""
    said = _document(image, content)
    own = said.get("config") or {}
    if not isinstance(own, dict):
        raise _malformed(image, "config")
    made = ImageConfig(
        entrypoint=_words(image, own, "Entrypoint"),
        cmd=_words(image, own, "Cmd"),
        env=tuple(_pair(one) for one in _words(image, own, "Env")),
        working_dir=_text(image, own, "WorkingDir"),
        user=_text(image, own, "User"),
        stop_signal=_text(image, own, "StopSignal"),
        exposed_ports=tuple(sorted(_port(image, one) for one in _keys(image, own, "ExposedPorts"))),
        volumes=tuple(sorted(_keys(image, own, "Volumes"))),
        architecture=_text(image, said, "architecture"),
        variant=_text(image, said, "variant"),
        os=_text(image, said, "os"),
        digest=digest,
    )
    offered = Platform(made.architecture, made.variant, made.os)
    # Both are required; what lacks them claims nothing that could be wrong.
    if made.architecture and made.os and offered.normalized() not in _accepted(wanted):
        raise _mismatch(image, wanted, [offered])
    return made


def _accepted(wanted: Platform) -> list[Platform]:
    """What runs on that platform, the best first: a CPU runs what its older variants run."""
    usual = wanted.normalized()
    number = usual.variant.removeprefix("v")
    if not number.isdecimal():
        return [usual]
    oldest = {"arm": 5, "arm64": 8}.get(usual.architecture, 1)
    newest = min(int(number), oldest + 20)
    variants = [f"v{one}" for one in range(newest, oldest - 1, -1)] or [usual.variant]
    return [Platform(usual.architecture, one, usual.os) for one in variants]


def _mismatch(image: str, wanted: Platform, offered: Iterable[Platform]) -> Unsupported:
    there = ", ".join(sorted({str(one) for one in offered})[:20]) or "nothing"
    return Unsupported(f"{image} is not there for {wanted}, only for {there}")


def _is_attestation(said: Any) -> bool:
    """BuildKit keeps provenance and SBOMs beside the images, as manifests of no platform."""
    notes = said.get("annotations") if isinstance(said, dict) else None
    return isinstance(notes, dict) and notes.get("vnd.docker.reference.type") is not None


def _descriptor(image: str, said: Any) -> Descriptor:
    if not isinstance(said, dict):
        raise _malformed(image, "descriptor")
    digest, size = _text(image, said, "digest"), said.get("size")
    try:
        check_digest(digest)
    except ValueError as error:
        raise Unsupported(f"{image}: {digest[:100]!r}: {error}") from None
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _malformed(image, "size")
    platform = said.get("platform")
    if platform is not None and not isinstance(platform, dict):
        raise _malformed(image, "platform")
    return Descriptor(
        digest,
        size,
        _text(image, said, "mediaType"),
        None
        if not platform
        else Platform(
            _text(image, platform, "architecture"),
            _text(image, platform, "variant"),
            _text(image, platform, "os"),
        ),
    )


def _document(image: str, content: bytes) -> Mapping[str, Any]:
    try:
        said = orjson.loads(content)
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, dict):
        raise Unsupported(f"{image}: what the registry keeps of it is no JSON object")
    return said


def _malformed(image: str, name: str) -> Unsupported:
    return Unsupported(f"{image}: the field {name!r} is not as the image format has it")


def _text(image: str, said: Mapping[str, Any], name: str) -> str:
    value = said.get(name) or ""
    if not isinstance(value, str):
        raise _malformed(image, name)
    return value


def _words(image: str, said: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = said.get(name) or []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _malformed(image, name)
    return tuple(value)


def _keys(image: str, said: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A set, which the format writes as an object of empty objects."""
    value = said.get(name) or {}
    if not isinstance(value, dict):
        raise _malformed(image, name)
    return tuple(value)


def _pair(variable: str) -> tuple[str, str]:
    name, _, value = variable.partition("=")
    return name, value


def _port(image: str, said: str) -> tuple[int, str]:
    number, _, protocol = said.partition("/")
    if not (number.isascii() and number.isdecimal() and len(number) <= 5):
        raise _malformed(image, "ExposedPorts")
    return int(number), (protocol or "tcp").lower()
