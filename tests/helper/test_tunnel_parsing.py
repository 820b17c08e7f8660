"""What a helper may say, sound or not: certificates, messages, frames; and a provider."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from support.helper_program import go

from bridge.errors import BridgeError, Invalid, NotFound, Unavailable
from bridge.helper.keys import Authority, pod_key, pod_of, uri_of
from bridge.helper.record import Record
from bridge.helper.tunnel import http2, messages
from bridge.helper.tunnel.channel import joined
from bridge.helper.tunnel.link import Link

SECRET = b"s" * 32
POD = ("c", "uid-1", 2)
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)


def test_one_secret_makes_one_authority_and_one_key_a_pod() -> None:
    first, again, other = Authority(SECRET), Authority(SECRET), Authority(b"o" * 32)
    assert first.certificate == again.certificate != other.certificate
    assert first.client(POD, NOW, DAY) == again.client(POD, NOW, DAY)
    keys = {pod_key(SECRET, POD), pod_key(SECRET, ("c", "uid-1", 3)), pod_key(b"o" * 32, POD)}
    assert pod_key(SECRET, POD) in keys
    assert (len(keys), {len(one) for one in keys}) == (3, {32})
    assert "PRIVATE" not in repr(first.client(POD, NOW, DAY))
    for wrong in (lambda: Authority(b"short"), lambda: pod_key(b"short", POD)):
        with pytest.raises(ValueError, match="shorter"):
            wrong()


def test_a_pods_certificate_names_it_for_as_long_as_asked() -> None:
    text = Authority(SECRET).client(POD, NOW, DAY).certificate
    made = x509.load_pem_x509_certificate(text)
    assert made.not_valid_before_utc == NOW - timedelta(hours=1)
    assert made.not_valid_after_utc == NOW + DAY
    assert pod_of(made.public_bytes(Encoding.DER)) == POD
    assert uri_of(POD) == "podbridge://c/uid-1/2"
    server = x509.load_pem_x509_certificate(Authority(SECRET).server(NOW, DAY).certificate)
    with pytest.raises(ValueError):  # noqa: PT011 - the words are not for callers
        pod_of(server.public_bytes(Encoding.DER))


@pytest.mark.parametrize("word", ["", "a/b", "a..b", ".a", "a b", "ä", "a@b", "a:1", "a?b"])
def test_an_identity_that_cannot_stand_in_a_uri_is_refused(word: str) -> None:
    for pod in ((word, "u", 0), ("c", word, 0), ("c", "u", -1)):
        with pytest.raises(ValueError, match="letters"):
            uri_of(pod)


@given(st.binary(max_size=99) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_message_is_understood_or_refused(text: bytes) -> None:
    for parse in (messages.introduction, messages.session, messages.exit_code, messages.usage):
        with contextlib.suppress(Unavailable):
            parse(text)
    assert isinstance(messages.refusal(500, text), Unavailable)


def test_messages_that_are_almost_sound() -> None:
    introduced = {"version": 1, "role": "run", "container": "m", "states": False}
    assert messages.introduction(json.dumps(introduced).encode()).container == "m"
    for name, value in (
        ("version", 2), ("role", "king"), ("container", ""), ("container", "M"), ("container", 7),
        ("role", "watch"),
    ):  # fmt: skip
        with pytest.raises(Unavailable):
            messages.introduction(json.dumps({**introduced, name: value}).encode())
    session = {"session": "A", "outputs": ["stdout"], "input": True}
    assert messages.session(json.dumps(session).encode()).has_input
    for name, value in (
        ("session", "../x"), ("session", ""), ("outputs", ["stdout", "stdout"]), ("outputs", ["x"]),
        ("outputs", "stdout"), ("outputs", [[]]),
    ):  # fmt: skip
        with pytest.raises(Unavailable):
            messages.session(json.dumps({**session, name: value}).encode())
    for code in (-1, 256, 1.5, True, None, "0"):
        with pytest.raises(Unavailable):
            messages.exit_code(json.dumps({"exit": code}).encode())
    assert messages.usage(b'{"cpu_nanoseconds":1,"memory_bytes":null}') == (1, None)
    for status, kind in ((404, NotFound), (422, Invalid), (429, Unavailable), (500, Unavailable)):
        found = messages.refusal(status, b'{"error":"words"}')
        assert (type(found), found.message) == (kind, "words")
    assert len(messages.refusal(422, json.dumps({"error": "x" * 99999}).encode()).message) < 5000


class Wire(asyncio.Transport):
    """A transport to a helper of the test's own, which answers at once."""

    def __init__(self, hear: Callable[[bytes], None]) -> None:
        super().__init__()
        self.hear = hear
        self.aborted = False
        self.gone = asyncio.Event()
        self.reading = True

    def write(self, data: Any) -> None:
        if not self.aborted:
            self.hear(bytes(data))

    def abort(self) -> None:
        self.aborted = True
        self.gone.set()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Helper:
    """The other end: a server of HTTP/2 that answers by a table of paths."""

    def __init__(self, answers: dict[str, tuple[int, list[bytes], bool]]) -> None:
        self.answers = answers
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.h2.initiate_connection()
        self.http = http2.Http2()
        self.wire = Wire(self.heard)
        self.asked: dict[str, int] = {}
        self.resets: list[int] = []
        self.taken = 0

    def start(self) -> http2.Http2:
        self.http.connection_made(self.wire)
        return self.http

    def heard(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                path = dict(event.headers)[b":path"].decode()
                self.asked[path] = event.stream_id
                self.answer(event.stream_id, path)
            elif isinstance(event, h2.events.DataReceived):
                self.taken += len(event.data)
            elif isinstance(event, h2.events.StreamReset):
                self.resets.append(event.stream_id)
        asyncio.get_running_loop().call_soon(self.say)

    def answer(self, stream: int, path: str) -> None:
        if path not in self.answers:
            return
        status, pieces, over = self.answers[path]
        self.h2.send_headers(stream, [(":status", str(status))])
        for piece in pieces:
            self.h2.send_data(stream, piece)
        if over:
            self.h2.end_stream(stream)

    def say(self) -> None:
        data = self.h2.data_to_send()
        if data and not self.wire.aborted:
            self.http.data_received(data)

    def end(self) -> None:
        self.wire.aborted = True
        self.http.connection_lost(None)


SESSION = b'{"session":"S","outputs":["stdout","stderr"],"input":true}\n'


async def test_a_session_whose_exit_comes_first_still_has_its_last_bytes() -> None:
    helper = Helper(
        {
            "/exec": (200, [SESSION + b'{"exit":3}\n'], True),
            "/sessions/S/outputs/stdout": (200, [b"a" * 9000], True),
            "/sessions/S/outputs/stderr": (200, [b"b"], True),
        }
    )
    channel = await joined(helper.start(), "/exec", {})
    found = {"stdout": b"", "stderr": b""}
    while (piece := await channel.read())[0]:
        found[piece[0]] += piece[1]
    assert (found, await channel.wait()) == ({"stdout": b"a" * 9000, "stderr": b"b"}, 3)
    await channel.close()
    helper.end()


async def test_closing_resets_every_stream_of_a_session() -> None:
    helper = Helper({"/exec": (200, [SESSION], False)})
    channel = await joined(helper.start(), "/exec", {})
    await channel.write(b"x")
    await channel.close()
    await asyncio.sleep(0)
    assert sorted(helper.resets) == sorted(helper.asked.values())
    assert len(helper.resets) == 4
    helper.end()


@pytest.mark.parametrize(
    "answer",
    [
        (200, [b""], True), (200, [b"{}\n"], True), (200, [b"x" * 60000], False),
        (200, [b'{"session":"S","outputs":["x"]}\n'], True), (500, [b"words"], True),
    ],
)  # fmt: skip
async def test_a_session_that_makes_no_sense_is_let_go(
    answer: tuple[int, list[bytes], bool],
) -> None:
    answer = (
        answer[0],
        [one[at : at + 9000] for one in answer[1] for at in range(0, max(1, len(one)), 9000)],
        answer[2],
    )
    helper = Helper({"/exec": answer})
    with pytest.raises(Unavailable):
        await asyncio.wait_for(joined(helper.start(), "/exec", {}), 5)
    helper.end()


async def test_writing_waits_for_the_peers_window_and_for_the_socket() -> None:
    helper = Helper({"/exec": (200, [SESSION], False)})
    channel = await joined(helper.start(), "/exec", {})
    writing = asyncio.create_task(channel.write(bytes(200_000)))
    for _ in range(50):
        await asyncio.sleep(0)
    before = helper.taken
    assert 60_000 < before < 70_000
    assert not writing.done()
    stream = helper.asked["/sessions/S/input"]
    helper.http.pause_writing()
    assert not helper.wire.reading
    helper.http.resume_writing()
    helper.h2.increment_flow_control_window(200_000)
    helper.h2.increment_flow_control_window(200_000, stream)
    helper.say()
    await asyncio.wait_for(writing, 5)
    assert helper.taken >= 200_000
    await channel.close()
    helper.end()


async def test_states_of_another_pod_or_of_no_meaning_end_the_link() -> None:
    sound = {
        "uid": "uid-1",
        "attempt": 2,
        "by": "watch",
        "at": 1.0,
        "failed": False,
        "containers": [],
    }
    for line in (
        {**sound, "uid": "uid-2"},
        {**sound, "attempt": 3},
        {**sound, "containers": [1]},
        [],
    ):
        text = json.dumps(sound).encode() + b"\n" + json.dumps(line).encode() + b"\n"
        helper = Helper({"/states": (200, [text], False)})
        found: list[Record] = []

        async def hear(link: Link, found: list[Record]) -> None:
            async for record in link.states():
                found.append(record)

        with pytest.raises(Unavailable):
            await hear(Link(helper.start(), POD), found)
        assert len(found) == 1
        helper.end()


async def test_a_peer_that_is_silent_is_asked_and_then_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http2, "_LOOK", 0.01)
    monkeypatch.setattr(http2, "_QUIET", 0.03)
    monkeypatch.setattr(http2, "_DEAD", 0.1)
    helper = Helper({})
    http = helper.start()
    async with asyncio.timeout(5):
        # It answers pings, and so it lives.
        await asyncio.sleep(0.3)
        assert not helper.wire.aborted
        helper.wire.hear = lambda data: None
        await helper.wire.gone.wait()
    http.connection_lost(None)


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=8), st.integers(0, 400))
@settings(max_examples=200, deadline=None)
def test_any_bytes_from_a_helper_do_no_harm(junk: list[bytes], keep: int) -> None:
    async def run() -> None:
        helper = Helper({"/exec": (200, [SESSION], False)})
        http = helper.start()
        begun = asyncio.create_task(joined(http, "/exec", {}))
        sound = helper.h2.data_to_send()[:keep]
        for piece in (sound, *junk):
            if not helper.wire.aborted and piece:
                http.data_received(piece)
            await asyncio.sleep(0)
        helper.end()
        with contextlib.suppress(BridgeError):
            channel = await asyncio.wait_for(begun, 5)
            with pytest.raises(Unavailable):
                await asyncio.wait_for(channel.read(), 5)
            await channel.close()

    asyncio.run(run())


@given(
    st.lists(
        st.tuples(
            st.integers(0, 9), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=40)
        ),
        max_size=12,
    )
)
@settings(max_examples=200, deadline=None)
def test_any_frames_from_a_helper_do_no_harm(frames: list[tuple[int, int, int, bytes]]) -> None:
    async def run() -> None:
        helper = Helper({"/exec": (200, [SESSION], False)})
        http = helper.start()
        begun = asyncio.create_task(joined(http, "/exec", {}))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for kind, flags, stream, body in frames:
            head = len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
            if not helper.wire.aborted:
                http.data_received(head + body)
        helper.end()
        with contextlib.suppress(BridgeError):
            channel = await asyncio.wait_for(begun, 5)
            await channel.close()

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.parametrize("target", ["FuzzRequests", "FuzzTrees"])
def test_any_request_of_a_provider_does_the_helper_no_harm(target: str) -> None:
    go("go", "test", "-run=^$", f"-fuzz=^{target}$", "-fuzztime=3s", "-parallel=2", ".")
