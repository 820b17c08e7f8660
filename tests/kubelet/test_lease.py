"""The Lease's own thread and connection, against a server on a real socket; the clock is ours."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kubelet.test_lock import Server

from bridge.errors import BridgeError, Invalid, NotFound, Throttled, Unauthorized, Unavailable
from bridge.kubelet import blocking
from bridge.kubelet import lease as module
from bridge.kubelet.blocking import Wire
from bridge.kubelet.certificates import self_signed
from bridge.kubelet.client import Conflict
from bridge.kubelet.credentials import Credentials
from bridge.kubelet.lease import Lease, LoopBeat, boottime
from bridge.kubelet.lock import Call

LOOK = Call("look", "GET", "/apis/x", None, 0.0)


def until(met: Callable[[], Any], limit: float = 10.0) -> None:
    """Returns once it is so."""
    end = time.monotonic() + limit
    while not met():
        assert time.monotonic() < end, "this never became so"
        time.sleep(0.002)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Http:
    """An API server with one Lease, on threads: no event loop of the test serves it."""

    state: Server = field(default_factory=Server)
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, Authorization) of each request."""
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    """What the next requests are answered with instead."""
    gate: threading.Event = field(default_factory=threading.Event)
    """While it is not set, requests hang."""
    accepted: int = 0
    port: int = 0
    close_after: bool = False

    def __post_init__(self) -> None:
        self.gate.set()

    def credentials(self, **more: Any) -> Credentials:
        async def authorization(_renew: bool) -> str:
            return "Bearer t"

        given = {"tls": lambda: None, "authorization": authorization} | more
        return Credentials(f"http://127.0.0.1:{self.port}", **given)

    def count(self, method: str) -> int:
        return sum(1 for one in self.seen if one[0] == method)


def handler(http: Http) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            http.accepted += 1
            super().setup()

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            http.gate.wait(30)
            http.seen.append((self.command, self.path, self.headers["Authorization"]))
            if http.answers:
                code, content = http.answers.pop(0)
            else:
                kind: Any = "node" if "/nodes/" in self.path else "look"
                what = http.state.do(Call(kind, self.command, self.path, body, 0.0))
                code = {NotFound: 404, Conflict: 409}.get(type(what), 200)
                code = 409 if isinstance(what, Conflict) else code
                content = json.dumps({} if isinstance(what, BridgeError) else what).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            if code == 429:
                self.send_header("Retry-After", "7")
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = http.close_after

        do_GET = do_PUT = do_POST = _answer  # noqa: N815 - the names are the base's

    return Handler


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""


