"""Talks to an API server: raw JSON, one pool of connections, errors of `bridge.errors`.

Objects are plain dictionaries: typed models cost milliseconds a pod. There is no rate limit here:
the API server's own fairness answers 429, and that is an error with the seconds to wait. What is
sent and what comes back is never logged.

Watches have a session of their own: each holds one connection for its whole life, and none of those
may be missing for a status.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import aiohttp
import orjson
from yarl import URL

from bridge.errors import (
    Ambiguous,
    BridgeError,
    Invalid,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
    Unsupported,
    Violation,
)
from bridge.kubelet.credentials import Credentials
from bridge.pods import Manifest

JSON = "application/json"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
METADATA_LIST = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""An Accept header: a list of which nothing but the metadata is wanted."""

PAGE = 500
"""Objects of one list at a time, as client-go asks for them."""
TIMEOUT = 30.0
"""Seconds for one call: below the 60 s after which the API server itself gives up."""
CONNECT = 10.0
"""Seconds until somebody must have answered at the address."""
CONNECTIONS = 32
"""Calls at once. Each connection has a buffer of 256 KiB for TLS, and costs a handshake; where an
answer takes 30 ms these make 1,000 calls a second, which are 170 pods."""
LONGEST_LINE = 32 * 1024 * 1024
"""Bytes of one event of a watch. An object is at most 1.5 MiB in etcd; more is no event."""


class Forbidden(Unauthorized):
    """Known, but not allowed to (403). A node may be told so for a moment: its permissions follow
    from its pods, and the authoriser hears of those as everybody else does."""


class Conflict(Ambiguous):
    """The object is not as the caller thought (409): look at it again."""


class AlreadyExists(Conflict):
    """There is an object of that name (409)."""


class Gone(BridgeError):
    """So far back nothing is known any more (410): list anew."""

    kind = "Gone"


class Call(NamedTuple):
    """What a call is counted by: `patch`, `pods/status`, 200. Code 0: nobody answered."""

    verb: str
    resource: str
    code: int


