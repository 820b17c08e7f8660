"""Containers' logs over the HTTPS API: each option, each refusal, and what goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from api_kit import PATH, PATIENCE, Rig, manifest, rig, until

from bridge.errors import (
    Ambiguous,
    BridgeError,
    Invalid,
    NotFound,
    Throttled,
    Unavailable,
    Unsupported,
)
from bridge.kubelet.api.log_options import log_request
from bridge.kubelet.api.logs import why_no_log
from bridge.rpc.v1 import stream_pb2


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as made:
        yield made


LOG = f"/containerLogs/{PATH}/c"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("follow=true", {"follow": True}),
        ("follow=1", {"follow": True}),
        ("follow=", {"follow": True}),
        ("follow", {"follow": True}),
        ("follow=false", {}),
        ("follow=FALSE", {}),
        ("follow=0", {}),
        ("timestamps=true&previous=false", {"timestamps": True}),
        ("previous=true", {"previous": True}),
        ("sinceSeconds=5", {"since_seconds": 5}),
        ("tailLines=0", {"tail_lines": 0}),
        ("tailLines=10&limitBytes=%2B7", {"tail_lines": 10, "limit_bytes": 7}),
        ("tail=3", {"tail_lines": 3}),
        ("tail=all&tailLines=9", {}),
        ("sinceTime=", {}),
        ("sinceTime=null&sinceSeconds=2", {"since_seconds": 2}),
        ("stream=All&tailLines=1", {"tail_lines": 1}),
        ("stream=Stdout", {"stream": stream_pb2.STREAM_STDOUT}),
        ("stream=Stderr", {"stream": stream_pb2.STREAM_STDERR}),
        ("insecureSkipTLSVerifyBackend=true&container=x", {}),
        ("tailLines=1&tailLines=2", {"tail_lines": 1}),
    ],
)
def test_options(query: str, expected: dict[str, Any]) -> None:
    from yarl import URL

    request = log_request(URL(f"/?{query}").query)
    assert {field.name: value for field, value in request.ListFields()} == expected


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [
        ("2026-01-02T03:04:05Z", 1767323045, 0),
        ("2026-01-02T03:04:05.123456789Z", 1767323045, 123456789),
        ("2026-01-02T05:04:05.5+02:00", 1767323045, 500000000),
        ("1969-12-31T23:59:59Z", -1, 0),
    ],
)
def test_since_a_time(text: str, seconds: int, nanos: int) -> None:
    since = log_request({"sinceTime": text}).since_time
    assert (since.seconds, since.nanos) == (seconds, nanos)


@pytest.mark.parametrize(
    "query",
    [
        "tailLines=x",
        "tailLines=",
        "tailLines=1.5",
        "tailLines=9223372036854775808",
        "limitBytes=1_0",
        "sinceSeconds=%20",
        "sinceTime=yesterday",
        "sinceTime=2026-01-02",
        "sinceTime=2026-13-02T03:04:05Z",
        "sinceTime=0000-01-02T03:04:05Z",
        "sinceTime=2026-01-02T03:04:05",
    ],
)
async def test_options_of_the_wrong_type(node: Rig, query: str) -> None:
    assert await node.get(f"{LOG}?{query}") == (400, '{"message": "Unable to decode query."}')


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
        ("sinceSeconds=0", "sinceSeconds: Invalid value: 0: must be greater than 0"),
        (
            "sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z",
            "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
        (
            "stream=stdout",
            'stream: Unsupported value: "stdout": supported values: "All", "Stdout", "Stderr"',
        ),
        (
            "stream=Stderr&tailLines=1",
            "Forbidden: `tailLines` and specific `stream` are mutually exclusive for now",
        ),
        (
            "tailLines=-2&limitBytes=-1",
            "tailLines: Invalid value: -2: must be greater than or equal to 0; "
            "limitBytes: Invalid value: -1: must be greater than 0",
        ),
    ],
)
async def test_options_that_are_not_allowed(node: Rig, query: str, words: str) -> None:
    status, text = await node.get(f"{LOG}?{query}")
    assert (status, json.loads(text)) == (422, {"message": f"Invalid request. {words}"})
    assert node.adapter.log_options == []


async def test_what_the_provider_is_asked(node: Rig) -> None:
    node.adapter.logged(b"2026-01-02T03:04:05.000000006Z hello\n", None)
    query = "follow=true&timestamps=true&tailLines=4&limitBytes=100&sinceSeconds=60"
    status, text = await node.get(f"{LOG}?{query}")
    assert (status, text) == (200, "2026-01-02T03:04:05.000000006Z hello\n")
    [(container, options)] = node.adapter.log_options
    assert (container, options.follow, options.timestamps) == ("c", True, True)
    assert (options.tail_lines, options.limit_bytes) == (4, 100)
    assert options.since is not None
    node.adapter.logged(None)
    last = manifest(containerStatuses=[_status({"running": {}}, last="p://0")])
    node.pods.list = [last]
    assert await node.get(f"{LOG}?previous=true&stream=Stderr") == (200, "")
    options = node.adapter.log_options[1][1]
    assert (options.previous, options.stream, options.follow) == (True, "stderr", False)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("default/other/c", 'pod "other" does not exist'),
        ("else/pipes/c", 'pod "pipes" does not exist'),
        ("default/pipes/d", 'container "d" not found in pod "pipes"'),
        ("default/pipes/%22%0A", r'container "\"\n" not found in pod "pipes"'),
    ],
)
async def test_what_is_not_there(node: Rig, path: str, text: str) -> None:
    from yarl import URL

    url = URL(f"{node.url}/containerLogs/{path}", encoded=True)
    async with node.known().get(url) as answer:
        assert (answer.status, await answer.text()) == (404, text)
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def _status(state: dict[str, Any], last: str | None = None, name: str = "c") -> dict[str, Any]:
    status: dict[str, Any] = {"name": name, "state": state}
    if last is not None:
        status["lastState"] = {"terminated": {"exitCode": 1, "containerID": last}}
    return status


WAITING = {"waiting": {"reason": "ContainerCreating"}}
ENDED = {"terminated": {"exitCode": 0, "containerID": "p://1"}}
SUBJECT = 'container "c" in pod "pipes"'


@pytest.mark.parametrize(
    ("status", "previous", "expected"),
    [
        (None, False, f"{SUBJECT} is not available"),
        (_status(WAITING), False, f"{SUBJECT} is waiting to start: ContainerCreating"),
        (
            _status({"waiting": {"reason": "ErrImagePull"}}),
            False,
            f"{SUBJECT} is waiting to start: image can't be pulled",
        ),
        (
            _status({"waiting": {"reason": "ImagePullBackOff"}}),
            False,
            f"{SUBJECT} is waiting to start: trying and failing to pull image",
        ),
        (_status({}), False, f"{SUBJECT} is waiting to start - no logs yet"),
        (_status({"running": {}}), False, ""),
        (_status(ENDED), False, ""),
        (_status({"terminated": {"exitCode": 128}}), False, f"{SUBJECT} is terminated"),
        (_status({"terminated": {"exitCode": 128}}, "p://0"), False, ""),
        (_status({"waiting": {"reason": "CrashLoopBackOff"}}, "p://0"), False, ""),
        (_status(WAITING, ""), False, f"{SUBJECT} is terminated"),
        (_status({"running": {}}), True, f"previous terminated {SUBJECT} not found"),
        (_status({"running": {}}, ""), True, f"previous terminated {SUBJECT} not found"),
        (_status({"running": {}}, "p://0"), True, ""),
        (_status(WAITING, "p://0"), True, ""),
    ],
)
def test_which_containers_have_a_log(
    status: dict[str, Any] | None, previous: bool, expected: str
) -> None:
    pod = manifest(containerStatuses=[status] if status else [])
    assert why_no_log(pod, "c", previous=previous) == expected


async def test_a_container_that_waits(node: Rig) -> None:
    node.pods.list = [manifest(WAITING)]
    expected = 'container "c" in pod "pipes" is waiting to start: ContainerCreating'
    assert await node.get(LOG) == (400, expected)
    text = 'previous terminated container "c" in pod "pipes" not found'
    assert await node.get(f"{LOG}?previous=true") == (400, text)
    assert node.adapter.log_options == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [("early", "initContainerStatuses"), ("debugger", "ephemeralContainerStatuses")],
)
async def test_init_and_ephemeral_containers(node: Rig, name: str, kind: str) -> None:
    node.pods.list = [manifest(**{kind: [_status(ENDED, name=name)]})]
    node.adapter.logged(b"mine\n", None)
    assert await node.get(f"/containerLogs/{PATH}/{name}") == (200, "mine\n")
    assert node.adapter.log_options[0][0] == name


async def test_following_shows_the_headers_and_each_piece_at_once(node: Rig) -> None:
    async with asyncio.timeout(PATIENCE), node.known().get(f"{LOG}?follow=true") as answer:
        assert answer.status == 200
        assert answer.headers["Transfer-Encoding"] == "chunked"
        for piece in (b"one\n", b"no newline", b"\xff\x00 bytes\n"):
            node.adapter.logged(piece)
            assert await answer.content.readany() == piece
        node.adapter.logged(None)
        assert await answer.content.read() == b""
    assert node.adapter.open_logs == 0


async def test_a_client_that_goes_away_ends_the_providers_stream(node: Rig) -> None:
    session = node.client(Authorization=node.known().headers["Authorization"])
    answer = await session.get(f"{LOG}?follow=true")
    node.adapter.logged(b"one\n")
    assert await answer.content.readany() == b"one\n"
    assert node.adapter.open_logs == 1
    # Nothing is written any more: only the connection's end tells.
    answer.close()
    await until(lambda: node.adapter.open_logs == 0)


async def test_a_client_that_goes_away_before_the_first_byte(node: Rig) -> None:
    asking = asyncio.create_task(node.get(f"{LOG}?follow=true"))
    await until(lambda: node.adapter.open_logs == 1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: node.adapter.open_logs == 0)


async def test_who_reads_nothing_stops_the_provider(node: Rig) -> None:
    piece = b"x" * 32 * 1024
    for _ in range(2000):
        node.adapter.logged(piece)
    node.adapter.logged(None)
    async with node.known().get(LOG) as answer:
        left = -1
        while left != node.adapter.log.qsize():
            # Until a tenth of a second has taken nothing more.
            left = node.adapter.log.qsize()
            await asyncio.sleep(0.1)
        assert left > 1000
        assert len(await answer.content.read()) == 2000 * len(piece)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("pod default/pipes has no log here (yet)"), 400),
        (Unsupported("backend b keeps no logs"), 400),
        (Invalid("no such thing"), 400),
        (Throttled("slower", retry_after=2.1), 429),
        (Unavailable("the provider does not answer"), 503),
        (Ambiguous("who knows"), 500),
    ],
)
async def test_the_providers_refusal_has_a_status_code(
    node: Rig, error: BridgeError, status: int
) -> None:
    node.adapter.logged(error)
    async with node.known().get(LOG) as answer:
        assert (answer.status, await answer.text()) == (status, error.message)
        if status == 429:
            assert answer.headers["Retry-After"] == "3"
    assert node.adapter.open_logs == 0


@pytest.mark.parametrize("before", [b"some\n", b""])
async def test_a_log_that_breaks_off_does_not_end_in_order(node: Rig, before: bytes) -> None:
    async with node.known().get(f"{LOG}?follow=true") as answer:
        if before:
            node.adapter.logged(before)
            assert await answer.content.readany() == before
        node.adapter.logged(Unavailable("gone"))
        with pytest.raises(aiohttp.ClientError):
            await answer.content.read()
    # The next one is answered as ever.
    node.adapter.logged(b"again\n", None)
    assert await node.get(LOG) == (200, "again\n")


async def test_an_error_that_comes_late_is_no_traceback(
    node: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async with asyncio.timeout(PATIENCE), node.known().get(LOG) as answer:
        assert answer.status == 200
        node.adapter.logged(Unavailable("gone"))
        with pytest.raises(aiohttp.ClientError):
            await answer.content.read()
    assert "Traceback" not in caplog.text
    assert "Error handling request" not in caplog.text
