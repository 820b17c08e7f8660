"""The client and its credentials, against a server on a real socket."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import os
import ssl
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubelet.apiserver import ApiServer

from bridge.errors import BridgeError, Invalid, NotFound, Throttled, Unauthorized, Unavailable
from bridge.errors import Unsupported as UnsupportedError
from bridge.kubelet import client as client_module
from bridge.kubelet.client import (
    AlreadyExists,
    ApiClient,
    Call,
    Conflict,
    Forbidden,
    Gone,
    error_of,
)
from bridge.kubelet.credentials import from_kubeconfig, in_cluster, load

PODS = "/api/v1/namespaces/default/pods"


def a_config_map(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default"}, "data": {"k": "v"}}


async def test_it_makes_gets_changes_lists_and_deletes() -> None:
    async with ApiServer.started() as server, ApiClient(server.credentials("Bearer x")) as client:
        path = "/api/v1/namespaces/default/configmaps"
        made = await client.post(path, a_config_map("a"))
        assert made["metadata"]["uid"]
        assert (await client.get(f"{path}/a"))["data"] == {"k": "v"}
        changed = await client.patch(f"{path}/a", {"data": {"k": None, "l": "w"}})
        assert changed["data"] == {"l": "w"}
        await client.put(f"{path}/a", {**changed, "data": {}})
        items, version = await client.list(path)
        assert [one["metadata"]["name"] for one in items] == ["a"]
        assert (items[0]["apiVersion"], items[0]["kind"]) == ("v1", "ConfigMap")
        assert int(version) == server.version
        await client.delete(f"{path}/a")
        with pytest.raises(NotFound, match='configmaps "a" not found'):
            await client.get(f"{path}/a")
        patch = server.made("PATCH", path)[0]
        assert patch.headers["Content-Type"] == "application/strategic-merge-patch+json"
        assert patch.headers["Authorization"] == "Bearer x"
        assert client.calls == {
            Call("create", "configmaps", 200): 1,
            Call("get", "configmaps", 200): 1,
            Call("patch", "configmaps", 200): 1,
            Call("update", "configmaps", 200): 1,
            Call("list", "configmaps", 200): 1,
            Call("delete", "configmaps", 200): 1,
            Call("get", "configmaps", 404): 1,
        }


async def test_a_long_list_comes_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAGE", 3)
    async with ApiServer.started() as server, ApiClient(server.credentials()) as client:
        for number in range(8):
            server.put("configmaps", a_config_map(f"c{number}"))
        items, _ = await client.list("/api/v1/configmaps", {"resourceVersion": "0"})
        assert [one["metadata"]["name"] for one in items] == [f"c{at}" for at in range(8)]
        assert [one.query.get("limit") for one in server.requests] == ["3", "3", "3"]


async def test_a_list_that_took_too_long_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAGE", 1)
    async with ApiServer.started() as server, ApiClient(server.credentials()) as client:
        for number in range(2):
            server.put("configmaps", a_config_map(f"c{number}"))
        server.faults.append(_expired_page())
        with pytest.raises(Gone):
            await client.list("/api/v1/configmaps")


def _expired_page() -> Any:
    from kubelet.apiserver import Fault

    return Fault(lambda one: "continue" in one.query, 410, {"message": "too old"}, 1, {})


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (400, "BadRequest", Invalid),
        (401, "Unauthorized", Unauthorized),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (405, "MethodNotAllowed", UnsupportedError),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (410, "Expired", Gone),
        (413, "RequestEntityTooLarge", Invalid),
        (422, "Invalid", Invalid),
        (429, "TooManyRequests", Throttled),
        (500, "InternalError", Unavailable),
        (503, "ServiceUnavailable", Unavailable),
        (504, "Timeout", Unavailable),
        (302, "", Unavailable),
    ],
)
async def test_answers_become_errors_with_the_servers_own_words(
    code: int, reason: str, kind: type[BridgeError]
) -> None:
    async with ApiServer.started() as server, ApiClient(server.credentials()) as client:
        status = {"kind": "Status", "reason": reason, "message": "the words"}
        server.fail("GET", PODS, code, status=status, times=2)
        with pytest.raises(BridgeError, match="the words") as caught:
            await client.get(f"{PODS}/x")
        assert type(caught.value) is kind


def test_causes_are_violations_and_retry_after_is_kept() -> None:
    causes = [{"field": "spec.x", "message": "must be y", "reason": "FieldValueInvalid"}]
    error = error_of(422, {"message": "Pod is invalid", "details": {"causes": causes}})
    assert [str(one) for one in error.violations] == ["spec.x: must be y"]
    throttled = error_of(429, {"details": {"retryAfterSeconds": 3}})
    assert isinstance(throttled, Throttled)
    assert throttled.retry_after == 3
    by_header = error_of(429, {}, "7")
    assert isinstance(by_header, Throttled)
    assert by_header.retry_after == 7
    assert error_of(429, {}, "Wed, 21 Oct 2015 07:28:00 GMT").retry_after is None  # type: ignore[attr-defined]


async def test_nobody_there_and_a_broken_line_are_unavailable() -> None:
    async with ApiServer.started() as server, ApiClient(server.credentials()) as client:
        server.fail("POST", "configmaps", 0)
        with pytest.raises(Unavailable, match="does not answer"):
            await client.post("/api/v1/namespaces/default/configmaps", a_config_map("a"))
        await server.stop()
        with pytest.raises(Unavailable, match="does not answer"):
            await client.get(PODS)
        assert client.calls[Call("list", "pods", 0)] == 1


async def test_who_answers_too_late_is_unavailable() -> None:
    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    gone = asyncio.Event()
    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    server = ApiServer()
    server.address = f"http://127.0.0.1:{port}"
    async with ApiClient(server.credentials(), timeout=0.2) as client:
        with pytest.raises(Unavailable, match="in time"):
            await client.get(PODS)
        with pytest.raises(Unavailable, match="in time"):
            await anext(client.lines(PODS, {"watch": "true"}, silence=0.2))
    gone.set()
    listener.close()
    await listener.wait_closed()


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"7", b""])
async def test_what_is_no_api_server_is_unavailable(content: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content))
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    server = ApiServer()
    server.address = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with ApiClient(server.credentials()) as client:
        with pytest.raises(Unavailable, match="answered, but not"):
            await client.get("/version")
    listener.close()
    await listener.wait_closed()


async def test_lines_of_any_length_arrive_whole() -> None:
    async with ApiServer.started() as server, ApiClient(server.credentials()) as client:
        lines = client.lines("/api/v1/pods", {"watch": "true"}, silence=10)
        first = asyncio.ensure_future(anext(lines))
        await server.until(lambda: server.watches("pods"))
        long = b"x" * 300_000
        server.tell_line(b"one\ntw")
        server.tell_line(b"o\n" + long)
        server.tell_line(long + b"\nhalf an eve")
        server.end_watches()
        assert await first == b"one"
        assert [one async for one in lines] == [b"two", long + long]


async def test_a_line_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "LONGEST_LINE", 1000)
    async with ApiServer.started() as server, ApiClient(server.credentials()) as client:
        lines = client.lines("/api/v1/pods", {"watch": "true"}, silence=10)
        first = asyncio.ensure_future(anext(lines))
        await server.until(lambda: server.watches("pods"))
        server.tell_line(b"x" * 2000)
        with pytest.raises(Unavailable, match="more than 1000 bytes"):
            await first


async def test_connections_are_used_again() -> None:
    peers: set[Any] = set()
    async with ApiServer.started() as server, ApiClient(server.credentials()) as client:
        server.put("configmaps", a_config_map("a"))
        for _ in range(20):
            await client.get("/api/v1/namespaces/default/configmaps/a")
        assert client._session is not None
        connector: Any = client._session.connector
        peers = {one for group in connector._conns.values() for one in group}
        assert len(peers) == 1


# Credentials.


class Pki:
    """A CA, a server's and clients' certificates, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.ca = self._certificate("ca", self.key, issuer=None, days=10)
        (folder / "ca.pem").write_bytes(self.ca.public_bytes(serialization.Encoding.PEM))

    def _certificate(
        self, name: str, key: Any, *, issuer: Any, days: float, dns: str = ""
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if issuer is None else issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=20))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(
                x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True
            )
        )
        if dns:
            names = x509.SubjectAlternativeName([x509.DNSName(dns)])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def pair(self, name: str, *, days: float = 5, dns: str = "") -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate(name, key, issuer=self.ca, days=days, dns=dns)
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return paths

    def server(self, dns: str = "kubernetes", *, ask: bool = True) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.pair("server", dns=dns))
        if ask:
            context.load_verify_locations(self.folder / "ca.pem")
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    folder = tmp_path / "pki"
    folder.mkdir()
    return Pki(folder)


