"""Who is let in to the HTTPS API, and who is not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from api_kit import (
    ADMIN,
    NODE,
    PATH,
    PATIENCE,
    TOKEN,
    Authority,
    Rig,
    authority,
    client_context,
    manifest,
    rig,
    serving,
    until,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.pipes import POD

from bridge.errors import BridgeError, Throttled, Unauthorized, Unavailable
from bridge.kubelet.api.auth import ApiReviews, User, certificate_user
from bridge.kubelet.api.lookups import Lookups


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as made:
        yield made


REFUSED = (aiohttp.ClientConnectionError, aiohttp.ClientOSError, ssl.SSLError)
NEEDS = [
    ("GET", f"/containerLogs/{PATH}/c", "get", ["proxy"]),
    ("GET", f"/exec/{PATH}/c?output=1&command=x", "get", ["proxy"]),
    ("POST", f"/exec/{PATH}/c?output=1&command=x", "create", ["proxy"]),
    ("POST", f"/exec/{PATH}/{POD.uid}/c?output=1&command=x", "create", ["proxy"]),
    ("GET", f"/attach/{PATH}/c?output=1", "get", ["proxy"]),
    ("POST", f"/attach/{PATH}/{POD.uid}/c?output=1", "create", ["proxy"]),
    ("GET", f"/portForward/{PATH}", "get", ["proxy"]),
    ("POST", f"/portForward/{PATH}/{POD.uid}", "create", ["proxy"]),
    ("GET", "/pods", "get", ["pods", "proxy"]),
    ("GET", "/runningpods/", "get", ["pods", "proxy"]),
    ("GET", "/healthz", "get", ["healthz", "proxy"]),
    ("GET", "/healthz/ping", "get", ["healthz", "proxy"]),
    ("GET", "/healthz/syncloop", "get", ["healthz", "proxy"]),
    ("GET", "/healthz/nothing", "get", ["healthz", "proxy"]),
    ("GET", "/configz", "get", ["configz", "proxy"]),
    ("GET", "/stats/summary", "get", ["stats"]),
    ("POST", "/stats/summary", "create", ["stats"]),
    ("GET", "/stats/container", "get", ["stats"]),
    ("GET", "/metrics", "get", ["metrics"]),
    ("GET", "/metrics/resource", "get", ["metrics"]),
    ("GET", "/metrics/cadvisor", "get", ["metrics"]),
    ("GET", "/metrics/probes", "get", ["metrics"]),
    ("GET", "/logs/kubelet.log", "get", ["log"]),
    ("PUT", "/pods", "update", ["proxy"]),
    ("DELETE", "/healthz", "delete", ["proxy"]),
    ("PATCH", "/nowhere", "patch", ["proxy"]),
    ("GET", "/", "get", ["proxy"]),
    ("GET", "/stats/../exec/default/pipes/c", "get", ["stats"]),
    ("GET", "/stats%2Fsummary", "get", ["proxy"]),
]


@pytest.mark.parametrize(("method", "path", "verb", "subresources"), NEEDS)
async def test_what_each_path_needs(
    node: Rig, method: str, path: str, verb: str, subresources: list[str]
) -> None:
    from yarl import URL

    node.reviews.may = lambda *_: False
    url = URL(node.url + path, encoded=True)
    async with node.client() as nobody:
        async with nobody.request(method, url) as answer:
            assert answer.status == 401
            assert await answer.text() == "Unauthorized"
            assert answer.headers["Connection"] == "close"
    assert node.reviews.asked == []
    async with node.known().request(method, url) as answer:
        assert answer.status == 403
        assert await answer.text() == (
            f"Forbidden (user=admin, verb={verb}, resource=nodes,"
            f" subresource(s)=[{' '.join(subresources)}])\n"
        )
    assert node.reviews.asked == [("admin", verb, one) for one in subresources]


async def test_the_narrow_right_is_enough_and_asked_first(node: Rig) -> None:
    node.reviews.may = lambda user, verb, subresource: subresource == "pods"
    assert (await node.get("/pods"))[0] == 200
    assert node.reviews.asked == [("admin", "get", "pods")]
    assert (await node.get("/healthz"))[0] == 403


async def test_the_wide_right_is_asked_where_the_narrow_one_is_missing(node: Rig) -> None:
    node.reviews.may = lambda user, verb, subresource: subresource == "proxy"
    assert (await node.get("/pods"))[0] == 200
    assert node.reviews.asked == [("admin", "get", "pods"), ("admin", "get", "proxy")]
    assert (await node.get("/metrics"))[0] == 403


async def test_a_method_without_a_verb_is_never_allowed(node: Rig) -> None:
    assert (await node.get("/pods", method="OPTIONS"))[0] == 403
    assert node.reviews.asked == []


async def test_a_client_certificate_says_who(node: Rig) -> None:
    pair = authority().signs("kube-apiserver", "system:masters", "admins")
    async with node.client(pair).get("/healthz") as answer:
        assert (answer.status, await answer.text()) == (200, "ok")
    assert node.reviews.users == [
        User("kube-apiserver", ("system:masters", "admins", "system:authenticated"))
    ]
    assert node.reviews.reviewed == []


@pytest.mark.parametrize(
    ("case", "signer", "hours", "usage"),
    [
        ("unknown CA", "somebody else", 1, ExtendedKeyUsageOID.CLIENT_AUTH),
        ("expired", "the cluster", -1, ExtendedKeyUsageOID.CLIENT_AUTH),
        ("not for clients", "the cluster", 1, ExtendedKeyUsageOID.SERVER_AUTH),
    ],
)
async def test_a_certificate_that_will_not_do(
    node: Rig, case: str, signer: str, hours: float, usage: Any
) -> None:
    pair = authority(signer).signs("admin", "system:masters", hours=hours, usage=usage)
    with pytest.raises(REFUSED):
        await node.client(pair, Authorization=f"Bearer {TOKEN}").get("/healthz")
    assert node.reviews.asked == []
    # Others are still answered.
    assert await node.get("/healthz") == (200, "ok")


async def test_a_certificate_without_a_name_is_nobody(node: Rig) -> None:
    async with node.client(authority().signs("", "system:masters")).get("/healthz") as answer:
        assert answer.status == 401


async def test_a_certificate_that_ends_under_way(node: Rig) -> None:
    session = node.client(authority().signs("admin"))
    async with session.get("/healthz") as answer:
        assert answer.status == 200
    node.now = 7200.0
    async with session.get("/healthz") as answer:
        assert answer.status == 401


async def test_without_client_cas_none_is_asked_for(tmp_path: Path) -> None:
    async with rig(tmp_path) as node:
        node.client_ca = b""
        node.api.reload()
        async with node.client(authority().signs("admin")).get("/healthz") as answer:
            assert answer.status == 401
        assert await node.get("/healthz") == (200, "ok")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic YWRtaW46YWRtaW4=",
        TOKEN,
        "Bearer unknown-token-7c1",
        "Token x",
    ],
)
async def test_a_token_that_will_not_do(
    node: Rig, header: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with node.client(Authorization=header).get("/healthz") as answer:
        assert answer.status == 401
        assert await answer.text() == "Unauthorized"
        assert "Server" not in answer.headers
    assert node.reviews.asked == []
    assert "unknown-token-7c1" not in caplog.text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_token_says_who(node: Rig, scheme: str) -> None:
    async with node.client(Authorization=f"{scheme} {TOKEN}").get("/healthz") as answer:
        assert answer.status == 200
    assert node.reviews.reviewed == [TOKEN]
    assert node.reviews.users == [ADMIN]


@pytest.mark.parametrize(
    "user",
    [
        User("system:anonymous", ("system:unauthenticated",)),
        User("system:anonymous"),
        User("somebody", ("system:unauthenticated",)),
    ],
)
async def test_nobody_is_anonymous(node: Rig, user: User) -> None:
    node.reviews.tokens[TOKEN] = user
    assert await node.get("/healthz") == (401, "Unauthorized")
    assert node.reviews.asked == []


@pytest.mark.parametrize("error", [Unavailable("no answer"), Unauthorized("403"), Throttled("429")])
async def test_when_a_token_cannot_be_reviewed(
    node: Rig, error: BridgeError, caplog: pytest.LogCaptureFixture
) -> None:
    node.reviews.tokens[TOKEN] = error
    text = "Authentication error: the token could not be reviewed"
    assert await node.get("/healthz") == (503, text)
    assert node.reviews.asked == []
    assert TOKEN not in caplog.text
    # That is not remembered.
    node.reviews.tokens[TOKEN] = ADMIN
    assert await node.get("/healthz") == (200, "ok")


async def test_when_access_cannot_be_reviewed(node: Rig) -> None:
    node.reviews.down = Unavailable("no answer")
    assert await node.get("/stats/summary") == (
        503,
        "Authorization error (user=admin, verb=get, resource=nodes, subresource=stats)",
    )
    node.reviews.down = None
    assert (await node.get("/stats/summary"))[0] == 200


async def test_a_review_that_is_never_answered_holds_nobody_up(node: Rig) -> None:
    node.reviews.gate.clear()
    waiting = asyncio.create_task(node.get("/healthz"))
    await until(lambda: node.reviews.reviewed == [TOKEN])
    # Somebody who is known by certificate waits for no token.
    node.reviews.gate.set()
    async with node.client(authority().signs("admin")).get("/healthz") as answer:
        assert answer.status == 200
    assert (await waiting)[0] == 200


async def test_what_was_reviewed_is_remembered(node: Rig) -> None:
    for _ in range(3):
        assert (await node.get("/healthz"))[0] == 200
    assert node.reviews.reviewed == [TOKEN]
    assert len(node.reviews.asked) == 1
    # One who says the same name in other groups is another one.
    node.reviews.tokens["other"] = User("admin", ("more",))
    async with node.client(Authorization="Bearer other").get("/healthz") as answer:
        assert answer.status == 200
    assert len(node.reviews.asked) == 2


async def test_how_long_answers_hold() -> None:
    now, asked = 0.0, []
    lookups: Lookups[bool] = Lookups(lambda yes: 120.0 if yes else 30.0, clock=lambda: now)

    async def ask(answer: bool) -> bool:
        asked.append(answer)
        return answer

    for moment, expected in ((0.0, 1), (119.0, 1), (120.0, 2), (239.0, 2), (240.0, 3)):
        now = moment
        assert await lookups.get("yes", lambda: ask(True))
        assert asked.count(True) == expected
    for moment, expected in ((300.0, 1), (329.0, 1), (330.0, 2)):
        now = moment
        assert not await lookups.get("no", lambda: ask(False))
        assert asked.count(False) == expected


async def test_what_is_remembered_and_asked_is_bounded() -> None:
    lookups: Lookups[int] = Lookups(lambda _: 60.0, kept=3, at_once=2, patience=0.05)
    asked: list[int] = []

    async def ask(number: int) -> int:
        asked.append(number)
        return number

    for number in (1, 2, 3, 1, 4, 1, 2):
        assert await lookups.get(number, lambda number=number: ask(number)) == number
    # 2 was forgotten for 4: it had not been asked for longest.
    assert asked == [1, 2, 3, 4, 2]
    gate = asyncio.Event()

    async def wait() -> int:
        await gate.wait()
        return 0

    stuck = [asyncio.create_task(lookups.get(key, wait)) for key in ("a", "b", "a")]
    await asyncio.sleep(0)
    with pytest.raises(Throttled):
        await lookups.get("c", wait)
    for one in stuck:
        with pytest.raises(Unavailable, match=r"no answer within 0\.05 seconds"):
            await one
    gate.set()
    assert await lookups.get("a", wait) == 0


async def test_a_question_is_asked_once_however_many_wait() -> None:
    lookups: Lookups[int] = Lookups(lambda _: 60.0)
    gate, asked = asyncio.Event(), []

    async def ask() -> int:
        asked.append(1)
        await gate.wait()
        return 7

    tasks = [asyncio.create_task(lookups.get("q", ask)) for _ in range(5)]
    await until(lambda: bool(asked))
    # The one who asked first goes away: the others still get their answer.
    tasks[0].cancel()
    gate.set()
    assert await asyncio.gather(*tasks[1:]) == [7, 7, 7, 7]
    assert len(asked) == 1
    waiting = asyncio.create_task(lookups.get("other", asyncio.Event().wait))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await lookups.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


class Api:
    """An API server that answers one thing."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status
        self.posted: list[tuple[str, dict[str, Any]]] = []

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.posted.append((path, body))
        return {**body, "status": self.status}


