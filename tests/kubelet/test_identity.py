"""A node of its own to the API server, over real TLS."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kubelet import apiserver
from kubelet.apiserver import ApiServer
from kubelet.test_certificates import AUTHORITY, csr_of

from bridge.errors import Invalid, Unauthorized
from bridge.kubelet import credentials as loading
from bridge.kubelet.certificates import Store, serving
from bridge.kubelet.credentials import Credentials, from_kubeconfig
from bridge.kubelet.identity import node_credentials
from bridge.tls import show

CSRS = "certificatesigningrequests"


def server_tls() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = AUTHORITY.pair("api", time.time() - 60, wanted=serving("api", (), ("127.0.0.1",)))
    show(made, pair.certificate, pair.key)
    made.load_verify_locations(cadata=AUTHORITY.pem.decode())
    made.verify_mode = ssl.CERT_OPTIONAL
    return made


def kubeconfig(folder: Path, server: str) -> Path:
    path = folder / "bootstrap.kubeconfig"
    ca = base64.b64encode(AUTHORITY.pem).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [
            {"name": "x", "cluster": {"server": server, "certificate-authority-data": ca}}
        ],
        "users": [{"name": "x", "user": {"token": "abcdef.secretsecret0000"}}],
    }
    path.write_text(json.dumps(content))
    return path


def loader(path: Path) -> Callable[[], Credentials]:
    return lambda: from_kubeconfig([path], env={})


@asynccontextmanager
async def greeter() -> AsyncIterator[str]:
    """A TLS server that says who the client is, by its certificate."""

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found = (writer.get_extra_info("peercert") or {}).get("subject", ())
        names = dict(pair for one in found for pair in one)
        writer.write(f"{names.get('commonName')} {names.get('organizationName')}".encode())
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=server_tls())
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def greeted(credentials: Credentials) -> str:
    port = int(credentials.server.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=credentials.tls())
    text = (await reader.read()).decode()
    writer.close()
    return text


async def test_a_node_with_a_certificate_shows_it_and_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "LOOK", 0.0)
    store = Store(tmp_path / "n", "client")
    store.save(AUTHORITY.pair("n", time.time() - 60))
    async with greeter() as address:
        path = kubeconfig(tmp_path, address)
        credentials = await node_credentials(loader(path), store, "n")
        assert await credentials.authorization(False) == ""
        assert "secret" not in repr(credentials)
        first = credentials.tls()
        assert await greeted(credentials) == "system:node:n system:nodes"
        assert credentials.tls() is first
        store.save(AUTHORITY.pair("n", time.time() - 60))
        second = credentials.tls()
        assert second is not first
        # Half a file, or none, changes nothing.
        store.path.write_text("nothing")
        assert credentials.tls() is second
        store.path.unlink()
        assert credentials.tls() is second


async def test_a_node_without_one_asks_with_its_bootstrap_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(apiserver.KINDS, CSRS, "CertificateSigningRequest")
    store = Store(tmp_path / "n", "client")
    async with ApiServer.started(server_tls()) as server:
        getting = asyncio.ensure_future(
            node_credentials(loader(kubeconfig(tmp_path, server.address)), store, "n")
        )
        await server.until(lambda: server.made("POST", CSRS))
        [request] = server.made("POST", CSRS)
        assert request.headers["Authorization"] == "Bearer abcdef.secretsecret0000"
        assert not getting.done()
        name = request.body["metadata"]["name"]
        made = server.objects[CSRS, "", name]
        signed = AUTHORITY.sign(csr_of(request.body), time.time() - 60, 3600)
        server.put(CSRS, {**made, "status": {"certificate": base64.b64encode(signed).decode()}})
        credentials = await asyncio.wait_for(getting, 10)
    assert await credentials.authorization(False) == ""
    found = store.load()
    assert found is not None
    assert found.name == "system:node:n"


async def test_a_bootstrap_token_that_is_over_and_a_certificate_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "n", "client")
    store.save(AUTHORITY.pair("n", time.time() - 7200, 3600))
    async with ApiServer.started(server_tls()) as server:
        server.fail("GET", CSRS, 401, status={"message": "Unauthorized"}, times=3)
        path = kubeconfig(tmp_path, server.address)
        with pytest.raises(Unauthorized) as caught:
            await node_credentials(loader(path), store, "n")
    assert "client.pem expired at" in str(caught.value)
    assert "bootstrap.kubeconfig, context x got no new one" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_a_certificate_of_another_node_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "n", "client")
    store.save(AUTHORITY.pair("m", time.time() - 60))
    path = kubeconfig(tmp_path, "https://127.0.0.1:1")
    with pytest.raises(Invalid, match="is for system:node:m, not for system:node:n"):
        await node_credentials(loader(path), store, "n")


async def test_a_certificate_that_begins_later_is_a_clock_that_is_wrong(tmp_path: Path) -> None:
    store = Store(tmp_path / "n", "client")
    store.save(AUTHORITY.pair("n", time.time() + 7200))
    path = kubeconfig(tmp_path, "https://127.0.0.1:1")
    with pytest.raises(Invalid, match="is the clock right"):
        await node_credentials(loader(path), store, "n")


async def test_plain_text_proves_nothing(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, "http://127.0.0.1:1")
    with pytest.raises(Invalid, match="allowed: https"):
        await node_credentials(loader(path), Store(tmp_path / "n", "client"), "n")