def write(path: Path, server: str, user: dict[str, Any], **cluster: Any) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "main",
                "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    return path


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.mark.parametrize("inline", [True, False])
async def test_a_client_certificate_proves_who_we_are(
    tmp_path: Path, pki: Pki, inline: bool
) -> None:
    certificate, key = pki.pair("node")
    user: dict[str, Any] = {
        "client-certificate": "pki/node.pem",
        "client-key": str(key),
    }
    cluster: dict[str, Any] = {"certificate-authority": "pki/ca.pem"}
    if inline:
        user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
        cluster = {"certificate-authority-data": encoded(pki.folder / "ca.pem")}
    async with ApiServer.started(pki.server()) as server:
        config = write(
            tmp_path / "config",
            server.address,
            user,
            **{"tls-server-name": "kubernetes"},
            **cluster,
        )
        async with ApiClient(load(config)) as client:
            assert (await client.list("/api/v1/pods"))[0] == []
        nameless = write(tmp_path / "other", server.address, user, **cluster)
        async with ApiClient(load(nameless)) as client:
            with pytest.raises(Unauthorized, match="not to be trusted"):
                await client.list("/api/v1/pods")
        blind = write(
            tmp_path / "blind", server.address, user, **{"insecure-skip-tls-verify": True}
        )
        async with ApiClient(load(blind)) as client:
            assert (await client.list("/api/v1/pods"))[0] == []


