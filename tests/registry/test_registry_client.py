"""The client against a registry on a loopback port."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from registry_tls import authority
from support.paper_registry import (
    DOCKER_LIST,
    EXAMPLE,
    PaperRegistry,
    basic,
    digest_of,
    never,
    serving,
)

from bridge.errors import (
    BridgeError,
    Invalid,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from bridge.registry import RegistryClient
from bridge.workload import PullCredential

SENTINEL = "sentinel-password"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def paper() -> AsyncIterator[PaperRegistry]:
    async with serving(PaperRegistry()) as registry:
        yield registry


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(clock: Clock) -> AsyncIterator[RegistryClient]:
    made = RegistryClient(clock=clock)
    yield made
    await made.close()


def login(paper: PaperRegistry, password: str = SENTINEL, path: str = "") -> PullCredential:
    return PullCredential(paper.address + path, "me", password)


def spoil(folder: Path, damage: bytes) -> None:
    for file in folder.iterdir():
        file.write_bytes(damage)


class TestImages:
    async def test_an_image(self, paper: PaperRegistry, client: RegistryClient) -> None:
        made = paper.image("team/app:1")
        found = await client.config(f"{paper.address}/team/app:1")
        assert found.entrypoint == ("/bin/app",)
        assert found.digest == made["digest"]
        assert paper.calls() == [
            "/v2/team/app/manifests/1",
            f"/v2/team/app/manifests/{made['digest']}",
            f"/v2/team/app/blobs/{next(iter(paper.blobs))}",
        ]
        assert [one.method for one in paper.seen] == ["HEAD", "GET", "GET"]

    async def test_no_layer_is_asked_for(
        self, paper: PaperRegistry, client: RegistryClient
    ) -> None:
        layer = {"mediaType": "x", "digest": digest_of(b"layer"), "size": 5}
        paper.image("app:1", layers=[layer])
        await client.config(f"{paper.address}/app:1")
        assert not any(layer["digest"] in one for one in paper.calls())

    @pytest.mark.parametrize("docker", [False, True])
    async def test_an_index(
        self, paper: PaperRegistry, client: RegistryClient, docker: bool
    ) -> None:
        entries = []
        for name in ("amd64", "arm64"):
            said = {**EXAMPLE, "architecture": name, "config": {"Cmd": [name]}}
            made = paper.image("app", said, docker=docker)
            entries.append({**made, "platform": {"architecture": name, "os": "linux"}})
        top = paper.index("app:1", entries, *([DOCKER_LIST] if docker else []))
        for name, entry in zip(("amd64", "arm64"), entries, strict=True):
            found = await client.config(f"{paper.address}/app:1", architecture=name)
            assert (found.cmd, found.digest) == ((name,), entry["digest"])
        assert await client.resolve(f"{paper.address}/app:1") == top["digest"]
        assert await client.resolve(f"{paper.address}/app@{top['digest']}") == top["digest"]

    async def test_an_index_in_an_index(self, paper: PaperRegistry, client: RegistryClient) -> None:
        inner = paper.index("app", [paper.image("app")])
        paper.index("app:1", [inner])
        assert (await client.config(f"{paper.address}/app:1")).user == "app:app"
        for _ in range(3):
            inner = paper.index("app:deep", [inner])
        with pytest.raises(Unsupported, match="more than 3 indexes within one another"):
            await client.config(f"{paper.address}/app:deep")

    async def test_another_platform(self, paper: PaperRegistry, client: RegistryClient) -> None:
        entry = {**paper.image("app:one"), "platform": {"architecture": "amd64", "os": "linux"}}
        paper.index("app:many", [entry])
        for tag in ("one", "many"):
            with pytest.raises(Unsupported) as caught:
                await client.config(f"{paper.address}/app:{tag}", architecture="arm64")
            words = f"/app:{tag} is not there for linux/arm64, only for linux/amd64"
            assert words in caught.value.message

    async def test_a_registry_that_tells_no_digest(
        self, paper: PaperRegistry, client: RegistryClient
    ) -> None:
        paper.tells_digest = False
        made = paper.image("app:1")
        assert await client.resolve(f"{paper.address}/app:1") == made["digest"]
        assert (await client.config(f"{paper.address}/app:1")).digest == made["digest"]
        assert len(paper.calls("GET")) == 2

    async def test_digests_of_another_algorithm(
        self, paper: PaperRegistry, client: RegistryClient
    ) -> None:
        paper.image("app:1", algorithm="sha512")
        assert (await client.config(f"{paper.address}/app:1")).user == "app:app"

    async def test_what_is_not_there(self, paper: PaperRegistry, client: RegistryClient) -> None:
        image = f"{paper.address}/app:1"
        with pytest.raises(NotFound, match=f"{image}: {paper.address} has no such image"):
            await client.config(image)
        with pytest.raises(NotFound):
            await client.resolve(f"{paper.address}/app@sha256:{'0' * 64}")

    async def test_what_is_no_name(self, client: RegistryClient) -> None:
        for image in ("BAD IMG", "127.0.0.1:99999/app"):
            with pytest.raises(Invalid):
                await client.config(image)


class TestDamage:
    async def test_a_damaged_configuration(
        self, paper: PaperRegistry, client: RegistryClient, clock: Clock
    ) -> None:
        paper.image("app:1")
        digest, content = next(iter(paper.blobs.items()))
        paper.blobs[digest] = content.replace(b"/bin/app", b"/bin/ape")
        with pytest.raises(Unavailable, match=f"what .* sends for {digest} is damaged"):
            await client.config(f"{paper.address}/app:1")
        paper.blobs[digest] = content
        clock.now += 6
        assert (await client.config(f"{paper.address}/app:1")).entrypoint == ("/bin/app",)

    async def test_a_damaged_manifest(self, paper: PaperRegistry, client: RegistryClient) -> None:
        digest = paper.image("app:1")["digest"]
        kind, content = paper.manifests["app", digest]
        paper.manifests["app", digest] = (kind, content + b" ")
        with pytest.raises(Unavailable, match="is damaged"):
            await client.config(f"{paper.address}/app:1")

    async def test_an_answer_that_is_too_long(
        self, paper: PaperRegistry, client: RegistryClient, clock: Clock
    ) -> None:
        """With a length that is told, and as a stream that never ends."""
        paper.image("app:1")
        digest = next(iter(paper.blobs))
        paper.blobs[digest] = b" " * (4 * 1024 * 1024 + 1)
        with pytest.raises(Unavailable, match="answers with more than 4194304 bytes"):
            await client.config(f"{paper.address}/app:1")

        async def endless(request: web.Request) -> web.StreamResponse | None:
            if "/blobs/" not in request.path:
                return None
            answer = web.StreamResponse()
            await answer.prepare(request)
            while True:
                await answer.write(b" " * 65536)

        paper.own = endless
        clock.now += 6
        asked = len(paper.seen)
        with pytest.raises(Unavailable, match="answers with more than 4194304 bytes"):
            await client.config(f"{paper.address}/app:1")
        assert len(paper.seen) == asked + 1

    async def test_a_configuration_that_is_said_to_be_too_long(
        self, paper: PaperRegistry, client: RegistryClient
    ) -> None:
        paper.image("app:1", b" " * (4 * 1024 * 1024 + 1))
        with pytest.raises(Unsupported, match="4194304 are read"):
            await client.config(f"{paper.address}/app:1")
        assert not any("/blobs/" in one for one in paper.calls())

    async def test_nothing_is_unpacked(self, paper: PaperRegistry, client: RegistryClient) -> None:
        """A few kilobytes could become gigabytes."""
        paper.image("app:1")

        async def own(request: web.Request) -> web.StreamResponse | None:
            if request.method == "HEAD" or "/blobs/" in request.path:
                return None
            assert request.headers["Accept-Encoding"] == "identity"
            packed = gzip.compress(paper.manifests["app", "1"][1])
            return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

        paper.own = own
        with pytest.raises(Unavailable, match="is damaged"):
            await client.config(f"{paper.address}/app:1")

    async def test_an_answer_that_does_not_come(self, paper: PaperRegistry) -> None:
        paper.own = never
        client = RegistryClient(timeout=0.05)
        with pytest.raises(Unavailable, match=f"{paper.address}: no answer within 0.05 s"):
            await client.resolve(f"{paper.address}/app:1")
        await client.close()

    async def test_nobody_there(self, client: RegistryClient) -> None:
        async with serving(PaperRegistry()) as paper:
            address = paper.address
        with pytest.raises(Unavailable, match=f"{address}/app:1: {address}: no connection: "):
            await client.resolve(f"{address}/app:1")

    async def test_a_connection_that_breaks(
        self, paper: PaperRegistry, client: RegistryClient
    ) -> None:
        async def broken(request: web.Request) -> web.StreamResponse | None:
            assert request.transport is not None
            request.transport.abort()
            return None

        paper.own = broken
        with pytest.raises(Unavailable, match=f"{paper.address}: "):
            await client.resolve(f"{paper.address}/app:1")

    @pytest.mark.parametrize("status", [400, 418, 500, 503])
    async def test_other_answers(
        self, paper: PaperRegistry, client: RegistryClient, status: int
    ) -> None:
        async def own(_: web.Request) -> web.StreamResponse | None:
            return web.Response(status=status, text="secret words of a registry")

        paper.own = own
        with pytest.raises(Unavailable, match=f"answers {status}$"):
            await client.config(f"{paper.address}/app:1")


class TestLogins:
    async def test_a_token(self, paper: PaperRegistry, client: RegistryClient) -> None:
        paper.auth, paper.users = "bearer", {"me": SENTINEL}
        paper.image("team/app:1")
        await client.config(f"{paper.address}/team/app:1", credentials=[login(paper)])
        asked = [one for one in paper.seen if one.path == "/token"]
        assert len(asked) == 1
        assert asked[0].query == {"service": "paper", "scope": "repository:team/app:pull"}
        assert asked[0].authorization == basic("me", SENTINEL)
        others = [one for one in paper.seen if one.path != "/token"]
        assert others[0].authorization == ""
        assert {one.authorization[:13] for one in others[1:]} == {"Bearer token-"}

    async def test_a_token_for_anybody(self, paper: PaperRegistry, client: RegistryClient) -> None:
        paper.auth, paper.anonymous = "bearer", True
        paper.image("app:1")
        await client.config(f"{paper.address}/app:1")
        assert [one.authorization for one in paper.seen if one.path == "/token"] == [""]

    @pytest.mark.parametrize(("life", "lasts"), [(300, 270.0), (None, 54.0), (0, 54.0)])
    async def test_a_token_is_used_until_it_ends(
        self, paper: PaperRegistry, clock: Clock, life: int | None, lasts: float
    ) -> None:
        paper.auth, paper.anonymous, paper.token_life = "bearer", True, life
        client = RegistryClient(clock=clock, fresh=0.0)
        paper.image("app:1")
        for passed, tokens in ((0.0, 1), (lasts - 1, 1), (1.0, 2)):
            clock.now += passed
            await client.resolve(f"{paper.address}/app:1")
            assert len(paper.tokens) == tokens
        await client.close()

    async def test_a_token_that_is_taken_back(
        self, paper: PaperRegistry, client: RegistryClient, clock: Clock
    ) -> None:
        paper.auth, paper.anonymous = "bearer", True
        paper.image("app:1")
        await client.resolve(f"{paper.address}/app:1")
        paper.tokens.clear()
        clock.now += 61
        await client.resolve(f"{paper.address}/app:1")
        assert paper.calls().count("/token") == 2

    async def test_basic_authentication(self, paper: PaperRegistry, client: RegistryClient) -> None:
        paper.auth, paper.users = "basic", {"me": SENTINEL}
        paper.image("app:1")
        await client.config(f"{paper.address}/app:1", credentials=[login(paper)])
        assert [one.authorization for one in paper.seen] == ["", *[basic("me", SENTINEL)] * 3]

    @pytest.mark.parametrize("auth", ["basic", "bearer"])
    async def test_no_login_and_a_wrong_one(
        self, paper: PaperRegistry, client: RegistryClient, auth: str
    ) -> None:
        paper.auth, paper.users = auth, {"me": SENTINEL}
        paper.image("app:1")
        with pytest.raises(Unauthorized, match="no one without a login"):
            await client.config(f"{paper.address}/app:1")
        with pytest.raises(Unauthorized, match="refuses the pod's login for it"):
            await client.config(f"{paper.address}/app:1", credentials=[login(paper, "wrong")])

    async def test_a_login_for_another_place_stays_here(
        self, paper: PaperRegistry, client: RegistryClient
    ) -> None:
        paper.auth, paper.users = "basic", {"me": SENTINEL}
        others = [PullCredential("elsewhere.io", "me", SENTINEL), login(paper, path="/other")]
        with pytest.raises(Unauthorized, match="no one without a login"):
            await client.resolve(f"{paper.address}/app:1", credentials=others)
        assert {one.authorization for one in paper.seen} == {""}

    async def test_each_login_that_fits_is_tried_the_closest_first(
        self, paper: PaperRegistry, client: RegistryClient
    ) -> None:
        paper.auth, paper.users = "basic", {"me": SENTINEL}
        paper.image("team/app:1")
        many = [login(paper), login(paper, "wrong", "/team/app"), login(paper, "old", "/team")]
        await client.resolve(f"{paper.address}/team/app:1", credentials=many)
        tried = [one.authorization for one in paper.seen if one.authorization]
        assert tried == [basic("me", one) for one in ("wrong", "old", SENTINEL)]

    async def test_forbidden(self, paper: PaperRegistry, client: RegistryClient) -> None:
        async def own(_: web.Request) -> web.StreamResponse | None:
            return web.Response(status=403)

        paper.own = own
        with pytest.raises(Unauthorized):
            await client.resolve(f"{paper.address}/app:1")

    @pytest.mark.parametrize(
        ("challenge", "error", "words"),
        [
            ("", Unauthorized, "a kind of login that is not known"),
            ("Negotiate", Unauthorized, "a kind of login that is not known"),
            ("Bearer service=x", Unavailable, "no place for tokens"),
            ('Bearer realm="ftp://a.io/"', Unavailable, "no place for tokens"),
            ('Bearer realm="http://[x/"', Unavailable, "no place for tokens"),
        ],
    )
    async def test_challenges_that_lead_nowhere(
        self,
        paper: PaperRegistry,
        client: RegistryClient,
        challenge: str,
        error: type[BridgeError],
        words: str,
    ) -> None:
        async def own(_: web.Request) -> web.StreamResponse | None:
            headers = {"WWW-Authenticate": challenge} if challenge else {}
            return web.Response(status=401, headers=headers)

        paper.own = own
        with pytest.raises(error, match=words):
            await client.resolve(f"{paper.address}/app:1", credentials=[login(paper)])

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b'{"token": 1}', b'{"token": ""}', b'{"token": "a\\r\\nX: y"}']
    )
    async def test_tokens_that_are_none(
        self, paper: PaperRegistry, client: RegistryClient, body: bytes
    ) -> None:
        paper.auth = "bearer"

        async def own(request: web.Request) -> web.StreamResponse | None:
            return web.Response(body=body) if request.path == "/token" else None

        paper.own = own
        with pytest.raises(Unavailable, match="gives no token"):
            await client.resolve(f"{paper.address}/app:1")


class TestRedirects:
    async def test_content_elsewhere_comes_without_the_credentials(
        self, paper: PaperRegistry, client: RegistryClient
    ) -> None:
        paper.auth, paper.users = "basic", {"me": SENTINEL}
        paper.image("app:1")
        async with serving(PaperRegistry(blobs=dict(paper.blobs))) as storage:
            paper.storage = f"http://{storage.address}"
            await client.config(f"{paper.address}/app:1", credentials=[login(paper)])
            assert [one.authorization for one in storage.seen] == [""]
            assert "Authorization" not in storage.seen[0].headers
            assert storage.seen[0].query == {"sig": "k="}
            assert SENTINEL not in repr(storage.seen)

    async def test_only_the_registry_may_ask_for_a_login(
        self, paper: PaperRegistry, client: RegistryClient
    ) -> None:
        paper.auth, paper.users = "basic", {"me": SENTINEL}
        paper.image("app:1")
        async with serving(PaperRegistry(auth="bearer")) as storage:
            paper.storage = f"http://{storage.address}"
            with pytest.raises(Unavailable, match="answers 401"):
                await client.config(f"{paper.address}/app:1", credentials=[login(paper)])
            assert [one.authorization for one in storage.seen] == [""]

    async def test_a_redirect_at_home_keeps_them(
        self, paper: PaperRegistry, client: RegistryClient
    ) -> None:
        paper.auth, paper.users = "basic", {"me": SENTINEL}
        paper.image("app:1")

        async def own(request: web.Request) -> web.StreamResponse | None:
            if request.path == "/v2/old/app/manifests/1":
                return web.Response(status=301, headers={"Location": "/v2/app/manifests/1"})
            return None

        paper.own = own
        await client.resolve(f"{paper.address}/old/app:1", credentials=[login(paper)])

    async def test_the_token_server_s_redirect_takes_no_login_along(
        self, paper: PaperRegistry, client: RegistryClient
    ) -> None:
        paper.auth, paper.users = "bearer", {"me": SENTINEL}
        async with serving(PaperRegistry(anonymous=True)) as other:

            async def own(request: web.Request) -> web.StreamResponse | None:
                if request.path != "/token":
                    return None
                return web.Response(
                    status=307, headers={"Location": f"http://{other.address}/token"}
                )

            paper.own = own
            with pytest.raises(Unauthorized):
                await client.resolve(f"{paper.address}/app:1", credentials=[login(paper)])
            assert {one.authorization for one in other.seen} == {""}

    @pytest.mark.parametrize("location", ["", "file:///etc/passwd", "http://[x", "http://a:b/"])
    async def test_redirects_to_nowhere(
        self, paper: PaperRegistry, client: RegistryClient, location: str
    ) -> None:
        async def own(_: web.Request) -> web.StreamResponse | None:
            return web.Response(status=302, headers={"Location": location})

        paper.own = own
        with pytest.raises(Unavailable, match="an address that is not to be used"):
            await client.resolve(f"{paper.address}/app:1")

    async def test_redirects_without_end(
        self, paper: PaperRegistry, client: RegistryClient
    ) -> None:
        async def own(request: web.Request) -> web.StreamResponse | None:
            return web.Response(status=302, headers={"Location": request.path})

        paper.own = own
        with pytest.raises(Unavailable, match="more than 5 times"):
            await client.resolve(f"{paper.address}/app:1")
        assert len(paper.seen) == 6


class TestLimits:
    async def test_too_many_requests(
        self, paper: PaperRegistry, client: RegistryClient, clock: Clock
    ) -> None:
        paper.image("app:1")
        busy = True

        async def own(_: web.Request) -> web.StreamResponse | None:
            return web.Response(status=429, headers={"Retry-After": "30"}) if busy else None

        paper.own = own
        image = f"{paper.address}/app:1"
        with pytest.raises(Throttled) as caught:
            await client.config(image)
        assert caught.value.retry_after == 30.0
        assert image in caught.value.message
        busy = False
        clock.now += 20
        with pytest.raises(Throttled) as caught:
            await client.config(image)
        assert caught.value.retry_after == 10.0
        assert len(paper.seen) == 1
        clock.now += 11
        await client.config(image)

    async def test_a_busy_token_server(self, paper: PaperRegistry, client: RegistryClient) -> None:
        paper.auth = "bearer"

        async def own(request: web.Request) -> web.StreamResponse | None:
            if request.path != "/token":
                return None
            return web.Response(status=429, headers={"Retry-After": "9"})

        paper.own = own
        with pytest.raises(Throttled) as caught:
            await client.config(f"{paper.address}/app:1")
        assert caught.value.retry_after == 9.0

    async def test_the_last_pull_is_left_to_the_pod(
        self, paper: PaperRegistry, client: RegistryClient, clock: Clock
    ) -> None:
        """Docker Hub's headers; what is known already is still told."""
        paper.image("app:1")
        paper.image("app:2", {**EXAMPLE, "config": {"Cmd": ["2"]}})
        await client.config(f"{paper.address}/app:1")
        paper.answer_headers = {
            "ratelimit-limit": "100;w=21600",
            "ratelimit-remaining": "0;w=21600",
        }
        with pytest.raises(Throttled) as caught:
            await client.config(f"{paper.address}/app:2")
        assert caught.value.retry_after == 216.0
        assert len(paper.calls("GET")) == 2
        await client.config(f"{paper.address}/app:1")
        clock.now += 217
        paper.answer_headers = {}
        await client.config(f"{paper.address}/app:2")


