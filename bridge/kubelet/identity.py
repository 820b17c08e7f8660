"""Who this process is: to the API server, to the clouds, and among its replicas.

- To the API server: what a kubeconfig or a service account says, or a node of its own with a
  certificate (`node_credentials`).
- To the clouds: the cluster's id, which is part of every name there (`cluster_id`).
- Among its replicas: a name that it keeps while its state folder lives (`Replica`).
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import ssl
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from bridge.config.values import SecretRef
from bridge.errors import BridgeError, Invalid, NotFound, Unauthorized, Unavailable, Violation
from bridge.kubelet import credentials as loading
from bridge.kubelet.certificates import Pair, Store, check_life, client, pair_of
from bridge.kubelet.client import ApiClient
from bridge.kubelet.credentials import Credentials
from bridge.kubelet.rotation import Announce, obtain
from bridge.pods import Manifest
from bridge.times import rfc3339
from bridge.tls import show

KUBE_SYSTEM = "/api/v1/namespaces/kube-system"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Names this start of this machine's kernel."""


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


# To the API server.


async def node_credentials(
    base: Callable[[], Credentials],
    store: Store,
    node: str,
    *,
    announce: Announce = lambda *_: None,
    clock: Callable[[], float] = time.time,
) -> Credentials:
    """Credentials of `system:node:NODE`. They follow the store: a certificate that replaces the
    one there is used for every new connection.

    `base` loads what may ask for a first certificate (a bootstrap token's kubeconfig) anew each
    time; address and CA come from it as well. Where the store holds a valid certificate nothing is
    asked for. Invalid for a certificate that is another node's, and for a `base` that is wrong;
    Unauthorized where the request was refused. Waits for approval as long as it takes.
    """
    first = base()
    wanted = client(node)
    if first.tls() is None:
        words = f"found {first.server}; allowed: https, as a certificate proves nothing without it"
        raise Invalid(violations=[Violation("clusters[].cluster.server", words, first.source)])
    pair = store.load()
    if pair is not None and (foreign := wanted.lacking(pair)):
        words = f"the certificate {foreign}: delete the file, or configure another cluster.state"
        raise Invalid(violations=[Violation("", words, str(store.path))])
    if pair is None or clock() >= pair.not_after:
        async with ApiClient(first) as api:
            try:
                await obtain(api, store, wanted, announce=announce, clock=clock)
            except Unauthorized as error:
                raise Unauthorized(_unobtained(store, pair, first, error)) from None
    else:
        check_life(pair, str(store.path), clock())
    return replace(
        first,
        tls=_Shown(base, store).context,
        authorization=_nothing,
        renewable=False,
        source=f"{store.path}, at {first.source}",
    )


def _unobtained(store: Store, old: Pair | None, base: Credentials, error: BridgeError) -> str:
    why = f"there is no client certificate in {store.path}"
    if old is not None:
        why = f"the client certificate in {store.path} expired at {rfc3339(old.not_after)}"
    return f"{why}, and {base.source} got no new one: {error}"


async def _nothing(_renew: bool) -> str:
    return ""


class _Shown:
    """A TLS context with the store's certificate; another context when that was replaced, so that
    no connection outlives the certificate that it began with."""

    def __init__(self, base: Callable[[], Credentials], store: Store) -> None:
        self._base, self._store = base, store
        self._lock = threading.Lock()
        self._made: ssl.SSLContext | None = None
        self._stamp: tuple[int, ...] = ()
        self._looked = float("-inf")

    def context(self) -> ssl.SSLContext | None:
        """Invalid where there is nothing to show, at the first time; later the old one stays until
        there is something better."""
        with self._lock:
            now = time.monotonic()
            if self._made is not None and now - self._looked < loading.LOOK:
                return self._made
            self._looked = now
            stamp = _stamp(self._store.path)
            if self._made is None or stamp != self._stamp:
                try:
                    self._made, self._stamp = self._make(), stamp
                except Invalid:
                    if self._made is None:
                        raise
            return self._made

    def _make(self) -> ssl.SSLContext | None:
        pair = self._store.load()
        if pair is None:
            words = "the client certificate is gone"
            raise Invalid(violations=[Violation("", words, str(self._store.path))])
        # Loaded anew: a context that is in use elsewhere must not get another certificate.
        made = self._base().tls()
        if made is not None:
            show(made, pair.certificate, pair.key)
        return made


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def serving_pair(cert: Path, key: SecretRef, env: Mapping[str, str], now: float) -> Pair:
    """The configured serving certificate. Invalid where it is none, is over, or its key is not its
    own."""
    try:
        content = cert.read_bytes()
    except OSError as error:
        words = f"cannot be read: {error.strerror}"
        raise Invalid(violations=[Violation("", words, str(cert))]) from None
    pair = pair_of(content, key.read(env), str(cert))
    check_life(pair, str(cert), now)
    return pair


def own_address(server: str, env: Mapping[str, str]) -> str:
    """The IP address at which the API server at `server` reaches us: POD_IP, or the one from which
    we reach it. Unavailable where there is no way to it."""
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


# Among the replicas.


@dataclass(slots=True)
class Replica:
    """This process among those that could act for a node."""

    identity: str
    """`NODE_UUID`: what it calls itself in the Lease."""
    returning: bool = False
    """Whether the name is from before, and whoever had it is dead."""
    _lock: int | None = field(default=None, repr=False)

    def close(self) -> None:
        """Lets another process have the name."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def replica(folder: Path, node: str) -> Replica:
    """The name of this replica, kept in the node's state folder: whoever restarts there after a
    crash has its Lease back at once. A lock on the file, which ends with its process, says that
    nobody else uses the name. Where it is taken, where nothing can be kept, and where the name is
    from another machine or another boot (whose locks we might not see), the name is a new one."""
    fresh = Replica(f"{node}_{uuid.uuid4()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / "replica", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return fresh
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        boot = BOOT_ID.read_text("ascii").strip()
        name, _, where = os.read(handle, 400).decode("ascii", "replace").strip().partition(" ")
        if where == boot and name.startswith(f"{node}_") and _is_uuid(name[len(node) + 1 :]):
            return Replica(name, True, handle)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{fresh.identity} {boot}".encode(), 0)
    except OSError:
        os.close(handle)
        return fresh
    fresh._lock = handle
    return fresh


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
