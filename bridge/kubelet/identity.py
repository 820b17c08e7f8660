"""A node of its own to the API server: `system:node:NAME`, by a certificate that the cluster signs.

Other identities are what a kubeconfig or a service account says (`bridge.kubelet.credentials`).
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bridge.errors import BridgeError, Invalid, Unauthorized, Violation
from bridge.kubelet import credentials as loading
from bridge.kubelet.certificates import Pair, Store, check_life, client
from bridge.kubelet.client import ApiClient
from bridge.kubelet.credentials import Credentials
from bridge.kubelet.rotation import Announce, obtain
from bridge.times import rfc3339
from bridge.tls import show


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