class TestSharing:
    async def test_a_thousand_pods_are_one_round_of_calls(
        self, paper: PaperRegistry, client: RegistryClient
    ) -> None:
        paper.auth, paper.users = "bearer", {"me": SENTINEL}
        paper.image("app:1")
        image, credentials = f"{paper.address}/app:1", [login(paper)]
        first = await asyncio.gather(
            *(client.config(image, credentials=credentials) for _ in range(500))
        )
        for _ in range(500):
            assert await client.config(image, credentials=credentials) == first[0]
        # The refusal, the token, HEAD, manifest, configuration.
        assert len(paper.seen) == 5

    async def test_a_failure_is_shared_too(
        self, paper: PaperRegistry, client: RegistryClient, clock: Clock
    ) -> None:
        image = f"{paper.address}/app:1"
        for _ in range(2):
            found = await asyncio.gather(
                *(client.config(image) for _ in range(100)), return_exceptions=True
            )
            assert {type(one) for one in found} == {NotFound}
            assert len({id(one) for one in found}) == 100
        assert len(paper.seen) == 1
        paper.image("app:1")
        clock.now += 6
        await client.config(image)

    async def test_a_tag_moves(
        self, paper: PaperRegistry, client: RegistryClient, clock: Clock
    ) -> None:
        image = f"{paper.address}/app:1"
        old = paper.image("app:1")["digest"]
        assert (await client.config(image)).digest == old
        new = paper.image("app:1", {**EXAMPLE, "config": {"Cmd": ["new"]}})["digest"]
        clock.now += 59
        assert (await client.config(image)).digest == old
        clock.now += 2
        assert (await client.config(image)).digest == new
        assert await client.resolve(image) == new

    async def test_what_one_login_may_read_another_may_not(
        self, paper: PaperRegistry, client: RegistryClient
    ) -> None:
        paper.auth, paper.users = "basic", {"me": SENTINEL}
        digest = paper.image("app:1")["digest"]
        for image in (f"{paper.address}/app:1", f"{paper.address}/app@{digest}"):
            await client.config(image, credentials=[login(paper)])
            for others in ([], [login(paper, "wrong")]):
                with pytest.raises(Unauthorized):
                    await client.config(image, credentials=others)

    async def test_who_gives_up_takes_it_from_nobody(
        self, paper: PaperRegistry, client: RegistryClient
    ) -> None:
        paper.image("app:1")
        gate, asked = asyncio.Event(), asyncio.Event()

        async def own(_: web.Request) -> web.StreamResponse | None:
            asked.set()
            await gate.wait()
            return None

        paper.own = own
        image = f"{paper.address}/app:1"
        one, two = (asyncio.create_task(client.config(image)) for _ in range(2))
        await asked.wait()
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        gate.set()
        assert (await two).user == "app:app"
        assert len(paper.seen) == 3

    async def test_closing_ends_what_is_under_way(self, paper: PaperRegistry) -> None:
        asked = asyncio.Event()

        async def own(request: web.Request) -> web.StreamResponse | None:
            asked.set()
            return await never(request)

        paper.own = own
        client = RegistryClient()
        waiting = asyncio.create_task(client.config(f"{paper.address}/app:1"))
        await asked.wait()
        await client.close()
        with pytest.raises(Unavailable, match="not asked any more"):
            await waiting


