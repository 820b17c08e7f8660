"""A small client of an API server for tests and the bench: blocking, JSON, any kubeconfig.

It knows nothing of podbridge, so that what it sees does not depend on what is being tested.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

Object = dict[str, Any]
STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
IDLE = 60.0
"""Seconds after which a connection is not used again: an API server ends one that was idle for 90
(IdleTimeout in k8s.io/apiserver's secure_serving.go)."""
CALL = 60.0
"""Seconds that one call may take."""
LIMIT = 60.0
"""Seconds that anything may take to come true on a machine with much else to do."""


class ApiError(Exception):
    """The API server refused: the HTTP status, and its own words."""

    def __init__(self, code: int, said: Mapping[str, Any], call: str) -> None:
        self.code, self.said = code, said
        super().__init__(f"{call}: {code} {said.get('reason', '')}: {said.get('message', '')}")


@dataclass(frozen=True, slots=True)
class Access:
    """A kubeconfig's current context, read: where to, trusting whom, as whom."""

    server: str
    tls: ssl.SSLContext | None = field(repr=False)
    token: str = field(default="", repr=False)

    @classmethod
    def read(cls, path: Path) -> Access:
        """Of certificates and tokens, in the file or in files of their own; no plugins. OSError
        where it cannot be read or is no kubeconfig."""
        try:
            return cls._read(path)
        except (LookupError, TypeError, ValueError, StopIteration, yaml.YAMLError) as error:
            raise OSError(f"{path}: this is no kubeconfig ({type(error).__name__})") from None

    @classmethod
    def _read(cls, path: Path) -> Access:
        config: Any = yaml.safe_load(path.read_text("utf-8"))
        names = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], names["cluster"])["cluster"]
        user = _named(config["users"], names["user"])["user"]
        server: str = cluster["server"]
        tls = None
        if server.startswith("https:"):
            ca = _content(cluster, "certificate-authority", path)
            tls = ssl.create_default_context(cadata=ca.decode() if ca else None)
            if certificate := _content(user, "client-certificate", path):
                _load_pair(tls, certificate, _content(user, "client-key", path))
        token = user.get("token") or ""
        if not token and (file := user.get("tokenFile")):
            token = (path.parent / file).read_text().strip()
        return cls(server.rstrip("/"), tls, token)

    @property
    def headers(self) -> dict[str, str]:
        """What every call carries."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def _named(entries: Any, name: str) -> Any:
    return next(one for one in entries if one["name"] == name)


def _content(entry: Mapping[str, str], key: str, beside: Path) -> bytes:
    if data := entry.get(f"{key}-data"):
        return base64.b64decode(data)
    return (beside.parent / entry[key]).read_bytes() if entry.get(key) else b""


def _load_pair(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # `ssl` reads files only, and a key should lie in none.
    handle = os.memfd_create("client")
    try:
        with os.fdopen(os.dup(handle), "wb") as file:
            file.write(certificate.rstrip() + b"\n" + key)
        tls.load_cert_chain(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)


class Api:
    """Calls as one user. Usable from several threads: each has a connection of its own."""

    def __init__(self, access: Access | Path, *, agent: str = "podbridge-tests") -> None:
        self.access = access if isinstance(access, Access) else Access.read(access)
        self._headers = {"User-Agent": agent, "Accept": "application/json", **self.access.headers}
        self._url = urllib.parse.urlsplit(self.access.server)
        self._local = threading.local()

    def connect(self, timeout: float = CALL) -> http.client.HTTPConnection:
        """A new connection, which its caller closes."""
        host, port = self._url.hostname or "", self._url.port
        if self.access.tls is None:
            return http.client.HTTPConnection(host, port, timeout=timeout)
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=self.access.tls)

    def request(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        """One call over this thread's connection. OSError where nobody answers."""
        connection = getattr(self._local, "connection", None)
        if connection is not None and time.monotonic() - self._local.used > IDLE:
            self.close()
            connection = None
        if connection is None:
            connection = self._local.connection = self.connect()
        headers = {**self._headers, "Content-Type": kind} if body is not None else self._headers
        data = orjson.dumps(body) if body is not None else None
        try:
            connection.request(method, self._url.path + path, data, headers)
            answer = connection.getresponse()
            self._local.used = time.monotonic()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if isinstance(error, OSError):
                raise
            raise ConnectionError(f"{method} {path}: {error!r}") from error

    def close(self) -> None:
        """Closes this thread's connection; the next call makes another."""
        if (connection := getattr(self._local, "connection", None)) is not None:
            connection.close()
            self._local.connection = None

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """The object that is answered. ApiError, OSError."""
        code, data = self.request(method, path, body, kind)
        try:
            said = orjson.loads(data) if data else {}
        except ValueError:
            said = {"message": data[:500].decode(errors="replace")}
        if code >= 400:
            raise ApiError(code, said if isinstance(said, dict) else {}, f"{method} {path}")
        return said

    def get(self, path: str) -> Any:
        """One object, or a list."""
        return self.call("GET", path)

    def post(self, path: str, body: Object) -> Any:
        """A new object in the collection at this path."""
        return self.call("POST", path, body)

    def patch(self, path: str, body: Object, kind: str = STRATEGIC) -> Any:
        """Changes an object, by strategic merge unless another kind is given."""
        return self.call("PATCH", path, body, kind)

    def delete(self, path: str, *, grace: int | None = None) -> Any:
        """Deletes an object, or a whole collection."""
        options = {} if grace is None else {"gracePeriodSeconds": grace}
        return self.call("DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1", **options})

    def ensure(self, path: str, body: Object) -> None:
        """Makes an object unless it is there."""
        try:
            self.post(path, body)
        except ApiError as error:
            if error.code != 409:
                raise

    def watch(self, path: str, *, timeout: float = LIMIT, version: str = "") -> Iterator[Object]:
        """Events of a collection, `type` and `object`, until nothing comes for so many seconds
        (TimeoutError) or the server ends it. Without a version it begins with what there is."""
        query = urllib.parse.urlencode({"watch": "true", "resourceVersion": version})
        connection = self.connect(timeout)
        with contextlib.closing(connection):
            joint = "&" if "?" in path else "?"
            connection.request("GET", f"{self._url.path}{path}{joint}{query}", None, self._headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise ApiError(answer.status, orjson.loads(answer.read()), f"WATCH {path}")
            while line := answer.readline():
                yield orjson.loads(line)

    def until(
        self, path: str, true_of: Callable[[Object], object], *, limit: float = LIMIT
    ) -> Object:
        """The object, once this is true of it; {} stands for one that is not there.
        AssertionError, with what it was last, where it does not come true."""
        deadline = time.monotonic() + limit
        while True:
            try:
                found: Object = self.get(path)
            except ApiError as error:
                if error.code != 404:
                    raise
                found = {}
            if true_of(found):
                return found
            if time.monotonic() > deadline:
                last = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()[-4000:]
                raise AssertionError(f"{path} is not as it should be after {limit:.0f} s: {last}")
            time.sleep(0.05)
