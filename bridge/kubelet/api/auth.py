"""Who calls the HTTPS API, and whether they may.

A client certificate that TLS has verified, or a bearer token that the API server reviews, says
who; a SubjectAccessReview on a subresource of this node says whether. Nobody is anonymous. Where a
review cannot be made the answer is no: 503, so that the client knows to come again.

How long answers hold is the kubelet's: tokens 2 minutes, refusals 30 seconds. What was allowed
holds for 2 minutes here, not 5: a permission that was taken away is gone sooner.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import logging
import secrets
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import hdrs, web

from bridge.errors import BridgeError
from bridge.kubelet.api.lookups import Lookups
from bridge.pods import Manifest

TOKEN_SECONDS = 120.0
ALLOWED_SECONDS = 120.0
DENIED_SECONDS = 30.0
VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
"""The kubelet's verb for each method (pkg/kubelet/server/auth.go). A WebSocket exec is a GET."""
AUTHENTICATED = "system:authenticated"
_ANONYMOUS = ("system:anonymous", "system:unauthenticated")
_TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody, as the API server knows them."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = field(default=(), repr=False)


class Reviews(Protocol):
    """What only the API server can tell. Every call raises only `bridge.errors`."""

    async def token(self, token: str) -> User | None:
        """Whose token it is; None: nobody's."""

    async def access(self, user: User, verb: str, subresource: str) -> tuple[bool, str]:
        """Whether they may do that to `nodes/<subresource>` of this node, and why."""


class Api(Protocol):
    """What `ApiReviews` needs of `ApiClient`."""

    async def post(self, path: str, body: Manifest) -> Manifest:
        """Creates an object."""


class ApiReviews:
    """`Reviews` by TokenReview and SubjectAccessReview, about one node."""

    def __init__(self, api: Api, node: str) -> None:
        self._api = api
        self._node = node

    async def token(self, token: str) -> User | None:
        """`Reviews.token`."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token},
        }
        status = (await self._api.post(_TOKEN_REVIEWS, body)).get("status") or {}
        user = status.get("user") or {}
        if status.get("authenticated") is not True or not user.get("username"):
            return None
        extra = user.get("extra") or {}
        return User(
            name=str(user["username"]),
            groups=tuple(map(str, user.get("groups") or ())),
            uid=str(user.get("uid") or ""),
            extra=tuple((str(key), tuple(map(str, values))) for key, values in extra.items()),
        )

    async def access(self, user: User, verb: str, subresource: str) -> tuple[bool, str]:
        """`Reviews.access`."""
        spec: dict[str, Any] = {
            "user": user.name,
            "groups": list(user.groups),
            "resourceAttributes": {
                "verb": verb,
                "version": "v1",
                "resource": "nodes",
                "subresource": subresource,
                "name": self._node,
            },
        }
        if user.uid:
            spec["uid"] = user.uid
        if user.extra:
            spec["extra"] = {key: list(values) for key, values in user.extra}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": spec,
        }
        status = (await self._api.post(_ACCESS_REVIEWS, body)).get("status") or {}
        allowed = status.get("allowed") is True and not status.get("denied")
        return allowed, str(status.get("reason") or "")


class Gatekeeper:
    """Lets requests in, or not. Remembers what the reviews said."""

    def __init__(
        self,
        reviews: Reviews,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reviews = reviews
        self._clock = clock
        self._tokens: Lookups[User | None] = Lookups(lambda _: TOKEN_SECONDS, clock=monotonic)
        self._access: Lookups[tuple[bool, str]] = Lookups(
            lambda answer: ALLOWED_SECONDS if answer[0] else DENIED_SECONDS, clock=monotonic
        )
        # Tokens are remembered by what nobody can turn back into them.
        self._secret = secrets.token_bytes(32)

    async def close(self) -> None:
        """Gives up the reviews that are on their way."""
        await self._tokens.close()
        await self._access.close()

    async def authenticate(self, request: web.Request, context: ssl.SSLContext) -> User:
        """Who it is. `context` is what TLS verifies by now: a certificate that was verified by
        another one says nothing any more. HTTPUnauthorized, HTTPServiceUnavailable."""
        user = self._of_certificate(request, context)
        if user is None and (token := _bearer(request)):
            user = await self._of_token(token)
        if user is None or user.name in _ANONYMOUS or _ANONYMOUS[1] in user.groups:
            raise web.HTTPUnauthorized(text="Unauthorized")
        if AUTHENTICATED in user.groups:
            return user
        return User(user.name, (*user.groups, AUTHENTICATED), user.uid, user.extra)

    async def authorize(self, user: User, method: str, subresources: Sequence[str]) -> None:
        """Returns where they may do that to one of these; asked in order, the narrowest first.
        HTTPForbidden, HTTPServiceUnavailable."""
        verb = VERBS.get(method, "")
        for subresource in subresources if verb else ():
            try:
                allowed, _ = await self._access.get(
                    (user, verb, subresource),
                    functools.partial(self._reviews.access, user, verb, subresource),
                )
            except BridgeError as error:
                _log.warning("whether a client may use the kubelet's API is unknown: %s", error)
                raise web.HTTPServiceUnavailable(
                    text=f"Authorization error (user={user.name}, verb={verb}, resource=nodes,"
                    f" subresource={subresource})"
                ) from None
            if allowed:
                return
        raise web.HTTPForbidden(
            text=f"Forbidden (user={user.name}, verb={verb}, resource=nodes,"
            f" subresource(s)=[{' '.join(subresources)}])\n"
        )

    def _of_certificate(self, request: web.Request, context: ssl.SSLContext) -> User | None:
        transport = request.transport
        if transport is None:
            return None
        shown = transport.get_extra_info("ssl_object")
        if shown is None or shown.context is not context:
            return None
        certificate: Mapping[str, Any] | None = transport.get_extra_info("peercert")
        # It was valid at the handshake; the connection may be older than its end.
        if not certificate or ssl.cert_time_to_seconds(certificate["notAfter"]) <= self._clock():
            return None
        return certificate_user(certificate)

    async def _of_token(self, token: str) -> User | None:
        key = hmac.digest(self._secret, token.encode("utf-8", "surrogateescape"), hashlib.sha256)
        try:
            return await self._tokens.get(key, functools.partial(self._reviews.token, token))
        except BridgeError as error:
            _log.warning("who uses the kubelet's API is unknown: TokenReview: %s", error)
            raise web.HTTPServiceUnavailable(
                text="Authentication error: the token could not be reviewed"
            ) from None


def certificate_user(certificate: Mapping[str, Any]) -> User | None:
    """Whose certificate it is (`ssl.SSLSocket.getpeercert`): the common name, in the organizations
    as groups (apiserver, CommonNameUserConversion). None: it names nobody."""
    name, groups = "", []
    for relative in certificate.get("subject") or ():
        for key, value in relative:
            if key == "commonName":
                name = value
            elif key == "organizationName":
                groups.append(value)
    return User(name, tuple(groups)) if name else None


def _bearer(request: web.Request) -> str:
    """The token that a request brings; empty: none."""
    scheme, _, rest = request.headers.get(hdrs.AUTHORIZATION, "").strip().partition(" ")
    token = rest.partition(" ")[0]
    return token if scheme.lower() == "bearer" else ""