async def test_a_replaced_certificate_is_used_for_new_connections(
    tmp_path: Path, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.kubelet.credentials.LOOK", 0.0)
    certificate, key = pki.pair("node")
    user = {"client-certificate": str(certificate), "client-key": str(key)}
    config = write(tmp_path / "c", "https://127.0.0.1:1", user)
    credentials = load(config)
    before = credentials.tls()
    assert credentials.tls() is before
    certificate.write_bytes(b"half")
    assert credentials.tls() is before
    other = pki.pair("next")
    os.replace(other[1], key)
    os.replace(other[0], certificate)
    assert credentials.tls() is not before


async def test_tokens_from_files_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("first\n")
    async with ApiServer.started() as server:
        config = write(tmp_path / "config", server.address, {"tokenFile": "token"})
        async with ApiClient(load(config)) as client:
            await client.list("/api/v1/pods")
            (tmp_path / "token").write_text("second\n")
            await client.list("/api/v1/pods")
            # Refused before its time: read at once.
            server.fail("GET", "pods", 401)
            await client.list("/api/v1/pods")
            (tmp_path / "token").unlink()
            monkeypatch.setattr("bridge.kubelet.credentials.REREAD", 0.0)
            await client.list("/api/v1/pods")
        sent = [one.headers["Authorization"] for one in server.requests]
        assert sent == [f"Bearer {word}" for word in ("first",) * 3 + ("second",) * 2]


PLUGIN = """#!{python}
import json, os, sys
from pathlib import Path
ran = Path({counter!r})
number = int(ran.read_text() or 0) + 1
ran.write_text(str(number))
assert json.loads(os.environ["KUBERNETES_EXEC_INFO"])["kind"] == "ExecCredential"
if os.environ.get("FAIL"):
    sys.exit("please log in")
print(json.dumps({{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
    "status": {{"token": f"t{{number}}", "expirationTimestamp": os.environ["UNTIL"]}}}}))
"""


def a_plugin(folder: Path, **env: str) -> dict[str, Any]:
    import sys

    counter = folder / "ran"
    counter.write_text("")
    script = folder / "plugin"
    script.write_text(PLUGIN.format(python=sys.executable, counter=str(counter)))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(script),
            "env": [{"name": name, "value": value} for name, value in env.items()],
        }
    }


