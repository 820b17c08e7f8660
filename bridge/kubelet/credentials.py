"""Where the API server is, and who we are to it: a kubeconfig, or what a pod is given.

The `kubernetes` package merges the files of a kubeconfig, runs exec plugins and refreshes tokens of
auth providers; it is slow to import, and this is the only place that does. All else is read here,
because what is wrong must be told with its file and field, and no key may lie about in a temporary
file.

What comes out is neutral: nobody else knows how it was come by. Files that are replaced while we
run (a service account's token, a rotated certificate) are read again.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import importlib
import ipaddress
import os
import ssl
import threading
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from bridge.addresses import is_local
from bridge.config import nearest
from bridge.errors import Invalid, Unauthorized, Unavailable, Violation
from bridge.times import parse_rfc3339

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token and the cluster's CA."""
REREAD = 60.0
"""Seconds that a token from a file is used before it is read again, as client-go has it."""
LOOK = 5.0
"""Seconds between two looks at whether a certificate's file was replaced."""
EARLY = 60.0
"""Seconds before its end at which a plugin's credential is asked for anew."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """An API server and what proves who we are. Safe to use from several threads."""

    server: str
    """`https://host:port`, perhaps with a path below which the API is."""
    tls: Callable[[], ssl.SSLContext | None] = field(repr=False)
    """The context for a new connection, made anew when a file of it was replaced; None for plain
    HTTP. Ask after `authorization`: a plugin may hand out a certificate with its token."""
    authorization: Callable[[bool], Awaitable[str]] = field(repr=False)
    """The Authorization header for a call; empty: none. True: the last one was refused, get a new
    one. Unauthorized or Unavailable where none can be had."""
    server_name: str | None = None
    """The name that the server's certificate must carry, where it is not the address."""
    proxy: str | None = None
    """The HTTP proxy on the way."""
    renewable: bool = False
    """Whether a refused credential is worth asking for a new one."""
    source: str = ""
    """Where this comes from, for people: "~/.kube/config, context x"."""


def load(
    path: Path | None = None,
    context: str | None = None,
    *,
    env: Mapping[str, str] = os.environ,
    account: Path = SERVICE_ACCOUNT,
) -> Credentials:
    """From the kubeconfig at `path`; without one from KUBECONFIG, the pod that we are in, or
    ~/.kube/config, the first that there is. `context`: another than the current one.

    Invalid, with file and field, for everything that is wrong and can be seen without a call.
    """
    if path is not None:
        return from_kubeconfig([path], context, env=env)
    if named := [Path(one) for one in env.get("KUBECONFIG", "").split(os.pathsep) if one]:
        return from_kubeconfig(named, context, env=env)
    if context is None and env.get("KUBERNETES_SERVICE_HOST") and (account / "token").exists():
        return in_cluster(env, account)
    usual = Path(env.get("HOME", "~")).expanduser() / ".kube" / "config"
    if not usual.exists():
        raise _wrong(
            str(usual), "", "there is no such file; allowed: a kubeconfig here, or in KUBECONFIG"
        )
    return from_kubeconfig([usual], context, env=env)


def in_cluster(env: Mapping[str, str] = os.environ, account: Path = SERVICE_ACCOUNT) -> Credentials:
    """As the service account of the pod that we are in. Invalid where we are in none."""
    host, port = env.get("KUBERNETES_SERVICE_HOST", ""), env.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise _wrong("KUBERNETES_SERVICE_HOST", "", "this variable is not set: this is no pod")
    token = _File(account / "token", str(account / "token"), "")
    token.read()
    tls = _Tls(ca=_File(account / "ca.crt", str(account / "ca.crt"), ""))
    tls.context()
    return Credentials(
        f"https://{f'[{host}]' if ':' in host else host}:{port}",
        tls.context,
        _FileToken(token).get,
        renewable=True,
        source=f"the service account at {account}",
    )


