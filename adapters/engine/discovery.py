"""Where the engine is: by option, by DOCKER_HOST, or at one of the usual sockets."""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Mapping
from pathlib import Path

from bridge.errors import Invalid, Unauthorized, Unavailable

_ADVICE = (
    "start one (`systemctl --user start podman.socket`, or `sudo systemctl start docker`), "
    "or name its address in the backend's option `host` or in DOCKER_HOST"
)


def sockets(environment: Mapping[str, str]) -> list[str]:
    """The usual sockets, in the order in which they are tried."""
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    own = [f"{runtime}/docker.sock", f"{runtime}/podman/podman.sock"] if runtime else []
    return ["/var/run/docker.sock", *own, "/run/podman/podman.sock"]


def find(host: str, environment: Mapping[str, str]) -> str:
    """The engine's address: unix:// or tcp://. Invalid, Unavailable, Unauthorized."""
    for source, named in (("option host", host), ("DOCKER_HOST", environment.get("DOCKER_HOST"))):
        if named:
            return _checked(source, named)
    looked, closed = sockets(environment), []
    for path in looked:
        if not _is_socket(path):
            continue
        if os.access(path, os.R_OK | os.W_OK):
            return f"unix://{path}"
        closed.append(path)
    if closed:
        raise Unauthorized(f"{', '.join(closed)}: this user may not use it (group docker?)")
    raise Unavailable(f"no container engine at {', '.join(looked)}: {_ADVICE}")


def _checked(source: str, address: str) -> str:
    scheme, found, rest = address.partition("://")
    if not found or not rest or scheme not in ("unix", "tcp", "http", "https"):
        raise Invalid(f"{source}: {address!r} is no unix:// or tcp:// address")
    if scheme == "unix" and not _is_socket(rest):
        raise Unavailable(f"{source}: no socket at {rest}: {_ADVICE}")
    return address


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def tls(address: str, environment: Mapping[str, str]) -> ssl.SSLContext | None:
    """The context for a TCP address where one is asked for, as `docker` does it. Invalid."""
    wanted = bool(environment.get("DOCKER_TLS_VERIFY")) or address.startswith("https://")
    if address.startswith(("unix://", "http://")) or not wanted:
        return None
    place = environment.get("DOCKER_CERT_PATH", "") or str(Path.home() / ".docker")
    folder = Path(place)
    try:
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        if (folder / "cert.pem").exists():
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"DOCKER_CERT_PATH {place}: {error}") from None
    return context