@pytest.mark.slow
async def test_a_plugin_is_run_once_until_its_token_ends_or_is_refused(tmp_path: Path) -> None:
    user = a_plugin(tmp_path, UNTIL="2099-01-01T00:00:00Z")
    async with ApiServer.started() as server:
        config = write(tmp_path / "config", server.address, user)
        async with ApiClient(load(config)) as client:
            await asyncio.gather(*(client.list("/api/v1/pods") for _ in range(5)))
            server.fail("GET", "pods", 401)
            await client.list("/api/v1/pods")
        sent = [one.headers["Authorization"] for one in server.requests]
        assert sent == ["Bearer t1"] * 6 + ["Bearer t2"]
        assert (tmp_path / "ran").read_text() == "2"


@pytest.mark.slow
async def test_a_plugin_that_fails_says_so(tmp_path: Path) -> None:
    async with ApiServer.started() as server:
        user = a_plugin(tmp_path, FAIL="yes", UNTIL="")
        config = write(tmp_path / "config", server.address, user)
        async with ApiClient(load(config)) as client:
            with pytest.raises(Unauthorized, match="please log in"):
                await client.list("/api/v1/pods")
        user["exec"]["command"] = str(tmp_path / "nothing")
        config = write(tmp_path / "config", server.address, user)
        async with ApiClient(load(config)) as client:
            with pytest.raises(Unauthorized, match=r"users\[0\].user.exec: cannot be run"):
                await client.list("/api/v1/pods")


async def test_in_a_cluster_a_service_account_is_used(tmp_path: Path, pki: Pki) -> None:
    (tmp_path / "token").write_text("abc")
    (tmp_path / "ca.crt").write_bytes((pki.folder / "ca.pem").read_bytes())
    env = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    found = load(env={**env, "HOME": str(tmp_path)}, account=tmp_path)
    assert found.server == "https://[fd00::1]:6443"
    assert await found.authorization(False) == "Bearer abc"
    assert found.tls() is not None
    (tmp_path / "ca.crt").write_text("none")
    with pytest.raises(Invalid, match=r"ca\.crt: holds no certificates"):
        in_cluster(env, tmp_path)
    with pytest.raises(Invalid, match="this is no pod"):
        in_cluster({}, tmp_path)


def test_files_merge_as_kubectl_merges_them(tmp_path: Path) -> None:
    one = write(tmp_path / "one", "http://one:80", {"token": "1"})
    second = tmp_path / "sub"
    second.mkdir()
    (second / "token").write_text("2")
    two = second / "two"
    two.write_text(
        json.dumps(
            {
                "current-context": "ignored",
                "contexts": [{"name": "two", "context": {"cluster": "c2", "user": "u2"}}],
                "clusters": [{"name": "c2", "cluster": {"server": "http://two:80/base/"}}],
                "users": [
                    {"name": "u", "user": {"token": "not this one"}},
                    {"name": "u2", "user": {"tokenFile": "token"}},
                ],
            }
        )
    )
    found = load(context="two", env={"KUBECONFIG": f"{one}:{two}", "HOME": str(tmp_path)})
    assert found.server == "http://two:80/base"
    assert asyncio.run(found.authorization(False)) == "Bearer 2"
    assert "Bearer" not in repr(found)
    first = load(context="main", env={"KUBECONFIG": f"{one}:{two}", "HOME": str(tmp_path)})
    assert asyncio.run(first.authorization(False)) == "Bearer 1"