def from_kubeconfig(
    paths: list[Path], context: str | None = None, *, env: Mapping[str, str] = os.environ
) -> Credentials:
    """From kubeconfig files, merged as kubectl merges them: the first that names a thing wins.
    Invalid, with file and field."""
    config = _Kubeconfig.read(paths)
    chosen = config.context(context)
    cluster = config.entry("clusters", "cluster", *chosen.reference("cluster"))
    user = config.entry("users", "user", *chosen.reference("user"), needed=False)
    server = cluster.text("server")
    parsed = urllib.parse.urlsplit(server)
    if parsed.scheme not in ("https", "http") or not parsed.hostname:
        raise cluster.wrong("server", "allowed: https://host:port")
    who = _User.of(user, cluster)
    secure = parsed.scheme == "https"
    tls = _Tls(
        ca=cluster.content("certificate-authority"),
        certificate=who.certificate,
        key=who.key,
        issued=who.plugin.certificate if who.plugin else None,
        verify=not cluster.flag("insecure-skip-tls-verify"),
    )
    if secure:
        tls.context()
    return Credentials(
        server.rstrip("/"),
        tls.context if secure else lambda: None,
        who.authorization,
        cluster.text("tls-server-name", needed=False) or None,
        cluster.text("proxy-url", needed=False) or _proxy(parsed, env),
        who.renewable,
        f"{chosen.source}, context {chosen.name}",
    )


def _kubernetes(module: str) -> Any:
    """A module of that package, which is slow to import, and has no types."""
    return importlib.import_module(f"kubernetes.{module}")


def _wrong(source: str, path: str, message: str) -> Invalid:
    return Invalid(violations=[Violation(path, message, source)])


def _proxy(server: urllib.parse.SplitResult, env: Mapping[str, str]) -> str | None:
    """What HTTPS_PROXY and NO_PROXY say, as kubectl asks them."""
    kind = f"{server.scheme}_proxy"
    proxy = env.get(kind) or env.get(kind.upper())
    host = server.hostname or ""
    without = (env.get("no_proxy") or env.get("NO_PROXY") or "").split(",")
    if not proxy or is_local(f"{host}:0") or any(_covers(one.strip(), host) for one in without):
        return None
    return proxy


