"""Image names and logins as the engine takes them. Pure."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import orjson

from bridge import registry
from bridge.errors import Invalid
from bridge.workload import PullCredential


def normalized(image: str) -> str:
    """The whole name, with registry and tag: `docker.io/library/busybox:latest`. Invalid."""
    try:
        return str(registry.parse(image))
    except Invalid as error:
        # The kubelet's words (pkg/kubelet/images/image_manager.go).
        words = f'Failed to apply default image tag "{image}": {error.message}'
        raise Invalid(words) from None


def repository(reference: str) -> str:
    """A normalized name without tag and digest; what is no name, as it is."""
    name = reference.partition("@")[0]
    head, colon, tail = name.rpartition(":")
    return head if colon and "/" not in tail else name


def resolved(reference: str, image_id: str, digests: Sequence[str]) -> str:
    """What a pod's status calls the image: its digest at that repository, at another one, or the
    image's own ID where it came from no registry."""
    wanted = f"{repository(reference)}@"
    own = [one for one in digests if one.startswith(wanted)]
    return next(iter([*own, *sorted(digests)]), image_id)


def logins(reference: str, credentials: Sequence[PullCredential]) -> list[PullCredential]:
    """Which of these logins to try for that image (a normalized name), the closest place first."""
    return registry.logins(repository(reference), credentials)


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