@contextmanager
def served(tls: ssl.SSLContext | None = None) -> Iterator[Http]:
    http = Http()
    server = Quiet(("127.0.0.1", 0), handler(http))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    http.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield http
    finally:
        http.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is set by hand: it is looked at often."""
    monkeypatch.setattr(module, "LONGEST_SLEEP", 0.003)


@contextmanager
def running(http: Http, clock: Clock, **more: Any) -> Iterator[tuple[Lease, list[bool]]]:
    told: list[bool] = []
    lease = Lease(http.credentials(), "n", "n_a", changed=told.append, clock=clock, **more)
    lease.start()
    try:
        yield lease, told
    finally:
        http.gate.set()
        lease.close()


def test_it_takes_renews_and_hands_over() -> None:
    clock = Clock()
    with served() as http:
        with running(http, clock) as (lease, told):
            until(lambda: told == [True])
            assert lease.held
            assert lease.holder == "n_a"
            lease.own("node-uid")
            clock.now += 10.0
            until(lambda: lease._lock.until == 1025.0)
            assert http.state.lease is not None
            assert http.state.lease["metadata"]["ownerReferences"][0]["uid"] == "node-uid"
            clock.now += 14.0
            until(lambda: lease._lock.until == 1039.0)
            assert lease.held
        assert "holderIdentity" not in http.state.lease["spec"]
        assert told == [True, False]
        assert not lease.held
        assert http.accepted == 1


def test_another_replica_takes_over_what_was_handed_over() -> None:
    clock = Clock()
    with served() as http:
        with running(http, clock) as (first, _):
            until(lambda: first.held)
            http.state.node = True
            told: list[bool] = []
            second = Lease(http.credentials(), "n", "n_b", changed=told.append, clock=clock)
            second.start()
            until(lambda: second.holder == "n_a")
            assert first.close()
            assert not second.held
            clock.now += 2.0
            until(lambda: told == [True])
            assert second.close()
        assert http.state.lease is not None
        assert http.state.lease["spec"]["leaseTransitions"] == 1


def test_a_call_that_hangs_does_not_hide_that_the_time_is_over() -> None:
    clock = Clock()
    with served() as http, running(http, clock) as (lease, told):
        until(lambda: told == [True])
        http.gate.clear()
        clock.now += 10.0
        time.sleep(0.02)  # whether the call has begun does not matter
        assert lease.held
        clock.now += 5.0
        assert not lease.held
        until(lambda: told == [True, False])
        http.gate.set()
        until(lambda: lease.held)
        until(lambda: told == [True, False, True])


def test_closing_does_not_wait_for_a_server_that_hangs() -> None:
    clock = Clock()
    with served() as http, running(http, clock) as (lease, told):
        until(lambda: told == [True])
        http.gate.clear()
        before = time.monotonic()
        assert not lease.close(limit=0.05)
        assert time.monotonic() - before < 3.0
        assert told == [True, False]


def test_closing_what_was_never_started_is_nothing() -> None:
    with served() as http:
        assert Lease(http.credentials(), "n", "n_a").close()
        assert http.seen == []


async def test_a_blocked_event_loop_delays_nothing() -> None:
    clock = Clock()
    with served() as http:
        with running(http, clock, alive=LoopBeat(asyncio.get_running_loop())) as (lease, _):
            await lease.wait_for(True)
            # From here on the loop does not turn: these waits block its thread.
            for renewed in range(1, 5):
                clock.now += 10.0
                until(lambda renewed=renewed: http.count("PUT") == renewed)
            assert lease.held
            await lease.aclose()


async def test_a_dead_event_loop_is_left_to_others_and_may_come_back() -> None:
    clock, beat_clock = Clock(), Clock()
    beat = LoopBeat(asyncio.get_running_loop(), clock=beat_clock)
    with served() as http, running(http, clock, alive=beat) as (lease, told):
        await lease.wait_for(True)
        # The beat that nobody answers, since this thread is busy here.
        until(lambda: beat._asked is not None)
        beat_clock.now += 60.0
        clock.now += 10.0
        puts = http.count("PUT")
        clock.now += 5.0
        until(lambda: told == [True, False])
        assert http.count("PUT") == puts
        await lease.wait_for(False)
        await lease.wait_for(True)
        await lease.aclose()


def test_a_closed_loop_is_not_alive() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    clock = Clock()
    beat = LoopBeat(loop, clock=clock)
    assert not beat()
    clock.now += 61.0
    assert not beat()


async def test_who_waits_can_give_up() -> None:
    with served() as http:
        lease = Lease(http.credentials(), "n", "n_a")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lease.wait_for(True), 0.01)
        await lease.wait_for(False)
        assert lease._waiting == set()


def test_what_is_wrong_is_told_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    caplog.set_level(logging.WARNING)
    with served() as http:
        http.answers += [(403, b'{"message": "leases is forbidden"}')] * 3
        with running(http, clock) as (lease, _):
            until(lambda: lease.problem == "leases is forbidden")
            until(lambda: lease.held or clock.advance(0.1))
            assert lease.problem == ""
    assert [r.message for r in caplog.records if "forbidden" in r.message] == [
        "the lease of node n: leases is forbidden"
    ]
    assert "Bearer" not in caplog.text


def test_a_defect_does_not_end_the_heartbeat(caplog: pytest.LogCaptureFixture) -> None:
    clock, fail = Clock(), [True]

    def tls() -> None:
        if fail:
            raise ZeroDivisionError

    with served() as http:
        lease = Lease(http.credentials(tls=tls), "n", "n_a", clock=clock)
        lease.start()
        until(lambda: lease.problem == "an unexpected ZeroDivisionError")
        fail.clear()
        clock.now += 2.0
        until(lambda: lease.held)
        lease.close()
    assert "ZeroDivisionError" in caplog.text


def test_the_clock_goes_on() -> None:
    first = boottime()
    assert boottime() >= first >= time.monotonic() - 1.0


# The connection.


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


def test_it_keeps_one_connection_and_makes_a_new_one_where_it_was_closed(
    runner: asyncio.Runner,
) -> None:
    with served() as http:
        http.state.lease = {"metadata": {"uid": "u", "resourceVersion": "1"}}
        wire = Wire(http.credentials(), 4.0)
        for _ in range(3):
            assert wire.call(LOOK, runner)["metadata"]["uid"] == "u"
        assert http.accepted == 1
        # Without saying so: the next call finds the connection closed.
        http.close_after = True
        for _ in range(3):
            wire.call(LOOK, runner)
        assert http.accepted >= 3
        wire.close()


def test_a_refused_token_is_renewed_once(runner: asyncio.Runner) -> None:
    async def authorization(renew: bool) -> str:
        return "Bearer new" if renew else "Bearer old"

    with served() as http:
        http.state.lease = {}
        http.answers += [(401, b"{}")]
        wire = Wire(http.credentials(authorization=authorization, renewable=True), 4.0)
        wire.call(LOOK, runner)
        assert [one[2] for one in http.seen] == ["Bearer old", "Bearer new"]
        http.answers += [(401, b"{}"), (401, b'{"message": "no"}')]
        with pytest.raises(Unauthorized, match="no"):
            wire.call(LOOK, runner)
        wire.close()


@pytest.mark.parametrize(
    ("code", "body", "error"),
    [
        (404, b"{}", NotFound),
        (409, b"{}", Conflict),
        (422, b'{"message": "bad"}', Invalid),
        (429, b"{}", Throttled),
        (500, b"oops", Unavailable),
        (200, b"not JSON", Unavailable),
        (200, b"[1]", Unavailable),
    ],
)
def test_answers_become_errors(
    code: int, body: bytes, error: type[BridgeError], runner: asyncio.Runner
) -> None:
    with served() as http:
        http.answers.append((code, body))
        wire = Wire(http.credentials(), 4.0)
        with pytest.raises(error) as caught:
            wire.call(LOOK, runner)
        wire.close()
    if isinstance(caught.value, Throttled):
        assert caught.value.retry_after == 7.0


def test_an_answer_is_read_up_to_a_limit(
    runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking, "LARGEST", 10)
    with served() as http:
        http.answers.append((200, b'{"a": "' + b"x" * 100_000 + b'"}'))
        wire = Wire(http.credentials(), 4.0)
        with pytest.raises(Unavailable):
            wire.call(LOOK, runner)
        wire.close()


def test_a_server_that_hangs_or_is_not_there_is_unavailable(runner: asyncio.Runner) -> None:
    with served() as http:
        http.gate.clear()
        wire = Wire(http.credentials(), 0.05)
        with pytest.raises(Unavailable, match="in time"):
            wire.call(LOOK, runner)
        gone = http.credentials()
    with pytest.raises(Unavailable, match="refused"):
        Wire(gone, 4.0).call(LOOK, runner)


def contexts(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    pair = self_signed(name, (), ("127.0.0.1",))
    file = folder / "server.pem"
    file.write_bytes(pair.certificate + pair.key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=pair.certificate.decode())
    return server, client


def test_tls_by_another_name_and_a_replaced_context(tmp_path: Path, runner: asyncio.Runner) -> None:
    server, client = contexts(tmp_path, "api")
    _, other = contexts(tmp_path, "api")
    current = [client]
    with served(server) as http:
        http.state.lease = {}
        given: dict[str, Any] = {"tls": lambda: current[0]}
        plain = http.credentials(**given)
        address = plain.server.replace("http:", "https:")

        def credentials(**more: Any) -> Credentials:
            return Credentials(address, authorization=plain.authorization, **(given | more))

        wire = Wire(credentials(), 4.0)
        wire.call(LOOK, runner)
        wire.call(LOOK, runner)
        assert http.accepted == 1
        again = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        again.load_verify_locations(cadata=(tmp_path / "server.pem").read_text())
        current[0] = other
        with pytest.raises(Unauthorized, match="not to be trusted"):
            wire.call(LOOK, runner)
        current[0] = client
        for name, good in (("api", True), ("elsewhere", False)):
            named = Wire(credentials(server_name=name), 4.0)
            if good:
                named.call(LOOK, runner)
            else:
                with pytest.raises(Unauthorized):
                    named.call(LOOK, runner)
            named.close()
        wire.close()


def test_through_a_proxy(tmp_path: Path, runner: asyncio.Runner) -> None:
    seen: list[bytes] = []

    class Proxy(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_CONNECT(self) -> None:
            seen.append(f"{self.path} {self.headers['Proxy-Authorization']}".encode())
            self.send_error(403)

    server = Quiet(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with served() as http:
            proxy = f"http://me:p%40ss@127.0.0.1:{server.server_address[1]}"
            wire = Wire(http.credentials(proxy=proxy), 4.0)
            with pytest.raises(Unavailable):
                wire.call(LOOK, runner)
            assert seen == [f"127.0.0.1:{http.port} Basic bWU6cEBzcw==".encode()]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
