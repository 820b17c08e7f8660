"""HTTP as registries need it: bounded answers, and redirects that take no credentials along."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from bridge.errors import Invalid, Unavailable

_REDIRECTS = 5
_CONNECTIONS = 8
"""To one registry at a time."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said in the end."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    challenges: tuple[str, ...]
    """Each WWW-Authenticate header."""
    body: bytes = field(repr=False)
    moved: bool
    """It is the answer of another server than the one that was asked."""


class Transport:
    """Calls to registries and to what they send us to.

    `insecure` are registries (host[:port], as in image names) that are spoken to over plain http;
    so are those on this host by the names `localhost`, `127.0.0.1` and `::1`. All others have to
    prove who they are to the usual authorities, or to those in SSL_CERT_FILE and SSL_CERT_DIR.
    Proxies are taken from HTTPS_PROXY, HTTP_PROXY and NO_PROXY. `timeout` is in seconds, for one
    answer.
    """

    def __init__(self, insecure: Collection[str] = (), timeout: float = 30.0) -> None:
        self._insecure = frozenset(insecure)
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()

    def url(self, endpoint: str, path: str) -> URL:
        """The address of that path at a registry. Invalid where there can be none."""
        try:
            url = URL(f"https://{endpoint}{path}")
        except ValueError:
            raise Invalid(f"{endpoint} is no address of a registry") from None
        plain = endpoint in self._insecure or _is_loopback(url)
        return URL(f"http://{endpoint}{path}") if plain else url

    async def fetch(
        self, method: str, url: URL, headers: Mapping[str, str], *, limit: int, image: str
    ) -> Answer:
        """The answer, at most `limit` bytes of it. Unavailable, which names the image and the
        server; an Authorization header reaches no other server than that of `url`."""
        sent, at = dict(headers), url
        for _ in range(_REDIRECTS + 1):
            moved = at.origin() != url.origin()
            if moved:
                sent.pop("Authorization", None)
            answer, location = await self._once(
                method, at, sent, limit=limit, image=image, moved=moved
            )
            if location is None:
                return answer
            at = _next(at, location, image)
        raise Unavailable(f"{image}: {_named(url)} sends us on more than {_REDIRECTS} times")

    async def _once(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        *,
        limit: int,
        image: str,
        moved: bool,
    ) -> tuple[Answer, str | None]:
        """An answer, and where it sends us."""
        try:
            async with self._opened().request(
                method, url, headers=headers, allow_redirects=False, proxy=_proxy(url)
            ) as response:
                location = None
                if response.status in (301, 302, 303, 307, 308):
                    location = response.headers.get("Location", "")
                wanted = location is None and method != "HEAD"
                body = await _read(response, limit) if wanted else b""
        except _TooLong:
            words = f"{image}: {_named(url)} answers with more than {limit} bytes"
            raise Unavailable(words) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Without the cause: its words and its trace have addresses with keys in them.
            raise Unavailable(f"{image}: {_named(url)}: {self._reason(error)}") from None
        challenges = tuple(response.headers.getall("WWW-Authenticate", ()))
        return Answer(response.status, response.headers, challenges, body, moved), location

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Made here, not by aiohttp when it is imported: the environment may come later.
                connector=aiohttp.TCPConnector(
                    ssl=ssl.create_default_context(), limit_per_host=_CONNECTIONS
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                # Digests are of what is sent, and a few bytes could become any number.
                auto_decompress=False,
                headers={"Accept-Encoding": "identity", "User-Agent": "podbridge"},
                timeout=aiohttp.ClientTimeout(total=self._timeout),
            )
        return self._session

    def _reason(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self._timeout:g} s"
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            why = getattr(error.certificate_error, "verify_message", "") or "it is not valid"
            return f"its certificate is not trusted: {why}"
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return "its name is not known"
        if isinstance(error, aiohttp.ClientSSLError):
            return "it does not speak TLS"
        if isinstance(error, aiohttp.ClientConnectorError):
            return f"no connection: {error.os_error.strerror or 'refused'}"
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return "it closed the connection"
        return f"no answer that can be read ({type(error).__name__})"


class _TooLong(Exception):
    """An answer beyond its limit."""


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    if (response.content_length or 0) > limit:
        raise _TooLong
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > limit:
            raise _TooLong
    return bytes(content)


def _next(at: URL, location: str, image: str) -> URL:
    """Where a redirect leads."""
    try:
        # As it was written: it may be signed.
        url = at.join(URL(location, encoded=True)).with_user(None).with_fragment(None)
        usable = bool(location and url.host) and url.scheme in ("https", at.scheme)
    except ValueError:
        usable = False
    if not usable:
        raise Unavailable(f"{image}: {_named(at)} sends us to an address that is not to be used")
    return url


def _named(url: URL) -> str:
    """The server, without the rest: addresses may hold keys."""
    host = f"[{url.host}]" if ":" in (url.host or "") else f"{url.host}"
    return host if url.is_default_port() else f"{host}:{url.port}"


def _is_loopback(url: URL) -> bool:
    return url.host in _LOOPBACK


def _proxy(url: URL) -> str | None:
    """The environment's proxy for that address, none for this host itself, as Go has it."""
    proxy = urllib.request.getproxies().get(url.scheme)
    if not proxy or _is_loopback(url) or urllib.request.proxy_bypass(_named(url)):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