class TestFolder:
    async def test_content_is_kept_across_restarts(
        self, paper: PaperRegistry, tmp_path: Path
    ) -> None:
        paper.image("app:1")
        folder = tmp_path / "made" / "cache"
        for calls in (3, 4):
            client = RegistryClient(folder=folder)
            found = await client.config(f"{paper.address}/app:1")
            assert found.entrypoint == ("/bin/app",)
            await client.close()
            assert len(paper.seen) == calls
        assert {one.stat().st_mode & 0o777 for one in folder.iterdir()} == {0o600}
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(list(folder.iterdir())) == 2

    @pytest.mark.parametrize("damage", [b"", b"{}", b" " * (5 * 1024 * 1024)])
    async def test_damaged_files_are_ignored(
        self, paper: PaperRegistry, tmp_path: Path, damage: bytes
    ) -> None:
        paper.image("app:1")
        for _ in range(2):
            client = RegistryClient(folder=tmp_path)
            assert (await client.config(f"{paper.address}/app:1")).user == "app:app"
            await client.close()
            spoil(tmp_path, damage)
        assert len(paper.calls("GET")) == 4

    async def test_a_folder_that_cannot_be_had(self, paper: PaperRegistry, tmp_path: Path) -> None:
        paper.image("app:1")
        (tmp_path / "file").touch()
        client = RegistryClient(folder=tmp_path / "file" / "cache")
        assert (await client.config(f"{paper.address}/app:1")).user == "app:app"
        await client.close()


