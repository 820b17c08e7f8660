"""The contract over real gRPC: sockets, TLS, skew, health, reflection, errors."""

from __future__ import annotations

import asyncio
import datetime
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.paper import Cloud, PaperAdapter

from bridge.addresses import is_local
from bridge.errors import Invalid, NotFound, Unavailable, Unsupported
from bridge.provider.backend import Backend
from bridge.provider.server import SERVICE, Server
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker
from bridge.rpc import channel
from bridge.rpc.channel import Tls
from bridge.rpc.client import RemoteProvider
from bridge.rpc.v1 import pod_pb2, provider_pb2_grpc
from bridge.rpc.v1 import provider_pb2 as pb

CLUSTER = str(uuid.uuid4())


def asked(name: str = "one", **spec: object) -> pb.CreatePodRequest:
    uid = str(uuid.uuid4())
    who = pod_pb2.PodIdentity(cluster=CLUSTER, node="n", namespace="d", name=name, uid=uid)
    containers = [{"name": "c", "image": "i"}]
    podspec = {"containers": containers, "restartPolicy": "Never", **spec}
    manifest = {"metadata": {"name": name}, "spec": podspec}
    return pb.CreatePodRequest(pod=who, manifest=json.dumps(manifest).encode())


@asynccontextmanager
async def serving(address: str, tls: Tls | None = None) -> AsyncIterator[Server]:
    cloud = Cloud(time.time, {("c", 0): (0.05, 0)})
    provider = Provider(Tracker([Backend(PaperAdapter(cloud), {"pods": 5})]))
    server = Server(provider, address, tls)
    running = asyncio.create_task(provider.run())
    try:
        await server.start()
        yield server
    finally:
        await server.stop(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def connected(address: str, tls: Tls | None = None) -> AsyncIterator[RemoteProvider]:
    remote = RemoteProvider(address, tls)
    try:
        yield remote
    finally:
        await remote.close()


async def first_end(remote: RemoteProvider) -> pod_pb2.PodFacts:
    async for message in remote.watch_pods(pb.WatchPodsRequest(cluster=CLUSTER, node="n")):
        for event in message.events:
            if event.pod.stage == pod_pb2.POD_STAGE_ENDED:
                return event.pod
    raise AssertionError


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_a_pod_runs_over_the_wire(kind: str, tmp_path: Path) -> None:
    where = f"unix://{tmp_path}/s" if kind == "unix" else "127.0.0.1:0"
    async with serving(where) as server, connected(server.address) as remote:
        await remote.create_pod(asked())
        facts = await first_end(remote)
        assert facts.containers[0].terminated.exit_code == 0
        async for offer in remote.watch_node(pb.WatchNodeRequest(cluster=CLUSTER, node="n")):
            assert offer.capacity["pods"] == "5"
            assert offer.backends[0].name == "paper"
            break


async def test_errors_arrive_as_they_were_raised() -> None:
    async with serving("127.0.0.1:0") as server, connected(server.address) as remote:
        with pytest.raises(Unsupported) as refused:
            await remote.create_pod(asked(os={"name": "windows"}))
        assert refused.value.violations[0].field == "spec.os.name"
        with pytest.raises(Invalid) as wrong:
            await remote.create_pod(pb.CreatePodRequest())
        assert {one.field for one in wrong.value.violations} >= {"pod.name", "pod.node"}
        logs = pb.GetContainerLogsRequest(pod=asked().pod, container="c")
        with pytest.raises(NotFound):
            [piece async for piece in remote.get_container_logs(logs)]


async def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    async with connected(f"unix://{tmp_path}/nobody") as remote:
        with pytest.raises(Unavailable):
            await remote.create_pod(asked())


async def test_an_address_in_use_is_one_clear_error(tmp_path: Path) -> None:
    for where in (f"unix://{tmp_path}/s", "127.0.0.1:0"):
        async with serving(where) as server:
            with pytest.raises(Invalid, match="in use"):
                async with serving(server.address):
                    pass


async def test_a_socket_left_by_a_killed_provider_is_taken_over(tmp_path: Path) -> None:
    import socket

    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serving(f"unix://{path}") as server, connected(server.address) as remote:
        await remote.create_pod(asked())
        assert path.stat().st_mode & 0o777 == 0o600


async def test_plain_text_is_refused_off_this_host() -> None:
    for address in ("0.0.0.0:0", "10.1.2.3:9443", "example.com:1", "[::]:0"):
        with pytest.raises(Invalid, match="mutual TLS"):
            Server(Provider(Tracker([])), address)
        with pytest.raises(Invalid, match="mutual TLS"):
            RemoteProvider(address)
    assert is_local("[::1]:80")
    assert is_local("localhost:80")


def _certificate(
    name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(alternative, critical=False)
    )
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def _tls(authority: tuple[x509.Certificate, ec.EllipticCurvePrivateKey], name: str) -> Tls:
    certificate, key = _certificate(name, authority)
    pem = serialization.Encoding.PEM
    return Tls(
        authority[0].public_bytes(pem),
        certificate.public_bytes(pem),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


async def test_only_a_client_of_the_same_authority_gets_in() -> None:
    authority, other = _certificate("ca", None), _certificate("other", None)
    async with serving("localhost:0", _tls(authority, "server")) as server:
        async with connected(server.address, _tls(authority, "client")) as remote:
            await remote.create_pod(asked())
        stranger = _tls(other, "stranger")
        mixed = Tls(_tls(authority, "x").ca, stranger.cert, stranger.key)
        async with connected(server.address, mixed) as remote:
            with pytest.raises(Unavailable):
                await remote.create_pod(asked())


def test_keys_never_show() -> None:
    assert "PRIVATE" not in repr(_tls(_certificate("ca", None), "x"))


async def test_neighbouring_contracts_are_accepted_and_others_refused() -> None:
    async with serving("127.0.0.1:0") as server:
        async with grpc.aio.insecure_channel(server.address) as plain:
            stub = provider_pb2_grpc.ProviderStub(plain)
            for number in (channel.CONTRACT - 1, channel.CONTRACT, channel.CONTRACT + 1):
                metadata = ((channel.CONTRACT_KEY, str(number)),)
                await stub.CreatePod(asked(), metadata=metadata)
            await stub.CreatePod(asked())
            for number in ("7", "x"):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.CreatePod(asked(), metadata=((channel.CONTRACT_KEY, number),))
                assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
                assert "update the older side" in (refused.value.details() or "")


async def test_a_client_refuses_a_server_of_another_time() -> None:
    class Future(provider_pb2_grpc.ProviderServicer):
        async def CreatePod(self, request: object, context: grpc.aio.ServicerContext) -> object:
            context.set_trailing_metadata(((channel.CONTRACT_KEY, "9"),))
            return pb.CreatePodResponse()

    server = grpc.aio.server()
    provider_pb2_grpc.add_ProviderServicer_to_server(Future(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with connected(f"127.0.0.1:{port}") as remote:
        with pytest.raises(Invalid, match="contract '9'"):
            await remote.create_pod(asked())
    await server.stop(0)


async def test_health_and_reflection_answer() -> None:
    async with serving("127.0.0.1:0") as server:
        async with grpc.aio.insecure_channel(server.address) as plain:
            health = health_pb2_grpc.HealthStub(plain)
            for name in ("", SERVICE):
                answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            reflection = reflection_pb2_grpc.ServerReflectionStub(plain)
            question = reflection_pb2.ServerReflectionRequest(list_services="")
            call = reflection.ServerReflectionInfo(iter([question]))
            async for reply in call:
                names = {one.name for one in reply.list_services_response.service}
                assert SERVICE in names
                break


async def test_calls_of_a_later_contract_say_that_they_are_not_served() -> None:
    async with serving("127.0.0.1:0") as server:
        async with grpc.aio.insecure_channel(server.address) as plain:
            later = plain.unary_unary(f"/{SERVICE}/Later")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await later(b"")
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