async def test_a_token_review() -> None:
    user = {"username": "jane", "uid": "42", "groups": ["dev"], "extra": {"scopes": ["a", "b"]}}
    api = Api({"authenticated": True, "user": user})
    found = await ApiReviews(api, NODE).token("secret")
    assert found == User("jane", ("dev",), "42", (("scopes", ("a", "b")),))
    assert api.posted == [
        (
            "/apis/authentication.k8s.io/v1/tokenreviews",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": "secret"},
            },
        )
    ]


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"authenticated": False},
        {"error": "expired"},
        {"authenticated": False, "user": {"username": "jane"}},
        {"authenticated": True},
        {"authenticated": True, "user": {"username": ""}},
        {"authenticated": "yes", "user": {"username": "jane"}},
    ],
)
async def test_a_token_review_that_names_nobody(status: dict[str, Any]) -> None:
    assert await ApiReviews(Api(status), NODE).token("secret") is None


async def test_an_access_review() -> None:
    api = Api({"allowed": True, "reason": "RBAC"})
    user = User("jane", ("dev",), "42", (("scopes", ("a",)),))
    assert await ApiReviews(api, NODE).access(user, "get", "stats") == (True, "RBAC")
    path, body = api.posted[0]
    assert path == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    assert body["kind"] == "SubjectAccessReview"
    assert body["spec"] == {
        "user": "jane",
        "uid": "42",
        "groups": ["dev"],
        "extra": {"scopes": ["a"]},
        "resourceAttributes": {
            "verb": "get",
            "version": "v1",
            "resource": "nodes",
            "subresource": "stats",
            "name": NODE,
        },
    }