class TestTransport:
    async def test_certificates_are_checked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """This host by another name than its usual ones is any host."""
        ca, served = authority(tmp_path, "127.0.0.2")
        async with serving(PaperRegistry(), "127.0.0.2", served) as paper:
            paper.image("app:1")
            image = f"{paper.address}/app:1"
            client = RegistryClient()
            with pytest.raises(Unavailable, match="its certificate is not trusted: "):
                await client.config(image)
            await client.close()
            monkeypatch.setenv("SSL_CERT_FILE", str(ca))
            client = RegistryClient()
            assert (await client.config(image)).user == "app:app"
            await client.close()

    async def test_https_leads_to_no_plain_http(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paper: PaperRegistry
    ) -> None:
        ca, served = authority(tmp_path, "127.0.0.2")
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
        secure = PaperRegistry(storage=f"http://{paper.address}")
        async with serving(secure, "127.0.0.2", served):
            secure.image("app:1")
            client = RegistryClient()
            with pytest.raises(Unavailable, match="an address that is not to be used"):
                await client.config(f"{secure.address}/app:1")
            secure.auth, secure.realm = "bearer", f"http://{paper.address}/token"
            with pytest.raises(Unavailable, match="no place for tokens"):
                await client.resolve(f"{secure.address}/other:1", credentials=[login(secure)])
            await client.close()
        assert paper.seen == []

    async def test_plain_http_only_where_it_is_allowed(self) -> None:
        async with serving(PaperRegistry(), "127.0.0.2") as paper:
            paper.image("app:1")
            client = RegistryClient()
            with pytest.raises(Unavailable, match=f"{paper.address}: it does not speak TLS"):
                await client.config(f"{paper.address}/app:1")
            await client.close()
            assert paper.seen == []
            client = RegistryClient(insecure=[paper.address])
            assert (await client.config(f"{paper.address}/app:1")).user == "app:app"
            await client.close()

    async def test_the_environment_s_proxy(
        self, paper: PaperRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is asked for other hosts, and not for this one."""
        paper.image("app:1")
        monkeypatch.setenv("http_proxy", f"http://{paper.address}")
        monkeypatch.setenv("no_proxy", "direct.invalid")
        client = RegistryClient(insecure=["far.invalid:5000", "direct.invalid"])
        await client.resolve("far.invalid:5000/app:1")
        assert paper.seen[-1].headers["Host"] == "far.invalid:5000"
        with pytest.raises(Unavailable, match=r"direct\.invalid: its name is not known"):
            await client.resolve("direct.invalid/app:1")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        await client.resolve(f"{paper.address}/app:1")
        await client.close()


async def test_no_secret_is_told(
    paper: PaperRegistry,
    client: RegistryClient,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever a registry answers, repeating what it was sent among it."""
    caplog.set_level(logging.DEBUG)
    encoded = basic("me", SENTINEL).removeprefix("Basic ")
    answers: list[tuple[int, dict[str, str]]] = [
        *((status, {"X-Said": SENTINEL}) for status in (200, 400, 401, 403, 404, 429, 500)),
        (401, {"WWW-Authenticate": f'Bearer realm="http://x:{SENTINEL}@127.0.0.1:1/{SENTINEL}"'}),
        (401, {"WWW-Authenticate": f'{SENTINEL} realm="{SENTINEL}"'}),
        (302, {"Location": f"http://127.0.0.1:1/{SENTINEL}?sig={encoded}"}),
        (302, {"Location": f"{SENTINEL}://{SENTINEL}"}),
        (302, {"Location": f"http://x:{SENTINEL}@127.0.0.1:1/"}),
    ]
    paper.auth, paper.users = "basic", {"me": SENTINEL}
    errors = []
    for number, (status, headers) in enumerate(answers):

        async def own(
            request: web.Request, status: int = status, headers: Any = headers
        ) -> web.StreamResponse | None:
            if not request.headers.get("Authorization"):
                return None
            return web.Response(status=status, headers=headers, body=json.dumps(SENTINEL).encode())

        paper.own = own
        try:
            await client.config(f"{paper.address}/app:{number}", credentials=[login(paper)])
        except BridgeError as error:
            errors.append(error)
        clock.now += 4000
    assert len(errors) == len(answers)
    assert any(SENTINEL in one.authorization or one.authorization for one in paper.seen)
    told = "".join(f"{one} {one!r} {one.__cause__}" for one in errors) + caplog.text
    state = repr(vars(client)) + repr(vars(client._tokens)) + repr(vars(client._digests))
    for secret in (SENTINEL, encoded):
        assert secret not in told
        assert secret not in state
