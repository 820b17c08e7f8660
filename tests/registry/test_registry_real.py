"""The client against the distribution project's own registry, with tokens signed as it wants them.

It runs where its program is (`docker-registry` or `registry` on the path; Debian: docker-registry).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from registry_tls import signed
from support.paper_registry import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    EXAMPLE,
    PaperRegistry,
    basic,
    digest_of,
    serving,
)

from bridge.errors import NotFound, Unauthorized, Unsupported
from bridge.registry import RegistryClient
from bridge.workload import PullCredential

PROGRAM = shutil.which("docker-registry") or shutil.which("registry") or ""
PASSWORD = "sentinel-password"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROGRAM, reason="no registry here (Debian: docker-registry)"),
]


class Issuer(PaperRegistry):
    """Gives tokens (docs/content/spec/auth/jwt.md) to who has the login."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.certificate = signed("issuer", None, None)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != basic("me", PASSWORD):
            return web.Response(status=401)
        _, path, actions = request.query["scope"].split(":")
        return web.json_response({"token": self.token(path, actions.split(",")), "expires_in": 300})

    def token(self, path: str, actions: list[str]) -> str:
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        claims = {
            **{"iss": "issuer", "sub": "me", "aud": "paper", "jti": "1"},
            **{"nbf": now - 60, "iat": now - 60, "exp": now + 300},
            "access": [{"type": "repository", "name": path, "actions": actions}],
        }
        said = ".".join(url64(json.dumps(one).encode()) for one in (header, claims))
        pair = decode_dss_signature(self.key.sign(said.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{said}.{url64(b''.join(one.to_bytes(32, 'big') for one in pair))}"

    def bundle(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def url64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@asynccontextmanager
async def running(folder: Path, issuer: Issuer) -> AsyncIterator[str]:
    """The registry at a port of its choice: host:port."""
    (folder / "bundle.pem").write_bytes(issuer.bundle())
    auth = {
        "realm": f"http://{issuer.address}/token",
        "service": "paper",
        "issuer": "issuer",
        "rootcertbundle": str(folder / "bundle.pem"),
    }
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": "127.0.0.1:0", "secret": "shared"},
        "auth": {"token": auth},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        "serve",
        str(folder / "config.yml"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
    )
    assert process.stdout is not None
    drain = None
    try:
        async with asyncio.timeout(30):
            found = None
            while found is None:
                line = await process.stdout.readline()
                assert line, "the registry ends"
                found = re.search(rb"listening on (127\.0\.0\.1:\d+)", line)
        drain = asyncio.create_task(process.stdout.read())
        yield found[1].decode()
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
        if drain is not None:
            await drain


async def push(address: str, issuer: Issuer, path: str) -> None:
    """An image for two platforms as `path:many`, its parts by their digests only."""
    token = issuer.token(path, ["pull", "push"])
    entries = []
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:

        async def put(target: str, document: Any, media_type: str) -> dict[str, Any]:
            content = json.dumps(document).encode()
            url = f"http://{address}/v2/{path}/manifests/{target or digest_of(content)}"
            headers = {"Content-Type": media_type}
            async with session.put(url, data=content, headers=headers) as answer:
                assert answer.status == 201, await answer.text()
            return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}

        for name in ("amd64", "arm64"):
            config = json.dumps({**EXAMPLE, "architecture": name}).encode()
            async with session.post(f"http://{address}/v2/{path}/blobs/uploads/") as begun:
                assert begun.status == 202, await begun.text()
                upload = begun.headers["Location"]
            params = {"digest": digest_of(config)}
            async with session.put(upload, data=config, params=params) as answer:
                assert answer.status == 201, await answer.text()
            kept = {"mediaType": DOCKER_CONFIG, "digest": digest_of(config), "size": len(config)}
            manifest = {
                "schemaVersion": 2,
                "mediaType": DOCKER_MANIFEST,
                "config": kept,
                "layers": [],
            }
            made = await put("", manifest, DOCKER_MANIFEST)
            entries.append({**made, "platform": {"architecture": name, "os": "linux"}})
        index = {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries}
        await put("many", index, DOCKER_LIST)


async def test_a_real_registry(tmp_path: Path) -> None:
    async with serving(issuer := Issuer()), running(tmp_path, issuer) as address:
        await push(address, issuer, "team/app")
        login = [PullCredential(f"http://{address}/team", "me", PASSWORD)]
        client = RegistryClient()
        image = f"{address}/team/app:many"
        for name in ("amd64", "arm64"):
            found = await client.config(image, architecture=name, credentials=login)
            assert (found.architecture, found.entrypoint) == (name, ("/bin/app",))
        digest = await client.resolve(image, credentials=login)
        pinned = f"{address}/team/app@{digest}"
        assert await client.resolve(pinned, credentials=login) == digest
        assert (await client.config(pinned, credentials=login)).user == "app:app"
        with pytest.raises(Unsupported, match="only for linux/amd64, linux/arm64"):
            await client.config(image, architecture="s390x", credentials=login)
        with pytest.raises(NotFound):
            await client.config(f"{address}/team/app:none", credentials=login)
        with pytest.raises(Unauthorized):
            await client.config(image)
        wrong = [PullCredential(address, "me", "wrong")]
        with pytest.raises(Unauthorized):
            await client.config(image, credentials=wrong)
        await client.close()