@pytest.mark.parametrize(
    "status", [{}, {"allowed": False}, {"allowed": True, "denied": True}, {"allowed": "true"}]
)
async def test_an_access_review_that_allows_nothing(status: dict[str, Any]) -> None:
    allowed, _ = await ApiReviews(Api(status), NODE).access(ADMIN, "get", "stats")
    assert not allowed


def test_whose_certificate_it_is() -> None:
    subject = ((("organizationName", "a"),), (("commonName", "x"), ("organizationName", "b")))
    assert certificate_user({"subject": subject}) == User("x", ("a", "b"))
    assert certificate_user({"subject": ((("organizationName", "a"),),)}) is None
    assert certificate_user({}) is None


# What changes under way.


async def test_a_new_serving_certificate(node: Rig) -> None:
    async def shown() -> str:
        context = client_context(node.folder)
        _, writer = await asyncio.open_connection("127.0.0.1", node.api.port, ssl=context)
        subject = dict(one[0] for one in writer.get_extra_info("peercert")["subject"])
        writer.transport.abort()
        return str(subject["commonName"])

    assert await shown() == "system:node:n"
    node.pair = serving("system:node:renewed")
    assert await shown() == "system:node:n"
    node.api.reload()
    assert await shown() == "system:node:renewed"


async def test_a_certificate_that_cannot_be_loaded_changes_nothing(node: Rig) -> None:
    node.client_ca = b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"
    with pytest.raises(BridgeError, match="client CA bundle"):
        node.api.reload()
    async with node.client(authority().signs("admin")).get("/healthz") as answer:
        assert answer.status == 200


