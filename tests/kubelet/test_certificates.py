"""Certificates: what is asked for, what is kept, who waits for whom; with a CA of our own."""

from __future__ import annotations

import asyncio
import base64
import datetime
import itertools
import json
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.virtual import EPOCH, run
from support.virtual import clock as virtual_clock

from bridge.config.values import SecretRef
from bridge.errors import BridgeError, Invalid, NotFound, Throttled, Unauthorized, Unavailable
from bridge.kubelet.certificates import (
    CLIENT_SIGNER,
    SERVING_SIGNER,
    Pair,
    Store,
    Wanted,
    check_life,
    client,
    new_key,
    pair_of,
    self_signed,
    serving,
    signing_request,
)
from bridge.kubelet.client import AlreadyExists
from bridge.kubelet.rotation import PATH, CertificateKeeper, obtain, rotation
from bridge.kubelet.serving import serving_pair
from bridge.tls import show

DAY = 86400.0


class Authority:
    """A CA that signs what it is shown."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-ca")])
        self.certificate = self._build(self.name, self.key.public_key(), -DAY, 3650 * DAY, ca=True)

    def _build(
        self, name: Any, public: Any, start: float, end: float, *, ca: bool = False, san: Any = None
    ) -> x509.Certificate:
        def moment(offset: float) -> datetime.datetime:
            return datetime.datetime.fromtimestamp(offset, datetime.UTC)

        base = datetime.datetime.now(datetime.UTC).timestamp() if ca else 0.0
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment(base + start))
            .not_valid_after(moment(base + end))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), True)
        )
        if san is not None:
            builder = builder.add_extension(san, False)
        return builder.sign(self.key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, csr: x509.CertificateSigningRequest, start: float, life: float) -> bytes:
        san = None
        for one in csr.extensions:
            if isinstance(one.value, x509.SubjectAlternativeName):
                san = one.value
        made = self._build(csr.subject, csr.public_key(), start, start + life, san=san)
        return made.public_bytes(serialization.Encoding.PEM) + self.pem

    def pair(
        self, node: str, start: float, life: float = DAY, wanted: Wanted | None = None
    ) -> Pair:
        key = new_key()
        csr = csr_of(signing_request(wanted or Wanted(CLIENT_SIGNER, node), key))
        return pair_of(self.sign(csr, start, life), key, "a test")


AUTHORITY = Authority()


def csr_of(request: dict[str, Any]) -> x509.CertificateSigningRequest:
    return x509.load_pem_x509_csr(base64.b64decode(request["spec"]["request"]))


class FakeCluster:
    """CertificateSigningRequests, approved after a while or never."""

    def __init__(self, approves_after: float | None = 0.0, life: float = DAY) -> None:
        self.approves_after, self.life = approves_after, life
        self.requests: dict[str, dict[str, Any]] = {}
        self.made_at: dict[str, float] = {}
        self.errors: list[BridgeError] = []
        self.posts = 0
        self.lose_answers = False
        self.verdict = "Approved"
        self.authority = AUTHORITY

    async def get(self, path: str) -> dict[str, Any]:
        if self.errors:
            raise self.errors.pop(0)
        name = path.removeprefix(f"{PATH}/")
        if name not in self.requests:
            raise NotFound(f"no request {name}")
        self._decide(name)
        return json.loads(json.dumps(self.requests[name]))  # type: ignore[no-any-return]

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.errors:
            raise self.errors.pop(0)
        assert path == PATH
        name = body["metadata"]["name"]
        if name in self.requests:
            raise AlreadyExists(name)
        self.posts += 1
        self.requests[name] = json.loads(json.dumps(body))
        self.made_at[name] = asyncio.get_running_loop().time()
        if self.lose_answers:
            self.lose_answers = False
            raise Unavailable("lost")
        return await self.get(f"{PATH}/{name}")

    def _decide(self, name: str) -> None:
        age = asyncio.get_running_loop().time() - self.made_at[name]
        if self.approves_after is None or age < self.approves_after:
            return
        request = self.requests[name]
        if "status" in request:
            return
        request["status"] = {
            "conditions": [{"type": self.verdict, "status": "True", "message": "because"}]
        }
        if self.verdict == "Approved":
            signed = self.authority.sign(csr_of(request), virtual_clock() - 60.0, self.life)
            request["status"]["certificate"] = base64.b64encode(signed).decode()


# What is asked for.


def test_the_request_for_a_client_certificate() -> None:
    key = new_key()
    request = signing_request(client("n"), key)
    assert request["spec"]["signerName"] == "kubernetes.io/kube-apiserver-client-kubelet"
    assert request["spec"]["usages"] == ["digital signature", "client auth"]
    csr = csr_of(request)
    assert csr.is_signature_valid
    assert csr.subject.rfc4514_string() == "CN=system:node:n,O=system:nodes"
    assert list(csr.extensions) == []
    # The same request after a restart; another one for another key.
    assert signing_request(client("n"), key)["metadata"] == request["metadata"]
    assert signing_request(client("n"), new_key())["metadata"] != request["metadata"]


def test_the_request_for_a_serving_certificate() -> None:
    wanted = serving("n", ("n", "n.example.com"), ("10.0.0.7", "2001:DB8::1"))
    request = signing_request(wanted, new_key())
    assert request["spec"]["signerName"] == SERVING_SIGNER == "kubernetes.io/kubelet-serving"
    assert request["spec"]["usages"] == ["digital signature", "server auth"]
    names = csr_of(request).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n", "n.example.com"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == [
        "10.0.0.7",
        "2001:db8::1",
    ]


def test_a_name_too_long_for_a_certificate() -> None:
    client("n" * 52)
    with pytest.raises(Invalid, match=r"nodes\.name: found 53 characters"):
        client("n" * 53)


# What is kept.


def test_a_pair_is_what_it_says() -> None:
    pair = AUTHORITY.pair("n", EPOCH)
    assert (pair.name, pair.organizations) == ("system:node:n", ("system:nodes",))
    assert (pair.not_before, pair.not_after) == (EPOCH, EPOCH + DAY)
    assert pair.certificate.count(b"BEGIN CERTIFICATE") == 2
    assert b"PRIVATE" not in repr(pair).encode()
    assert client("n").lacking(pair) == ""
    assert "is for system:node:n, not for system:node:m" in client("m").lacking(pair)
    assert serving("n", ("x",), ()).lacking(pair) == "is not for x"


def test_what_is_no_pair_is_told_without_the_key() -> None:
    one, other = AUTHORITY.pair("n", EPOCH), AUTHORITY.pair("n", EPOCH)
    for certificate, key, words in (
        (b"nothing", one.key, "no certificate in PEM"),
        (one.certificate, b"secret nothing", "no key in PEM"),
        (one.certificate, other.key, "do not belong together"),
    ):
        with pytest.raises(Invalid) as caught:
            pair_of(certificate, key, "a.pem")
        assert words in str(caught.value)
        assert "a.pem" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "PRIVATE" not in str(caught.value)


def test_a_pair_that_is_over_or_has_not_begun() -> None:
    pair = AUTHORITY.pair("n", EPOCH)
    check_life(pair, "a.pem", EPOCH + 1)
    with pytest.raises(Invalid, match=r"a\.pem: the certificate expired at 2027-01-16T08:00:00Z"):
        check_life(pair, "a.pem", EPOCH + DAY)
    with pytest.raises(Invalid, match="is the clock right"):
        check_life(pair, "a.pem", EPOCH - 1)


def test_the_store_keeps_it_for_its_owner_only(tmp_path: Path) -> None:
    store = Store(tmp_path / "state" / "n", "client")
    assert store.load() is None
    pending = store.pending()
    assert store.pending() == pending
    for path in (tmp_path / "state" / "n").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    pair = AUTHORITY.pair("n", EPOCH)
    store.save(pair)
    assert store.load() == pair
    assert [one.name for one in (tmp_path / "state" / "n").iterdir()] == ["client.pem"]
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    assert store.pending() != pending


def test_a_store_that_holds_something_else(tmp_path: Path) -> None:
    store = Store(tmp_path, "client")
    store.path.write_text("something else")
    with pytest.raises(Invalid, match=r"client\.pem: holds no certificate"):
        store.load()
    (tmp_path / "client.pending.key").write_text("something else")
    assert b"PRIVATE KEY" in store.pending()
    (tmp_path / "file").touch()
    with pytest.raises(Invalid, match="cannot be written"):
        Store(tmp_path / "file", "client").save(AUTHORITY.pair("n", EPOCH))


async def test_a_self_signed_one_serves() -> None:
    pair = self_signed("n", ("n.example.com",), ("127.0.0.1",))
    assert pair.hosts == {"n", "n.example.com", "127.0.0.1"}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    show(context, pair.certificate, pair.key)
    server = await asyncio.start_server(
        lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        trusting = ssl.create_default_context(cadata=pair.certificate.decode())
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


def test_serving_files_from_the_configuration(tmp_path: Path) -> None:
    pair = AUTHORITY.pair("n", EPOCH, wanted=serving("n", ("n",), ()))
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    cert.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    found = serving_pair(cert, SecretRef("file", str(key)), {}, EPOCH)
    assert found == pair
    with pytest.raises(Invalid, match="expired"):
        serving_pair(cert, SecretRef("env", "KEY"), {"KEY": pair.key.decode()}, EPOCH + 2 * DAY)
    with pytest.raises(Invalid, match="No such file"):
        serving_pair(tmp_path / "none.pem", SecretRef("file", str(key)), {}, EPOCH)


def test_serving_key_from_a_variable_is_never_shown(tmp_path: Path) -> None:
    pair = AUTHORITY.pair("n", EPOCH, wanted=serving("n", ("n",), ()))
    (tmp_path / "c.pem").write_bytes(pair.certificate)
    with pytest.raises(Invalid) as caught:
        serving_pair(tmp_path / "c.pem", SecretRef("env", "KEY"), {"KEY": "hush"}, EPOCH)
    assert "hush" not in str(caught.value)


# How it is obtained.


def test_it_is_obtained_at_once_where_somebody_approves(tmp_path: Path) -> None:
    store, told = Store(tmp_path, "client"), list[str]()

    async def scene() -> None:
        cluster = FakeCluster(approves_after=3.0)
        pair = await obtain(
            cluster, store, client("n"), announce=lambda *e: told.append(e[1]), clock=virtual_clock
        )
        assert store.load() == pair
        assert cluster.posts == 1
        assert asyncio.get_running_loop().time() < 8.0

    run(scene())
    assert told == []


def test_it_waits_and_says_which_command_approves(tmp_path: Path) -> None:
    events: list[tuple[str, str, str]] = []

    async def scene() -> None:
        cluster = FakeCluster(approves_after=3600.0)
        await obtain(
            cluster,
            Store(tmp_path, "serving"),
            serving("n", ("n",), ()),
            announce=lambda *event: events.append(event),
            clock=virtual_clock,
        )
        assert asyncio.get_running_loop().time() < 3600 + 20

    run(scene())
    [(kind, reason, message)] = events
    assert (kind, reason) == ("Warning", "CertificateApprovalPending")
    assert "kubectl certificate approve podbridge-serving-" in message


def test_a_restart_and_a_lost_answer_find_the_same_request(tmp_path: Path) -> None:
    async def scene() -> None:
        cluster = FakeCluster(approves_after=100.0)
        cluster.lose_answers = True
        for _ in range(2):
            waiting = asyncio.ensure_future(
                obtain(cluster, Store(tmp_path, "client"), client("n"), clock=virtual_clock)
            )
            await asyncio.sleep(30)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await obtain(cluster, Store(tmp_path, "client"), client("n"), clock=virtual_clock)
        assert cluster.posts == 1

    run(scene())


def test_an_api_server_that_is_away_is_waited_for(tmp_path: Path) -> None:
    async def scene() -> None:
        cluster = FakeCluster()
        cluster.errors += [Unavailable("away"), Throttled("slowly", retry_after=40.0)]
        await obtain(cluster, Store(tmp_path, "client"), client("n"), clock=virtual_clock)
        assert asyncio.get_running_loop().time() >= 40.0

    run(scene())


@pytest.mark.parametrize("verdict", ["Denied", "Failed"])
def test_a_refusal_is_told_and_the_next_request_is_another(tmp_path: Path, verdict: str) -> None:
    async def scene() -> None:
        cluster = FakeCluster()
        cluster.verdict = verdict
        store = Store(tmp_path, "client")
        with pytest.raises(Unauthorized, match=f"was {verdict.lower()}: because"):
            await obtain(cluster, store, client("n"), clock=virtual_clock)
        cluster.verdict = "Approved"
        await obtain(cluster, store, client("n"), clock=virtual_clock)
        assert cluster.posts == 2

    run(scene())


def test_a_bootstrap_token_that_is_over(tmp_path: Path) -> None:
    async def scene() -> None:
        cluster = FakeCluster()
        cluster.errors.append(Unauthorized("expired"))
        with pytest.raises(Unauthorized, match="expired"):
            await obtain(cluster, Store(tmp_path, "client"), client("n"), clock=virtual_clock)

    run(scene())


@pytest.mark.parametrize(
    ("signed", "words"),
    [
        (lambda: b"!", "is not base64"),
        (lambda: base64.b64encode(b"nothing"), "is of no use"),
        (lambda: base64.b64encode(AUTHORITY.pair("n", EPOCH).certificate), "do not belong"),
    ],
)
def test_what_was_signed_is_looked_at(
    tmp_path: Path, signed: Callable[[], bytes], words: str
) -> None:
    async def scene() -> None:
        cluster = FakeCluster(approves_after=None)
        store = Store(tmp_path, "client")
        waiting = asyncio.ensure_future(obtain(cluster, store, client("n"), clock=virtual_clock))
        await asyncio.sleep(1)
        [request] = cluster.requests.values()
        request["status"] = {"certificate": signed().decode()}
        with pytest.raises(Unauthorized, match=words):
            await waiting
        assert store.load() is None

    run(scene())


def test_another_subject_or_an_old_one_will_not_do(tmp_path: Path) -> None:
    async def signed(csr_for: str, start: float) -> None:
        cluster = FakeCluster(approves_after=None)
        store = Store(tmp_path, "client")
        waiting = asyncio.ensure_future(obtain(cluster, store, client("n"), clock=virtual_clock))
        await asyncio.sleep(1)
        [request] = cluster.requests.values()
        other = csr_of(signing_request(client(csr_for), store.pending()))
        certificate = AUTHORITY.sign(other, start, DAY)
        request["status"] = {"certificate": base64.b64encode(certificate).decode()}
        await waiting

    with pytest.raises(Unauthorized, match="is for system:node:m"):
        run(signed("m", EPOCH))
    with pytest.raises(Unauthorized, match="expired at 2027-01-06"):
        run(signed("n", EPOCH - 10 * DAY))


# How it is replaced.


def test_it_is_replaced_between_70_and_90_percent_of_its_life() -> None:
    pair = AUTHORITY.pair("n", EPOCH, 1000.0)
    assert rotation(pair, 0.0) == EPOCH + 700
    assert rotation(pair, 1.0) == EPOCH + 900


def keeper(
    cluster: FakeCluster, store: Store, told: list[Any], wanted: Wanted | None = None
) -> CertificateKeeper:
    return CertificateKeeper(
        cluster,
        store,
        wanted or client("n"),
        renewed=lambda pair: told.append((asyncio.get_running_loop().time(), pair)),
        announce=lambda *event: told.append(event),
        clock=virtual_clock,
        jitter=lambda: 0.5,
    )


def play(scene: Callable[[], Any]) -> None:
    run(scene(), limit=1e8)


def test_the_keeper_gets_one_and_replaces_it(tmp_path: Path) -> None:
    told: list[Any] = []

    async def scene() -> None:
        cluster, store = FakeCluster(), Store(tmp_path, "client")
        task = asyncio.ensure_future(keeper(cluster, store, told).run())
        await asyncio.sleep(3 * DAY)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    play(scene)
    times = [round(at) for at, _ in told]
    assert times[0] == 0
    # At 80 % of a day's life that began a minute before.
    assert [later - before for before, later in itertools.pairwise(times)] == [69060] * 3


def test_the_keeper_uses_what_is_there(tmp_path: Path) -> None:
    told: list[Any] = []

    async def scene() -> None:
        cluster, store = FakeCluster(), Store(tmp_path, "client")
        pair = AUTHORITY.pair("n", EPOCH - 0.5 * DAY)
        store.save(pair)
        task = asyncio.ensure_future(keeper(cluster, store, told).run())
        await asyncio.sleep(0.2 * DAY)
        assert told == [(0.0, pair)]
        await asyncio.sleep(0.2 * DAY)
        assert len(told) == 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    play(scene)


@pytest.mark.parametrize("what", ["expired", "another's", "broken", "other hosts"])
def test_the_keeper_does_not_use_what_will_not_do(tmp_path: Path, what: str) -> None:
    told: list[Any] = []

    async def scene() -> None:
        cluster, store = FakeCluster(), Store(tmp_path, "serving")
        if what == "expired":
            store.save(AUTHORITY.pair("n", EPOCH - 2 * DAY))
        elif what == "another's":
            store.save(AUTHORITY.pair("m", EPOCH))
        elif what == "broken":
            store.path.write_text("nothing")
        else:
            old = serving("n", ("n",), ("10.0.0.1",))
            store.save(AUTHORITY.pair("n", EPOCH, wanted=old))
        new = serving("n", ("n",), ("10.0.0.2",))
        kept = keeper(cluster, store, told, new)
        task = asyncio.ensure_future(kept.run())
        await asyncio.sleep(10)
        assert kept.pair is not None
        assert new.lacking(kept.pair) == ""
        assert len(told) == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    play(scene)


def test_what_is_in_use_stays_while_the_next_one_waits_and_then_it_is_over(tmp_path: Path) -> None:
    told: list[Any] = []

    async def scene() -> None:
        cluster, store = FakeCluster(), Store(tmp_path, "serving")
        kept = keeper(cluster, store, told, serving("n", ("n",), ()))
        task = asyncio.ensure_future(kept.run())
        await asyncio.sleep(10)
        first = kept.pair
        assert first is not None
        cluster.approves_after = None
        await asyncio.sleep(0.95 * DAY)
        assert kept.pair == first
        assert kept.problem == ""
        assert [one[1] for one in told if isinstance(one[0], str)] == ["CertificateApprovalPending"]
        await asyncio.sleep(0.1 * DAY)
        assert kept.pair is None
        assert kept.problem == "the certificate has expired"
        cluster.approves_after = 0.0
        await asyncio.sleep(60)
        assert kept.pair is not None
        assert kept.problem == ""
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    play(scene)


def test_a_refusal_does_not_end_the_keeper(tmp_path: Path) -> None:
    told: list[Any] = []

    async def scene() -> None:
        cluster, store = FakeCluster(), Store(tmp_path, "client")
        cluster.verdict = "Denied"
        kept = keeper(cluster, store, told)
        task = asyncio.ensure_future(kept.run())
        await asyncio.sleep(100)
        assert "denied" in kept.problem
        assert cluster.posts <= 6
        cluster.verdict = "Approved"
        await asyncio.sleep(400)
        assert kept.pair is not None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    play(scene)
    assert ("Warning", "CertificateRequestFailed") in [one[:2] for one in told]


@pytest.mark.slow
def test_nothing_imports_the_slow_package_before_it_is_needed() -> None:
    import subprocess
    import sys

    code = (
        "import sys, bridge.kubelet.identity, bridge.kubelet.serving, bridge.kubelet.lease\n"
        "assert 'cryptography' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
