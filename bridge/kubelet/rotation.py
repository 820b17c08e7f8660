"""Gets a certificate by a CertificateSigningRequest, and another one before it ends."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import random
import time
from collections.abc import Callable
from typing import Protocol

from bridge.errors import BridgeError, NotFound, Throttled, Unauthorized
from bridge.kubelet.certificates import Pair, Store, Wanted, pair_of, signing_request
from bridge.kubelet.client import Conflict, escaped
from bridge.pods import Manifest
from bridge.times import rfc3339

PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
ROTATE_FROM, ROTATE_TO = 0.7, 0.9
"""The parts of its life between which a certificate is replaced, as the kubelet has it."""
FIRST_LOOK, LONGEST_LOOK = 0.25, 15.0
"""Seconds between two looks at a request: doubling."""
TELL_AFTER = 5.0
"""Seconds before anybody is asked to approve: where a controller does it, nobody need be."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
"""Seconds before a request that failed is made anew: doubling."""
LONGEST_SLEEP = 600.0
"""Seconds: the time of day may be set while we wait for it."""

Announce = Callable[[str, str, str], None]
"""Tells people about the node: type (Normal, Warning), reason, message."""

_log = logging.getLogger(__name__)


class Api(Protocol):
    """What this needs of `ApiClient`."""

    async def get(self, path: str) -> Manifest:
        """One object."""

    async def post(self, path: str, body: Manifest) -> Manifest:
        """Creates one."""


async def obtain(
    api: Api,
    store: Store,
    wanted: Wanted,
    *,
    announce: Announce = lambda *_: None,
    clock: Callable[[], float] = time.time,
) -> Pair:
    """A new pair, which is in the store then. Waits for approval as long as it takes, and for an
    API server that is away.

    Unauthorized where the request is refused: by the API server, or by whoever may approve it; or
    where what was signed is not what was asked for.
    """
    request = signing_request(wanted, key := store.pending())
    name = request["metadata"]["name"]
    since, told, pause = asyncio.get_running_loop().time(), False, FIRST_LOOK
    while True:
        try:
            found = await _asked(api, request)
            if refusal := _refusal(found):
                # The same key would find the same answer for an hour.
                store.forget()
                raise Unauthorized(f"the certificate request {name} was {refusal}")
            if issued := (found.get("status") or {}).get("certificate"):
                pair = _signed(wanted, str(issued), key, name, clock())
                if isinstance(pair, str):
                    store.forget()
                    raise Unauthorized(
                        f"what was signed for the request {name} will not do: it {pair}"
                    )
                store.save(pair)
                return pair
        except Unauthorized:
            raise
        except BridgeError as error:
            _log.warning("the certificate request %s: %s", name, error)
            if isinstance(error, Throttled) and error.retry_after is not None:
                pause = max(pause, min(error.retry_after, 60.0))
        if not told and asyncio.get_running_loop().time() - since >= TELL_AFTER:
            told = True
            words = (
                f"The {wanted.kind} certificate of node {wanted.node} waits for approval:"
                f" kubectl certificate approve {name}"
            )
            _log.warning("%s", words)
            announce("Warning", "CertificateApprovalPending", words)
        await asyncio.sleep(pause)
        pause = min(LONGEST_LOOK, pause * 2)


async def _asked(api: Api, request: Manifest) -> Manifest:
    """The request as the API server has it: what is there, or what is made now."""
    path = f"{PATH}/{escaped(request['metadata']['name'])}"
    try:
        return await api.get(path)
    except NotFound:
        # Not made yet; or collected, as requests are after an hour or a day.
        try:
            return await api.post(PATH, request)
        except Conflict:
            return await api.get(path)


def _refusal(request: Manifest) -> str:
    for condition in (request.get("status") or {}).get("conditions") or ():
        if condition.get("type") in ("Denied", "Failed") and condition.get("status") != "False":
            words = condition.get("message") or condition.get("reason") or "no reason was given"
            return f"{str(condition['type']).lower()}: {words}"
    return ""


def _signed(wanted: Wanted, issued: str, key: bytes, name: str, now: float) -> Pair | str:
    """The pair; or why what was signed is not what was asked for."""
    try:
        certificate = base64.b64decode(issued, validate=True)
        pair = pair_of(certificate, key, f"the certificate of request {name}")
    except binascii.Error:
        return "is not base64"
    except BridgeError as error:
        return f"is of no use ({error})"
    if now >= pair.not_after:
        # Signed long ago, and fetched by nobody.
        return f"expired at {rfc3339(pair.not_after)}"
    return wanted.lacking(pair) or pair


class CertificateKeeper:
    """Keeps one pair valid. `run` never ends by itself, and never raises."""

    def __init__(
        self,
        api: Api,
        store: Store,
        wanted: Wanted,
        *,
        renewed: Callable[[Pair], None] = lambda _: None,
        announce: Announce = lambda *_: None,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`renewed` hears each pair that is valid from now on, the first included."""
        self.pair: Pair | None = None
        """What is valid now; None: there is nothing yet, or no longer."""
        self.problem = ""
        """Why there is no new one, where one is due; empty: none is."""
        self._api, self._store, self._wanted = api, store, wanted
        self._renewed, self._announce, self._clock = renewed, announce, clock
        self._jitter = jitter

    async def run(self) -> None:
        """Uses what the store has; gets what it lacks; replaces it in time."""
        self._use(self._stored())
        pause = FIRST_PAUSE
        while True:
            if self.pair is not None:
                await self._until(rotation(self.pair, self._jitter()))
            try:
                self._use(await self._obtain())
                self.problem, pause = "", FIRST_PAUSE
            except BridgeError as error:
                self.problem = str(error)
                _log.warning("the %s certificate: %s", self._wanted.kind, error)
                self._announce("Warning", "CertificateRequestFailed", str(error))
                await asyncio.sleep(pause * (0.5 + self._jitter()))
                pause = min(LONGEST_PAUSE, pause * 2)

    async def _obtain(self) -> Pair:
        """A new pair. What is in use stays in use meanwhile, until it is over."""
        getting = asyncio.ensure_future(
            obtain(
                self._api,
                self._store,
                self._wanted,
                announce=self._announce,
                clock=self._clock,
            )
        )
        try:
            while self.pair is not None and not getting.done():
                left = self.pair.not_after - self._clock()
                if left <= 0:
                    self.pair, self.problem = None, "the certificate has expired"
                    break
                await asyncio.wait({getting}, timeout=min(left, LONGEST_SLEEP))
            return await getting
        finally:
            getting.cancel()

    def _stored(self) -> Pair | None:
        try:
            pair = self._store.load()
        except BridgeError as error:
            _log.warning("%s; another one is asked for", error)
            return None
        if pair is None or self._wanted.lacking(pair) or self._clock() >= pair.not_after:
            return None
        return pair

    def _use(self, pair: Pair | None) -> None:
        if pair is not None:
            self.pair = pair
            self._renewed(pair)

    async def _until(self, moment: float) -> None:
        while (left := moment - self._clock()) > 0:  # noqa: ASYNC110 - the time of day may be set
            await asyncio.sleep(min(left, LONGEST_SLEEP))


def rotation(pair: Pair, jitter: float) -> float:
    """When a pair is to be replaced, in seconds since the epoch. `jitter` from 0 to 1: many nodes
    that were made together must not all ask together."""
    life = pair.not_after - pair.not_before
    return pair.not_before + life * (ROTATE_FROM + (ROTATE_TO - ROTATE_FROM) * jitter)