def _found(path: Path, context: str | None = None) -> str:
    with pytest.raises(Invalid) as caught:
        from_kubeconfig([path], context, env={})
    text = str(caught.value)
    assert "hidden-secret" not in text
    return text


def test_what_is_wrong_is_told_with_file_and_field(tmp_path: Path, pki: Pki) -> None:
    path = tmp_path / "config"
    assert _found(path) == f"{path}: there is no such file; allowed: a kubeconfig"
    path.write_text("a: [")
    assert _found(path).startswith(f"{path}: line 1, column")
    path.write_text("- a")
    assert "found no mapping" in _found(path)
    path.write_text("contexts: {a: b}")
    assert _found(path) == f"{path}: contexts: allowed: a list"
    path.write_text("users: [{user: {token: hidden-secret}}]")
    assert _found(path) == f"{path}: users[0].name: found nothing; allowed: a text"
    path.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in _found(path) or "YAML" in _found(path)
    good = "https://127.0.0.1:6443"
    write(path, good, {"token": "hidden-secret"})
    wrong = _found(path, "mian")
    assert wrong == f'{path}: found "mian"; did you mean "main"? contexts there are: main'
    assert "contexts there are: main" in _found(path, "zzz")
    write(path, "ftp://x", {"token": "hidden-secret"})
    assert _found(path) == f"{path}: clusters[0].cluster.server: allowed: https://host:port"
    write(path, good, {}, **{"certificate-authority": "no.pem"})
    assert "clusters[0].cluster.certificate-authority" in _found(path)
    assert "No such file" in _found(path)
    write(path, good, {}, **{"certificate-authority-data": "hidden-secret!"})
    assert _found(path).endswith("certificate-authority-data: this is not base64")
    write(path, good, {"token": ["hidden-secret"]})
    assert _found(path) == f"{path}: users[0].user.token: allowed: a text"
    certificate, key = pki.pair("node", days=-1)
    write(path, good, {"client-certificate": str(certificate), "client-key": str(key)})
    assert "users[0].user.client-certificate" in _found(path)
    assert "the certificate expired at 20" in _found(path)
    certificate, _ = pki.pair("other")
    write(path, good, {"client-certificate": str(certificate), "client-key": str(key)})
    assert "is not the key of the client certificate" in _found(path)
    write(path, good, {"client-certificate": str(certificate)})
    assert "users[0].user.client-key: found nothing" in _found(path)
    write(path, good, {"exec": {"command": "x"}})
    assert "users[0].user.exec.apiVersion: found nothing" in _found(path)
    path.write_text(path.read_text().replace("user: u\n", "user: nobody\n"))
    assert 'contexts[0].context.user: found "nobody"' in _found(path)


@pytest.mark.parametrize(
    ("without", "proxied"),
    [
        ("", True),
        ("example.org", False),
        (".example.org,other", False),
        ("*", False),
        ("ample.org", True),
        ("10.0.0.0/8", True),
    ],
)
def test_a_proxy_of_the_environment_is_used_unless_excepted(
    tmp_path: Path, without: str, proxied: bool
) -> None:
    config = write(tmp_path / "config", "https://api.example.org", {})
    env = {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": without}
    assert (load(config, env=env).proxy == "http://proxy:3128") is proxied


def test_an_address_of_a_range_needs_no_proxy(tmp_path: Path) -> None:
    env = {"https_proxy": "http://proxy:3128", "no_proxy": "10.0.0.0/8"}
    config = write(tmp_path / "config", "https://10.1.2.3:6443", {})
    assert load(config, env=env).proxy is None
    local = write(tmp_path / "local", "https://127.0.0.1:6443", {})
    assert load(local, env={"https_proxy": "http://proxy:3128"}).proxy is None
    own = write(tmp_path / "own", "https://10.1.2.3", {}, **{"proxy-url": "http://own:1"})
    assert load(own, env=env).proxy == "http://own:1"