class ApiClient:
    """Calls one API server. Use as a context manager, or call `close`.

    Every call raises only `bridge.errors`: what the API server answered (`error_of`); Unavailable
    where nobody answers, or not as an API server does; Unauthorized where its certificate is not to
    be trusted, or there is nothing to show to it.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        user_agent: str = "podbridge",
        connections: int = CONNECTIONS,
        timeout: float = TIMEOUT,
    ) -> None:
        self.credentials = credentials
        self.calls: Counter[Call] = Counter()
        """How many calls have been made; the number of keys is bounded by the resources in use."""
        self._base = credentials.server.rstrip("/")
        self._user_agent = user_agent
        self._connections = connections
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT)
        self._session: aiohttp.ClientSession | None = None
        self._streams: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> ApiClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes every connection."""
        for session in (self._session, self._streams):
            if session is not None:
                await session.close()
        self._session = self._streams = None

    async def get(
        self, path: str, params: Mapping[str, str] | None = None, *, accept: str = JSON
    ) -> Manifest:
        """One object, or one page of a list. NotFound: there is none."""
        return await self._call("GET", path, params, accept=accept)

    async def list(
        self, path: str, params: Mapping[str, str] | None = None
    ) -> tuple[list[Manifest], str]:
        """All objects (each with apiVersion and kind), page by page, and the list's
        resourceVersion. Gone where the list was too slow to be one."""
        query = {**(params or {}), "limit": str(PAGE)}
        items: list[Manifest] = []
        while True:
            page = await self._call("GET", path, query, encoding="gzip")
            kind = {
                "apiVersion": page.get("apiVersion", "v1"),
                "kind": str(page.get("kind", "")).removesuffix("List"),
            }
            # A list's items do not say what they are; everything else that we get does.
            items += [{**kind, **item} for item in page.get("items") or ()]
            metadata = page.get("metadata") or {}
            if not (more := metadata.get("continue")):
                return items, metadata.get("resourceVersion", "")
            query["continue"] = more
            query.pop("resourceVersion", None)

    async def post(self, path: str, body: Manifest) -> Manifest:
        """Creates an object. AlreadyExists: there is one of that name."""
        return await self._call("POST", path, body=body)

    async def put(self, path: str, body: Manifest) -> Manifest:
        """Replaces an object. Conflict: it is not as it was when `body` was read."""
        return await self._call("PUT", path, body=body)

    async def patch(
        self, path: str, body: Manifest, *, content_type: str = STRATEGIC_MERGE
    ) -> Manifest:
        """Changes an object; the whole of it as it is then. NotFound; Conflict where `body` names
        another UID or version."""
        return await self._call("PATCH", path, body=body, content_type=content_type)

    async def delete(self, path: str, body: Manifest | None = None) -> Manifest:
        """Deletes an object; `body` are the DeleteOptions. The object, or a Status. NotFound;
        Conflict where the preconditions are not met."""
        return await self._call("DELETE", path, body=body)

    async def lines(
        self,
        path: str,
        params: Mapping[str, str],
        *,
        silence: float,
        opened: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[bytes, None]:
        """The lines of a watch until the API server ends it; `opened` is called once it begins.
        Unavailable where the connection breaks, or nothing comes for `silence` seconds. Close the
        generator when done."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=silence)
        try:
            async with await self._send(
                self._stream_session(), "GET", path, params, timeout=timeout
            ) as response:
                _watch_over(response)
                opened()
                async for line in _split(response.content):
                    yield line
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unanswered(error) from None

    async def _call(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        body: Manifest | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        encoding: str = "identity",
    ) -> Manifest:
        headers = {"Accept": accept, "Accept-Encoding": encoding}
        data = None
        if body is not None:
            data = orjson.dumps(body)
            headers["Content-Type"] = content_type
        try:
            async with await self._send(
                self._call_session(), method, path, params, headers=headers, data=data
            ) as response:
                answer = orjson.loads(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unanswered(error) from None
        except orjson.JSONDecodeError:
            raise Unavailable(f"{self._base} answered, but not as an API server does") from None
        if not isinstance(answer, dict):
            raise Unavailable(f"{self._base} answered, but not with an object")
        return answer

    async def _send(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        *,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> aiohttp.ClientResponse:
        """A response that is a success; its body is still to be read."""
        url = URL(f"{self._base}{path}{f'?{urlencode(params)}' if params else ''}", encoded=True)
        credentials = self.credentials
        renew = False
        while True:
            sent = dict(headers or {})
            if authorization := await credentials.authorization(renew):
                sent["Authorization"] = authorization
            try:
                response = await session.request(
                    method,
                    url,
                    headers=sent,
                    ssl=credentials.tls() or True,
                    server_hostname=credentials.server_name,
                    proxy=credentials.proxy,
                    allow_redirects=False,
                    **options,
                )
            except (aiohttp.ClientError, OSError, TimeoutError):
                self.calls[Call(*_named(method, path, params), 0)] += 1
                raise
            self.calls[Call(*_named(method, path, params), response.status)] += 1
            if 200 <= response.status < 300:
                return response
            error = await _refusal(response)
            if response.status == 401 and credentials.renewable and not renew:
                # A token may have been revoked before its time.
                renew = True
                continue
            raise error

    def _call_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = self._made(
                limit=self._connections, keepalive_timeout=60.0, timeout=self._timeout
            )
        return self._session

    def _stream_session(self) -> aiohttp.ClientSession:
        if self._streams is None:
            self._streams = self._made(limit=0, force_close=True)
        return self._streams

    def _made(
        self, *, timeout: aiohttp.ClientTimeout | None = None, **options: Any
    ) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(**options),
            headers={"User-Agent": self._user_agent, "Accept": JSON},
            timeout=timeout or aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
        )


def escaped(segment: str) -> str:
    """A name as one segment of a path."""
    return quote(segment, safe="")


def _named(method: str, path: str, params: Mapping[str, str] | None) -> tuple[str, str]:
    """Kubernetes' verb and resource: ("patch", "pods/status")."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:] if parts[0] == "apis" else []
    if not rest:
        return method.lower(), f"/{parts[0]}"
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    resource = "/".join([rest[0], *rest[2:3]])
    if method == "GET" and len(rest) == 1:
        return ("watch" if params and "watch" in params else "list"), resource
    verb = {"GET": "get", "POST": "create", "PUT": "update"}.get(method, method.lower())
    return verb, resource


_ERRORS: dict[int, type[BridgeError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: Unsupported,
    406: Unsupported,
    409: Conflict,
    410: Gone,
    413: Invalid,
    415: Unsupported,
    422: Invalid,
}
"""By code. 429 is Throttled; every other one is Unavailable: nothing is known to be wrong."""


def error_of(code: int, status: Manifest, retry_after: str | None = None) -> BridgeError:
    """The error of an answer: `status` is the v1.Status that it came with, or empty."""
    message = str(status.get("message") or f"the API server answered {code}")
    details = status.get("details") or {}
    if code == 429:
        return Throttled(message, retry_after=_seconds(retry_after, details))
    if code == 409 and status.get("reason") == "AlreadyExists":
        return AlreadyExists(message)
    kind = _ERRORS.get(code, Unavailable)
    if kind is Invalid:
        causes = [
            Violation(str(one.get("field", "")), str(one.get("message", "")))
            for one in details.get("causes") or ()
        ]
        return Invalid(message, violations=causes)
    return kind(message)


def _seconds(header: str | None, details: Manifest) -> float | None:
    for value in (header, details.get("retryAfterSeconds")):
        with contextlib.suppress(TypeError, ValueError):
            if value is not None:
                return max(0.0, float(value))
    return None


async def _refusal(response: aiohttp.ClientResponse) -> BridgeError:
    async with response:
        body = await response.read()
    status: Any = None
    with contextlib.suppress(orjson.JSONDecodeError):
        status = orjson.loads(body)
    return error_of(
        response.status,
        status if isinstance(status, dict) else {},
        response.headers.get("Retry-After"),
    )


def _unanswered(error: BaseException) -> BridgeError:
    """What a connection's failure means. None of these hold what was sent."""
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError)):
        return Unauthorized(f"the API server's certificate is not to be trusted: {error}")
    if isinstance(error, TimeoutError):
        return Unavailable("the API server does not answer in time")
    return Unavailable(f"the API server does not answer: {error or type(error).__name__}")


def _watch_over(response: aiohttp.ClientResponse) -> None:
    """Has the kernel find out within half a minute that the other side is no longer there."""
    transport = response.connection.transport if response.connection else None
    peer = transport.get_extra_info("socket") if transport else None
    if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if (number := getattr(socket, option, None)) is not None:
            peer.setsockopt(socket.IPPROTO_TCP, number, value)


async def _split(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """Whole lines. What comes after the last line end is half an event, and no use."""
    rest: list[bytes] = []
    size = 0
    async for chunk in content.iter_any():
        *whole, tail = chunk.split(b"\n")
        for line in whole:
            if rest:
                rest.append(line)
                yield b"".join(rest)
                rest, size = [], 0
            elif line:
                yield line
        if tail:
            rest.append(tail)
            size += len(tail)
            if size > LONGEST_LINE:
                raise Unavailable(f"the API server sent a line of more than {LONGEST_LINE} bytes")