async def test_whom_a_CA_let_in_that_is_gone(tmp_path: Path) -> None:
    async with rig(tmp_path, manifest()) as node:
        pair = authority().signs("admin")
        session = node.client(pair)
        async with session.get(f"/containerLogs/{PATH}/c?follow=true") as following:
            node.adapter.logged(b"one\n")
            assert await following.content.readany() == b"one\n"
            async with session.get("/healthz") as answer:
                assert answer.status == 200
            node.client_ca = Authority("another").pem
            node.api.reload()
            # What goes on goes on; nothing new begins, on the same connections or on others.
            node.adapter.logged(b"two\n", None)
            assert await following.content.read() == b"two\n"
        for _ in range(3):
            with pytest.raises(REFUSED):
                await session.get("/healthz")
        assert node.reviews.reviewed == []
        assert await node.get("/healthz") == (200, "ok")


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["h2"], None), ([], None)]
)
async def test_http_2_is_never_agreed_on(node: Rig, offered: list[str], chosen: str | None) -> None:
    context = client_context(node.folder)
    if offered:
        context.set_alpn_protocols(offered)
    async with asyncio.timeout(PATIENCE):
        _, writer = await asyncio.open_connection("127.0.0.1", node.api.port, ssl=context)
    agreed = writer.get_extra_info("ssl_object")
    assert agreed.selected_alpn_protocol() == chosen
    assert agreed.version() in {"TLSv1.2", "TLSv1.3"}
    assert agreed.session is None or not agreed.session.has_ticket
    writer.transport.abort()