def _covers(pattern: str, host: str) -> bool:
    """Whether a part of NO_PROXY means this host: `*`, a domain, an address or a range of them."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(pattern, strict=False)
    domain = pattern.lstrip(".")
    return bool(domain) and (domain in ("*", host) or host.endswith(f".{domain}"))


@dataclass(frozen=True, slots=True)
class _File:
    """A file that something of a kubeconfig comes from, or that content itself."""

    path: Path | None
    source: str
    at: str
    """The field that names it."""
    data: bytes = field(default=b"", repr=False)

    def read(self) -> bytes:
        """Invalid where it is empty or cannot be read."""
        if self.path is None:
            return self.data
        try:
            content = self.path.read_bytes()
        except OSError as error:
            where = "" if self.source == str(self.path) else f"{self.path} "
            raise _wrong(self.source, self.at, f"{where}cannot be read: {error.strerror}") from None
        if not content.strip():
            raise self.wrong("is empty")
        return content

    def wrong(self, words: str) -> Invalid:
        where = "" if self.path is None or self.source == str(self.path) else f"{self.path} "
        return _wrong(self.source, self.at, f"{where}{words}")

    def stamp(self) -> tuple[int, ...]:
        """Changes when the file is replaced."""
        try:
            found = self.path.stat() if self.path is not None else None
        except OSError:
            return (0,)
        return (found.st_mtime_ns, found.st_ino, found.st_size) if found else ()


@dataclass(frozen=True, slots=True)
class _Entry:
    """One cluster, user or context of a kubeconfig, and where it stands."""

    name: str
    values: Mapping[str, Any] = field(repr=False)
    source: str
    path: str
    """`users[0].user`."""

    def wrong(self, key: str, message: str) -> Invalid:
        return _wrong(self.source, f"{self.path}.{key}" if key else self.path, message)

    def text(self, key: str, *, needed: bool = True) -> str:
        value = self.values.get(key)
        if value is None and not needed:
            return ""
        if not isinstance(value, str) or (needed and not value):
            raise self.wrong(key, "found nothing" if value is None else "allowed: a text")
        return value

    def flag(self, key: str) -> bool:
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "allowed: true or false")
        return value

    def reference(self, key: str) -> tuple[str, _Entry, str]:
        return self.text(key, needed=key != "user"), self, key

    def content(self, key: str) -> _File | None:
        """Of `key` (a file, beside the kubeconfig where relative) or `key-data` (base64)."""
        if text := self.text(f"{key}-data", needed=False):
            try:
                data = base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                raise self.wrong(f"{key}-data", "this is not base64") from None
            return _File(None, self.source, f"{self.path}.{key}-data", data)
        if text := self.text(key, needed=False):
            place = Path(self.source).parent / Path(text).expanduser()
            return _File(place, self.source, f"{self.path}.{key}")
        return None


@dataclass(frozen=True, slots=True)
class _Kubeconfig:
    """Merged files: of each list its entries, with the file and the index that they have there."""

    current: str
    lists: Mapping[str, list[tuple[str, Any, str, int]]] = field(repr=False)
    source: str

    @classmethod
    def read(cls, paths: list[Path]) -> _Kubeconfig:
        there = [path.expanduser() for path in paths if path.expanduser().exists()]
        if not there:
            raise _wrong(str(paths[0]), "", "there is no such file; allowed: a kubeconfig")
        current = ""
        lists: dict[str, list[tuple[str, Any, str, int]]] = {kind: [] for kind in _KINDS}
        for path in there:
            config = _loaded(path)
            current = current or str(config.get("current-context") or "")
            for kind, found in lists.items():
                entries = enumerate(config.get(kind) or ())
                found += [(one["name"], one, str(path), index) for index, one in entries]
        return cls(current, lists, str(there[0]))

    def context(self, name: str | None) -> _Entry:
        wanted = name or self.current
        if not wanted:
            raise _wrong(
                self.source, "current-context", f"found nothing; {self._known('contexts')}"
            )
        where = Violation("" if name else "current-context", "", self.source)
        return self._find("contexts", "context", wanted, where)

    def entry(
        self, kind: str, key: str, name: str, by: _Entry, field_: str, *, needed: bool = True
    ) -> _Entry:
        if not name and not needed:
            return _Entry("", {}, by.source, by.path)
        return self._find(kind, key, name, Violation(f"{by.path}.{field_}", "", by.source))

    def _find(self, kind: str, key: str, name: str, where: Violation) -> _Entry:
        for known, value, source, index in self.lists[kind]:
            if known == name:
                path = f"{kind}[{index}].{key}"
                if not isinstance(value.get(key) or {}, dict):
                    raise _wrong(source, path, "allowed: a mapping")
                return _Entry(name, value.get(key) or {}, source, path)
        near = nearest(name, [one[0] for one in self.lists[kind]])
        guess = f'; did you mean "{near}"?' if near else ""
        words = f'found "{name}"{guess} {self._known(kind)}' if near else f'found "{name}"; '
        words = words if near else words + self._known(kind)
        raise _wrong(where.source, where.field, words)

    def _known(self, kind: str) -> str:
        names = {one[0] for one in self.lists[kind]}
        shown = ", ".join(sorted(names)[:10]) + (", ..." if len(names) > 10 else "")
        return f"{kind} there are: {shown}" if names else f"there are no {kind}"


_KINDS = ("clusters", "contexts", "users")
"""The lists of a kubeconfig."""


def _loaded(path: Path) -> Mapping[str, Any]:
    """A kubeconfig whose lists hold entries with names. Errors quote nothing of it: it has keys."""
    try:
        value: Any = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise _wrong(str(path), "", f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _wrong(str(path), "", "this is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise _wrong(str(path), "", f"{where}{error.problem or 'this is not YAML'}") from None
    except (yaml.YAMLError, RecursionError):
        raise _wrong(str(path), "", "this is not YAML") from None
    if not isinstance(value, dict):
        raise _wrong(str(path), "", "found no mapping at the top; allowed: a kubeconfig")
    for kind in _KINDS:
        entries = value.get(kind) or []
        if not isinstance(entries, list):
            raise _wrong(str(path), kind, "allowed: a list")
        for index, one in enumerate(entries):
            if not isinstance(one, dict) or not isinstance(one.get("name"), str):
                raise _wrong(str(path), f"{kind}[{index}].name", "found nothing; allowed: a text")
    return value


@dataclass(slots=True)
class _User:
    """How a user of a kubeconfig proves who it is."""

    certificate: _File | None = None
    key: _File | None = None
    plugin: _Plugin | None = None
    renewable: bool = False
    authorization: Callable[[bool], Awaitable[str]] = field(default=lambda _: _none(), repr=False)

    @classmethod
    def of(cls, user: _Entry, cluster: _Entry) -> _User:
        certificate, key = user.content("client-certificate"), user.content("client-key")
        if (certificate is None) != (key is None):
            lacking = "client-key" if key is None else "client-certificate"
            raise user.wrong(lacking, "found nothing; allowed: certificate and key together")
        made = cls(certificate, key)
        if token := user.text("token", needed=False):
            made.authorization = _constant(f"Bearer {token}")
        elif place := user.text("tokenFile", needed=False):
            path = Path(user.source).parent / Path(place).expanduser()
            source = _File(path, user.source, f"{user.path}.tokenFile")
            source.read()
            made.authorization, made.renewable = _FileToken(source).get, True
        elif "exec" in user.values or "auth-provider" in user.values:
            made.plugin = _Plugin(user, cluster)
            made.authorization, made.renewable = made.plugin.get, True
        elif name := user.text("username", needed=False):
            both = f"{name}:{user.text('password', needed=False)}".encode()
            made.authorization = _constant(f"Basic {base64.b64encode(both).decode()}")
        return made


async def _none() -> str:
    return ""


def _constant(header: str) -> Callable[[bool], Awaitable[str]]:
    async def get(_renew: bool) -> str:
        return header

    return get


class _FileToken:
    """A token whose file is replaced before it expires."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self._header, self._due = "", 0.0

    async def get(self, renew: bool) -> str:
        now = time.monotonic()
        if renew or now >= self._due:
            try:
                self._header = f"Bearer {self._file.read().decode().strip()}"
            except (Invalid, UnicodeDecodeError):
                # Between two tokens the file may not be there; the old one may still be good.
                if not self._header:
                    raise Unauthorized(f"{self._file.path}: no token can be read there") from None
            self._due = now + REREAD
        return self._header


