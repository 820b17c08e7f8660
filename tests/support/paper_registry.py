"""A registry on a loopback port, written from OCI's distribution-spec and image-spec, and from the
distribution project's specification of tokens; it misbehaves where a test asks for that."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
EXAMPLE = {
    "architecture": "amd64",
    "os": "linux",
    "config": {
        "Entrypoint": ["/bin/app"],
        "Cmd": ["--port", "80"],
        "Env": ["PATH=/bin", "EMPTY=", "EQUALS=a=b"],
        "WorkingDir": "/srv",
        "User": "app:app",
        "StopSignal": "SIGQUIT",
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8080": {}},
        "Volumes": {"/data": {}},
    },
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


@dataclass
class Seen:
    """One request as it came."""

    method: str
    path: str
    authorization: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass
class PaperRegistry:
    """What it holds, how it answers, and what it was asked."""

    auth: str = ""
    """"", `basic` or `bearer`."""
    users: dict[str, str] = field(default_factory=dict)
    anonymous: bool = False
    """Tokens are given to nobody in particular as well."""
    token_life: int | None = 300
    realm: str = ""
    """Where tokens are given; empty: here."""
    storage: str = ""
    """Where blobs are; empty: here."""
    tells_digest: bool = True
    own: Callable[[web.Request], Awaitable[web.StreamResponse | None]] | None = None
    """Answers first, if it wants to."""
    answer_headers: dict[str, str] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    address: str = ""
    """host:port."""

    def image(
        self,
        name: str,
        config: Any = EXAMPLE,
        *,
        algorithm: str = "sha256",
        docker: bool = False,
        **more: Any,
    ) -> dict[str, Any]:
        """Keeps an image under `path:tag` (or `path` alone); its descriptor."""
        content = config if isinstance(config, bytes) else json.dumps(config).encode()
        digest = digest_of(content, algorithm)
        self.blobs[digest] = content
        manifest = {
            "schemaVersion": 2,
            "config": {
                "mediaType": DOCKER_CONFIG if docker else CONFIG,
                "digest": digest,
                "size": len(content),
            },
            "layers": [],
            **more,
        }
        return self.put(name, manifest, DOCKER_MANIFEST if docker else MANIFEST)

    def index(
        self, name: str, entries: list[dict[str, Any]], media_type: str = INDEX
    ) -> dict[str, Any]:
        return self.put(name, {"schemaVersion": 2, "manifests": entries}, media_type)

    def put(self, name: str, document: Any, media_type: str) -> dict[str, Any]:
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        path, _, tag = name.partition(":")
        digest = digest_of(content)
        for reference in filter(None, (tag, digest)):
            self.manifests[path, reference] = (media_type, content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def calls(self, *methods: str) -> list[str]:
        """The paths asked for, in order."""
        return [one.path for one in self.seen if not methods or one.method in methods]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization", "")
        self.seen.append(
            Seen(
                request.method,
                request.path,
                authorization,
                dict(request.query),
                dict(request.headers),
            )
        )
        if self.own is not None and (answer := await self.own(request)) is not None:
            return answer
        if request.path == "/token":
            return self._token(request, authorization)
        if (refusal := self._refusal(request, authorization)) is not None:
            return refusal
        return self._content(request)

    def _known(self, authorization: str) -> bool:
        return authorization in {basic(*one) for one in self.users.items()}

    def _token(self, request: web.Request, authorization: str) -> web.Response:
        if not (self._known(authorization) or (self.anonymous and not authorization)):
            return web.json_response({"errors": [{"code": "UNAUTHORIZED"}]}, status=401)
        token = f"token-{len(self.tokens)}-for-{request.query.get('scope', '')}"
        self.tokens.add(token)
        said: dict[str, Any] = {"token": token}
        if self.token_life is not None:
            said["expires_in"] = self.token_life
        return web.json_response(said)

    def _refusal(self, request: web.Request, authorization: str) -> web.Response | None:
        path = request.path.removeprefix("/v2/").rsplit("/", 2)[0]
        scope = f"repository:{path}:pull"
        if not self.auth or (self.auth == "basic" and self._known(authorization)):
            return None
        if self.auth == "bearer" and authorization.removeprefix("Bearer ") in {
            one for one in self.tokens if one.endswith(f"-for-{scope}")
        }:
            return None
        realm = self.realm or f"{request.scheme}://{self.address}/token"
        challenge = {
            "basic": 'Basic realm="registry"',
            "bearer": f'Bearer realm="{realm}",service="paper",scope="{scope}"',
        }[self.auth]
        return web.json_response(
            {"errors": [{"code": "UNAUTHORIZED"}]},
            status=401,
            headers={"WWW-Authenticate": challenge},
        )

    def _content(self, request: web.Request) -> web.Response:
        path, kind, target = request.path.removeprefix("/v2/").rsplit("/", 2)
        if kind == "manifests" and (path, target) in self.manifests:
            media_type, content = self.manifests[path, target]
            headers = {"Content-Type": media_type, **self.answer_headers}
            if self.tells_digest:
                headers["Docker-Content-Digest"] = digest_of(content)
            return web.Response(body=content, headers=headers)
        if kind == "blobs" and self.storage:
            return web.Response(
                status=307,
                headers={"Location": f"{self.storage}/v2/{path}/blobs/{target}?sig=k%3D"},
            )
        if kind == "blobs" and target in self.blobs:
            return web.Response(body=self.blobs[target])
        return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN"}]}, status=404)


@asynccontextmanager
async def serving(
    registry: PaperRegistry, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[PaperRegistry]:
    """The registry at a free port of that address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", registry.handle)
    # What a test has left waiting ends with its caller; 0 would be to wait for ever.
    runner = web.AppRunner(
        app, handle_signals=False, handler_cancellation=True, shutdown_timeout=0.1
    )
    await runner.setup()
    site = web.TCPSite(runner, host, 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    registry.address = f"{host}:{port}"
    try:
        yield registry
    finally:
        await runner.cleanup()


async def never(request: web.Request) -> web.StreamResponse | None:
    """An answer that does not come."""
    await asyncio.Event().wait()
    raise AssertionError
