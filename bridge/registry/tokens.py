"""How a registry is told who asks: basic authentication and bearer tokens.

The tokens are those of the distribution project's specification (docs/content/spec/auth/token.md):
the registry names a server that gives them, for one repository, to a login or to anybody.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from yarl import URL

from bridge.errors import Throttled, Unauthorized, Unavailable
from bridge.registry.challenge import Challenge, challenges
from bridge.registry.limits import retry_after
from bridge.registry.reference import Reference
from bridge.registry.transport import Answer, Transport
from bridge.workload import PullCredential

_LIMIT = 1024 * 1024
"""Bytes of a token server's answer."""
_LIFETIME = 60.0
"""Seconds that a token holds that says nothing of it (token.md, `expires_in`)."""
_MARGIN = 0.1
"""The part of its life in which a token is not used any more: a call takes time."""
_KEPT = 4096

_Key = tuple[str, str, PullCredential | None]


@dataclass(frozen=True, slots=True)
class _Proof:
    header: str = field(repr=False)
    until: float | None = None
    """By the clock; None: it does not end."""


class Tokens:
    """What to send as Authorization, for each repository and login."""

    def __init__(self, transport: Transport, clock: Callable[[], float]) -> None:
        self._transport = transport
        self._clock = clock
        self._proofs: OrderedDict[_Key, _Proof] = OrderedDict()

    def known(self, reference: Reference, login: PullCredential | None) -> str:
        """What holds already; empty: nothing."""
        key = (reference.registry, reference.path, login)
        proof = self._proofs.get(key)
        if proof is None or (proof.until is not None and self._clock() >= proof.until):
            self._proofs.pop(key, None)
            return ""
        return proof.header

    async def fresh(
        self, reference: Reference, login: PullCredential | None, refusal: Answer, secure: bool
    ) -> str:
        """What the refusal asks for, with that login. Unauthorized, Throttled, Unavailable.

        `secure`: the registry was asked over https, and nothing goes over plain http then.
        """
        key = (reference.registry, reference.path, login)
        self._proofs.pop(key, None)
        offered = {one.scheme: one for one in reversed(challenges(refusal.challenges))}
        if bearer := offered.get("bearer"):
            proof = await self._token(reference, login, bearer, secure)
        elif "basic" not in offered:
            words = f"{reference}: {reference.registry} asks for a kind of login that is not known"
            raise Unauthorized(words)
        elif login is None:
            raise Unauthorized(needs_login(reference))
        else:
            proof = _Proof(_basic(login))
        self._proofs[key] = proof
        while len(self._proofs) > _KEPT:
            self._proofs.popitem(last=False)
        return proof.header

    async def _token(
        self, reference: Reference, login: PullCredential | None, bearer: Challenge, secure: bool
    ) -> _Proof:
        url = _token_url(reference, bearer, secure)
        headers = {} if login is None else {"Authorization": _basic(login)}
        asked = self._clock()
        answer = await self._transport.fetch(
            "GET", url, headers, limit=_LIMIT, image=str(reference)
        )
        if answer.status in (401, 403):
            raise Unauthorized(needs_login(reference) if login is None else refused(reference))
        if answer.status == 429:
            words = f"{reference}: {url.host} gives no more tokens now"
            raise Throttled(words, retry_after=retry_after(answer.headers))
        said = _object(answer.body) if answer.status == 200 else {}
        token = said.get("token") or said.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            words = f"{reference}: {url.host} gives no token (its answer is {answer.status})"
            raise Unavailable(words)
        lifetime = said.get("expires_in")
        if not isinstance(lifetime, int | float) or lifetime <= 0:
            lifetime = _LIFETIME
        return _Proof(f"Bearer {token}", asked + lifetime * (1 - _MARGIN))


def needs_login(reference: Reference) -> str:
    """What is said where nobody asked as somebody."""
    return (
        f"{reference}: {reference.registry} shows it to no one without a login, and no pull secret"
        " of the pod is for it; or it does not exist"
    )


def refused(reference: Reference) -> str:
    """What is said where a login was of no use."""
    return f"{reference}: {reference.registry} refuses the pod's login for it; or it does not exist"


def _token_url(reference: Reference, bearer: Challenge, secure: bool) -> URL:
    given = bearer.parameters
    try:
        url = URL(given.get("realm", "")).with_user(None)
        usable = bool(url.host) and url.scheme in (("https",) if secure else ("https", "http"))
    except ValueError:
        usable = False
    if not usable:
        words = f"{reference}: {reference.registry} names no place for tokens that is to be used"
        raise Unavailable(words)
    scope = given.get("scope") or f"repository:{reference.path}:pull"
    query = [("service", given["service"])] if given.get("service") else []
    return url.extend_query([*query, *(("scope", one) for one in scope.split(" ") if one)])


def _basic(login: PullCredential) -> str:
    both = f"{login.username}:{login.password}".encode()
    return f"Basic {base64.b64encode(both).decode('ascii')}"


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}
