"""The service itself: health, reflection, the contract's number, the node's offer."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from bridge.conformance.kit import Kit
from bridge.conformance.model import Broken, Skipped, expect
from bridge.conformance.pods import new_uid
from bridge.conformance.register import check
from bridge.conformance.wire import refusal
from bridge.quantity import parse
from bridge.rpc import channel
from bridge.rpc.v1 import provider_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["Provider"].full_name


def _ack() -> pb.AckPodsRequest:
    """A call that changes nothing."""
    return pb.AckPodsRequest(cluster=new_uid(), epoch="none")


@check(
    "service.health",
    "says that it serves, by gRPC's health protocol",
    section="Transport",
    rule='Health is SERVING for "" and for bridge.rpc.v1.Provider.',
)
async def health(kit: Kit) -> None:
    """Asks for both names."""
    stub = health_pb2_grpc.HealthStub(kit.wire.channel)
    for name in ("", SERVICE):
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        except grpc.RpcError as error:
            raise Broken(f'SERVING for "{name}"', str(refusal(error))) from None
        told = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        expect(told == "SERVING", f'SERVING for "{name}"', told)


@check(
    "service.reflection",
    "lists its service by gRPC's reflection",
    section="Transport",
    rule="Reflection lists bridge.rpc.v1.Provider.",
    needs="reflection",
)
async def reflection(kit: Kit) -> None:
    """Asks for the list of services."""
    stub = reflection_pb2_grpc.ServerReflectionStub(kit.wire.channel)
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    call = stub.ServerReflectionInfo(iter([question]))
    try:
        reply = await call.read()
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            raise Skipped("reflection is not served") from None
        raise Broken("a list of services", str(refusal(error))) from None
    finally:
        call.cancel()
    names = {one.name for one in reply.list_services_response.service}
    expect(SERVICE in names, SERVICE, ", ".join(sorted(names)) or "an empty list")


@check(
    "service.contract-number",
    "tells the number of its contract with every answer",
    section="Transport",
    rule="A unary answer carries podbridge-contract in its trailing metadata, a stream in its"
    " initial metadata.",
)
async def contract_number(kit: Kit) -> None:
    """Looks at the metadata of one call of each kind."""
    call = kit.wire.stub.AckPods(_ack(), metadata=channel.CONTRACT_METADATA)
    await call
    _numbered(await call.trailing_metadata(), "the trailing metadata of AckPods")
    request = pb.WatchNodeRequest(cluster=kit.cluster, node=kit.node)
    stream = kit.wire.stub.WatchNode(request, metadata=channel.CONTRACT_METADATA)
    try:
        with kit.waiting("the initial metadata of WatchNode"):
            _numbered(await stream.initial_metadata(), "the initial metadata of WatchNode")
    finally:
        stream.cancel()


def _numbered(metadata: Any, where: str) -> None:
    told = dict(metadata or ()).get(channel.CONTRACT_KEY)
    expect(told is not None, f"{channel.CONTRACT_KEY} in {where}", "none")
    text = told.decode() if isinstance(told, bytes) else str(told)
    expect(not channel.contract_problem(text), f"{channel.CONTRACT} in {where}", text)


@check(
    "service.neighbours",
    "accepts the contract's neighbours and refuses others",
    section="Transport",
    rule="Both sides accept a number that is one older or newer, and none at all; any other is"
    " refused as Invalid.",
)
async def neighbours(kit: Kit) -> None:
    """Calls with each number."""
    for number in (channel.CONTRACT - 1, channel.CONTRACT, channel.CONTRACT + 1, None):
        metadata = () if number is None else ((channel.CONTRACT_KEY, str(number)),)
        try:
            await kit.wire.stub.AckPods(_ack(), metadata=metadata)
        except grpc.RpcError as error:
            raise Broken(f"contract {number} is accepted", str(refusal(error))) from None
    for text in (str(channel.CONTRACT + 6), "x"):
        try:
            await kit.wire.stub.AckPods(_ack(), metadata=((channel.CONTRACT_KEY, text),))
        except grpc.RpcError as error:
            code = error.code().name
            expect(code == "INVALID_ARGUMENT", f"contract {text}: INVALID_ARGUMENT", code)
        else:
            raise Broken(f"contract {text} is refused", "it was accepted")


@check(
    "service.offer",
    "tells the whole offer of the node at once",
    section="WatchNode",
    rule="The first message of WatchNode is the whole offer: quantities, and backends with name and"
    " type.",
)
async def offer(kit: Kit) -> None:
    """Reads the first message, and sees that the stream goes on."""
    request = pb.WatchNodeRequest(cluster=kit.cluster, node=kit.node)
    call = kit.wire.stub.WatchNode(request, metadata=channel.CONTRACT_METADATA)
    try:
        with kit.waiting("the first message of WatchNode"):
            told = await call.read()
        expect(isinstance(told, pb.WatchNodeResponse), "a message", "the end of the stream")
        _whole(told)
        try:
            async with asyncio.timeout(0.3):
                ended = not isinstance(await call.read(), pb.WatchNodeResponse)
        except TimeoutError:
            ended = False
        expect(not ended, "WatchNode never ends by itself", "its end")
    finally:
        call.cancel()


def _whole(told: pb.WatchNodeResponse) -> None:
    expect(told.backends, "at least one backend", "none")
    names = [one.name for one in told.backends]
    expect(len(set(names)) == len(names), "names that differ", ", ".join(names))
    amounts = [(told.capacity, "capacity"), (told.allocatable, "allocatable")]
    for one in told.backends:
        expect(one.name and one.type, "a name and a type of each backend", one)
        amounts.append((one.capacity, f"backends {one.name} capacity"))
    for found, where in amounts:
        for name, amount in found.items():
            try:
                parse(amount)
            except ValueError:
                raise Broken("Kubernetes quantities", f"{where}: {name}: {amount!r}") from None
