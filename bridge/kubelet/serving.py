"""Keeps the HTTPS API of a node open: with the certificate that there is, and the cluster's CAs.

The certificate is a configured one, read anew when its file is replaced; or one of the cluster,
asked for and rotated, with a self-signed one until that is there. The CAs of clients are configured
too, or the cluster's own: the API server tells them in a ConfigMap that everybody may be let read
(role extension-apiserver-authentication-reader). Where neither can be had nobody is known by a
certificate: whoever brings a token still is, which the API server does not.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bridge.config.values import SecretRef
from bridge.errors import BridgeError, Invalid, NotFound, Unauthorized, Violation
from bridge.kubelet.api.server import KubeletApi
from bridge.kubelet.api.tls import server_context
from bridge.kubelet.certificates import Pair, Store, check_life, pair_of, self_signed, serving
from bridge.kubelet.client import ApiClient
from bridge.kubelet.node import NodeSpec
from bridge.kubelet.rotation import Announce, CertificateKeeper
from bridge.pods import Manifest

CAS = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
"""Where an API server tells whose client certificates it takes."""
LOOK = 60.0
"""Seconds between two looks at a file that may have been replaced."""
LOOK_AT_CAS = 300.0
"""Seconds between two looks at the cluster's CAs: those of a rotation overlap for days."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before something that failed is tried again: doubling."""

_log = logging.getLogger(__name__)


class Api(Protocol):
    """What this needs of `ApiClient` to learn the CAs."""

    async def get(self, path: str) -> Manifest:
        """One object."""


class Certificates(Protocol):
    """Where the serving certificate is from."""

    async def run(self, renewed: Callable[[Pair], None]) -> None:
        """Tells each pair that is valid from now on, until cancelled."""


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


@dataclass(frozen=True, slots=True)
class FromFiles:
    """A configured certificate."""

    cert: Path
    key: SecretRef

    def load(self) -> Pair:
        """What is there now. Invalid."""
        return serving_pair(self.cert, self.key, os.environ, time.time())

    async def run(self, renewed: Callable[[Pair], None]) -> None:
        """`Certificates.run`. A file that is wrong changes nothing, and is told in the log."""
        known: Pair | None = None
        problem = ""
        while True:
            try:
                pair = await asyncio.to_thread(self.load)
                problem = ""
                if pair != known:
                    known = pair
                    renewed(pair)
            except BridgeError as error:
                if str(error) != problem:
                    problem = str(error)
                    _log.warning("the serving certificate: %s", error)
            await asyncio.sleep(LOOK)


@dataclass(frozen=True, slots=True)
class FromCluster:
    """A certificate that the cluster signs (kubernetes.io/kubelet-serving)."""

    client: ApiClient
    store: Store
    node: str
    address: str
    self_signed: bool
    """Whether one of our own serves until it is there."""
    announce: Announce

    async def run(self, renewed: Callable[[Pair], None]) -> None:
        """`Certificates.run`."""
        wanted = serving(self.node, (self.node,), (self.address,))
        if self.self_signed:
            own = await asyncio.to_thread(self_signed, self.node, (), (self.address,))
            renewed(own)
        keeper = CertificateKeeper(
            self.client, self.store, wanted, renewed=renewed, announce=self.announce
        )
        await keeper.run()


async def cluster_cas(api: Api) -> bytes:
    """The CAs of client certificates that the cluster tells of, in PEM; empty where it tells none.
    Errors of the call."""
    found = (await api.get(CAS)).get("data") or {}
    return str(found.get("client-ca-file") or "").encode()


def cas_from(path: Path | None, api: Api) -> Callable[[], Awaitable[bytes]]:
    """Where the CAs are from: the file, or the cluster."""

    async def read() -> bytes:
        if path is None:
            return await cluster_cas(api)
        return await asyncio.to_thread(path.read_bytes)

    return read


class Serving:
    """The API of one node. `run` never ends by itself.

    `make` gives the API for a function that makes the TLS context of new connections.
    """

    def __init__(
        self,
        make: Callable[[Callable[[], ssl.SSLContext]], KubeletApi],
        certificates: Certificates,
        cas: Callable[[], Awaitable[bytes]],
        announce: Announce = lambda *_: None,
    ) -> None:
        self._api = make(self._context)
        self._certificates, self._cas, self._announce = certificates, cas, announce
        self._pair: Pair | None = None
        self._known_cas: bytes | None = None
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Opens the API once there is a certificate, and keeps both new."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._certificates.run(self._renewed), name="serving certificate")
            group.create_task(self._keep_cas(), name="client CAs")
            group.create_task(self._serve(), name="kubelet API")

    def _context(self) -> ssl.SSLContext:
        assert self._pair is not None
        return server_context(self._pair, self._known_cas or b"")

    def _renewed(self, pair: Pair) -> None:
        self._pair = pair
        self._news.set()

    async def _keep_cas(self) -> None:
        told, pause = "", FIRST_PAUSE
        while True:
            try:
                found = await self._cas()
                problem = "" if found else "the cluster tells of no CA of client certificates"
            except (Unauthorized, NotFound, OSError) as error:
                found, problem = self._known_cas or b"", str(error)
            except BridgeError as error:
                # It is away: what was known still holds.
                _log.warning("the CAs of client certificates: %s", error)
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
                continue
            pause = FIRST_PAUSE
            if found != self._known_cas:
                self._known_cas = found
                self._news.set()
            if problem and problem != told and not found:
                words = (
                    "logs and exec will not work: no client certificate can be verified, the API"
                    f" server's included ({problem}); set cluster.client_ca"
                )
                _log.warning("%s", words)
                self._announce("Warning", "ClientCAMissing", words)
            told = problem
            await asyncio.sleep(LOOK_AT_CAS)

    async def _serve(self) -> None:
        pause = FIRST_PAUSE
        while True:
            while self._pair is None or self._known_cas is None:
                self._news.clear()
                await self._news.wait()
            try:
                await self._api.start()
                break
            except BridgeError as error:
                _log.warning("the kubelet's API: %s", error)
                self._announce("Warning", "KubeletAPIFailed", str(error))
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
        try:
            while True:
                self._news.clear()
                await self._news.wait()
                try:
                    self._api.reload()
                except BridgeError as error:
                    _log.warning("the kubelet's API: %s; what it showed before stays", error)
        finally:
            await self._api.stop()


def configuration(spec: NodeSpec) -> dict[str, object]:
    """What /configz says of the node beside the API's own settings."""
    return {"providerID": spec.provider_id, "registerNode": True}