class _Plugin:
    """An exec plugin or an auth provider, run by the `kubernetes` package on a thread."""

    def __init__(self, user: _Entry, cluster: _Entry) -> None:
        self._user, self._cluster = user, cluster
        self._lock = threading.Lock()
        self._header, self._until = "", 0.0
        self._pair: tuple[bytes, bytes] | None = None
        if "exec" in user.values:
            command = user.values["exec"]
            if not isinstance(command, dict):
                raise user.wrong("exec", "allowed: a mapping")
            for key in ("command", "apiVersion"):
                if not isinstance(command.get(key), str):
                    raise user.wrong(f"exec.{key}", "found nothing; allowed: a text")

    def certificate(self) -> tuple[bytes, bytes] | None:
        """What was handed out: certificate and key in PEM."""
        return self._pair

    async def get(self, renew: bool) -> str:
        if not renew and time.time() < self._until:
            return self._header
        return await asyncio.to_thread(self._run, self._header if renew else None)

    def _run(self, refused: str | None) -> str:
        with self._lock:
            # Whoever waited for the lock finds what the one before it got.
            if time.time() < self._until and refused != self._header:
                return self._header
            run = self._exec if "exec" in self._user.values else self._provider
            self._header, self._pair, until = run()
            self._until = until - EARLY if until else time.time() + REREAD
            return self._header

    def _exec(self) -> tuple[str, tuple[bytes, bytes] | None, float]:
        config = _kubernetes("config.kube_config")
        where = f"{self._user.source}: {self._user.path}.exec"
        folder = str(Path(self._user.source).parent.resolve())
        try:
            status = config.ExecProvider(
                config.ConfigNode("exec", self._user.values["exec"]),
                folder,
                config.ConfigNode("cluster", dict(self._cluster.values)),
            ).run()
        except config.ConfigException as error:
            raise Unauthorized(f"{where}: {error}") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise Unauthorized(f"{where}: cannot be run: {error}") from None
        if not isinstance(status, dict):
            raise Unauthorized(f"{where}: answered without a status")
        token, pair = status.get("token"), None
        if status.get("clientCertificateData"):
            pair = (
                str(status["clientCertificateData"]).encode(),
                str(status.get("clientKeyData", "")).encode(),
            )
        if not token and pair is None:
            raise Unauthorized(f"{where}: gave neither a token nor a certificate")
        until = _moment(status.get("expirationTimestamp"))
        return (f"Bearer {token}" if token else ""), pair, until

    def _provider(self) -> tuple[str, tuple[bytes, bytes] | None, float]:
        name = "podbridge"
        config = {
            "current-context": name,
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "clusters": [{"name": name, "cluster": {}}],
            "users": [{"name": name, "user": dict(self._user.values)}],
        }
        made = _kubernetes("client").Configuration()
        where = f"{self._user.source}: {self._user.path}.auth-provider"
        try:
            loader = _kubernetes("config.kube_config").KubeConfigLoader
            loader(config, name, config_base_path="").load_and_set(made)
        except Exception as error:  # noqa: BLE001 - whatever a provider's library raises
            raise Unavailable(f"{where}: {type(error).__name__}") from None
        header = made.api_key.get("BearerToken", "")
        if not header:
            raise Unauthorized(f"{where}: gave no token")
        return header, None, 0.0


