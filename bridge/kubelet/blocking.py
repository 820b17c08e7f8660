"""Blocking calls to an API server, for threads that must not depend on an event loop."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import socket
import ssl
import urllib.parse
from typing import Any

import orjson

from bridge.errors import Unauthorized, Unavailable
from bridge.kubelet.client import error_of
from bridge.kubelet.credentials import Credentials
from bridge.kubelet.lock import Call
from bridge.pods import Manifest

LARGEST = 1 << 20
"""Bytes of an answer. A Lease has some hundred, a Node some thousand."""


class Wire:
    """Blocking calls to an API server over one connection that stays open. Raises
    `bridge.errors`. For one thread; `abort` may come from another."""

    def __init__(self, credentials: Credentials, timeout: float) -> None:
        self._credentials, self._timeout = credentials, timeout
        self._connection: http.client.HTTPConnection | None = None
        self._tls: ssl.SSLContext | None = None
        self._aborted = False

    def close(self) -> None:
        """Closes the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def abort(self) -> None:
        """Has a call that hangs end at once, and every later one."""
        self._aborted = True
        connection = self._connection
        peer: socket.socket | None = getattr(connection, "sock", None)
        if peer is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(peer, socket.SHUT_RDWR)

    def call(self, call: Call, runner: asyncio.Runner) -> Manifest:
        """The object that was answered. `runner` serves the credentials' coroutines. Raises as
        `ApiClient` does."""
        renew = False
        while True:
            authorization = runner.run(self._authorization(renew))
            code, content, retry_after = self._exchange(call, authorization)
            if 200 <= code < 300:
                answer = _object(content)
                if answer is None:
                    raise Unavailable("the API server answered, but not with an object")
                return answer
            if code == 401 and self._credentials.renewable and not renew:
                renew = True
                continue
            raise error_of(code, _object(content) or {}, retry_after)

    async def _authorization(self, renew: bool) -> str:
        return await self._credentials.authorization(renew)

    def _exchange(self, call: Call, authorization: str) -> tuple[int, bytes, str | None]:
        headers = {"Accept": "application/json", "User-Agent": "podbridge"}
        if authorization:
            headers["Authorization"] = authorization
        data = None
        if call.body is not None:
            data = orjson.dumps(call.body)
            headers["Content-Type"] = "application/json"
        path = urllib.parse.urlsplit(self._credentials.server).path.rstrip("/") + call.path
        while True:
            connection, used = self._connected()
            try:
                connection.request(call.method, path, data, headers)
                response = connection.getresponse()
                content = response.read(LARGEST + 1)
                if len(content) > LARGEST or response.will_close:
                    self.close()
                return response.status, content, response.headers.get("Retry-After")
            except ssl.SSLCertVerificationError as error:
                self.close()
                raise Unauthorized(
                    f"the API server's certificate is not to be trusted: {error}"
                ) from None
            except TimeoutError:
                self.close()
                raise Unavailable("the API server does not answer in time") from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                # A ValueError is a socket that `abort` took away.
                self.close()
                if not used or self._aborted:
                    raise Unavailable(
                        f"the API server does not answer: {error or type(error).__name__}"
                    ) from None
                # Kept open for too long, it seems. Every write of ours may be made twice: it is
                # decided on a version.

    def _connected(self) -> tuple[http.client.HTTPConnection, bool]:
        """A connection, and whether it was used before."""
        tls = self._credentials.tls()
        if self._connection is not None and tls is self._tls:
            return self._connection, True
        # A certificate was replaced: the API server looks at the old one's end with every call.
        self.close()
        self._tls, self._connection = tls, _connection(self._credentials, tls, self._timeout)
        return self._connection, False


def _object(content: bytes) -> Manifest | None:
    try:
        answer: Any = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) else None


class _Connection(http.client.HTTPConnection):
    """HTTPS whose certificate may be for another name than the address."""

    def __init__(
        self, host: str, port: int, *, timeout: float, tls: ssl.SSLContext | None, name: str
    ) -> None:
        super().__init__(host, port, timeout=timeout)
        self._tls, self._name = tls, name

    def connect(self) -> None:
        super().connect()
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)


def _connection(
    credentials: Credentials, tls: ssl.SSLContext | None, timeout: float
) -> http.client.HTTPConnection:
    server = urllib.parse.urlsplit(credentials.server)
    host = server.hostname or ""
    port = server.port or (443 if server.scheme == "https" else 80)
    name = credentials.server_name or host
    if credentials.proxy is None:
        return _Connection(host, port, timeout=timeout, tls=tls, name=name)
    proxy = urllib.parse.urlsplit(credentials.proxy)
    made = _Connection(proxy.hostname or "", proxy.port or 80, timeout=timeout, tls=tls, name=name)
    headers = {}
    if proxy.username is not None:
        user = (
            f"{urllib.parse.unquote(proxy.username)}:{urllib.parse.unquote(proxy.password or '')}"
        )
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
    made.set_tunnel(host, port, headers)
    return made