def _moment(text: object) -> float:
    """Epoch seconds of an RFC 3339 time; 0: none."""
    try:
        return parse_rfc3339(str(text)) if text else 0.0
    except ValueError:
        return 0.0


class _Tls:
    """Makes the context anew when a file that it was made of has been replaced."""

    def __init__(
        self,
        *,
        ca: _File | None = None,
        certificate: _File | None = None,
        key: _File | None = None,
        issued: Callable[[], tuple[bytes, bytes] | None] | None = None,
        verify: bool = True,
    ) -> None:
        self._ca, self._certificate, self._key = ca, certificate, key
        self._issued, self._verify = issued, verify
        self._lock = threading.Lock()
        self._made: ssl.SSLContext | None = None
        self._of: object = None
        self._looked = 0.0

    def context(self) -> ssl.SSLContext:
        """Invalid for a CA, certificate or key that is none, or has expired, at the first time;
        later what was good stays until there is something better."""
        now = time.monotonic()
        pair = self._issued() if self._issued is not None else None
        if self._made is not None and now - self._looked < LOOK and self._issued is None:
            return self._made
        with self._lock:
            files = [one for one in (self._ca, self._certificate, self._key) if one is not None]
            of = (pair, [one.stamp() for one in files])
            self._looked = now
            if self._made is None or of != self._of:
                try:
                    self._made, self._of = self._make(pair), of
                except Invalid:
                    # Half replaced, perhaps: certificate and key are two files.
                    if self._made is None:
                        raise
            return self._made

    def _make(self, pair: tuple[bytes, bytes] | None) -> ssl.SSLContext:
        made = ssl.create_default_context()
        made.set_alpn_protocols(["http/1.1"])
        if not self._verify:
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
        elif self._ca is not None:
            made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            made.set_alpn_protocols(["http/1.1"])
            try:
                made.load_verify_locations(cadata=self._ca.read().decode())
            except (ssl.SSLError, ValueError):
                raise self._ca.wrong("holds no certificates in PEM") from None
        if self._certificate is not None and self._key is not None:
            certificate = self._certificate.read()
            _check_certificate(self._certificate, certificate)
            try:
                _load_pair(made, certificate, self._key.read())
            except (ssl.SSLError, ValueError, OSError):
                raise self._key.wrong("is not the key of the client certificate") from None
        elif pair is not None:
            try:
                _load_pair(made, *pair)
            except (ssl.SSLError, ValueError, OSError):
                raise Unauthorized(
                    "the plugin's certificate and key do not belong together"
                ) from None
        return made


def _check_certificate(file: _File, content: bytes) -> None:
    from cryptography import x509  # noqa: PLC0415 - slow, and only for client certificates

    try:
        until = x509.load_pem_x509_certificate(content).not_valid_after_utc
    except ValueError:
        raise file.wrong("holds no certificate in PEM") from None
    if until < datetime.now(UTC):
        raise file.wrong(f"the certificate expired at {until:%Y-%m-%dT%H:%M:%SZ}")


def _load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """From memory: `ssl` only reads files, and a key must be in none."""
    handle = os.memfd_create("client")
    try:
        with os.fdopen(os.dup(handle), "wb") as stream:
            stream.write(certificate.rstrip() + b"\n" + key)
        # An encrypted key would have the terminal asked for its password.
        context.load_cert_chain(f"/proc/self/fd/{handle}", password=lambda: b"")
    finally:
        os.close(handle)
