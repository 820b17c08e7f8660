"""The contract's calls as they are on the wire: raw answers, statuses and metadata."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from bridge.errors import Unavailable
from bridge.rpc import channel
from bridge.rpc.status import DOMAIN, from_rpc_error
from bridge.rpc.v1 import provider_pb2_grpc

FIRST_ANSWER = 10.0
"""Seconds that an address may take to answer at all."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A failed call's status, taken apart. `kind`: ErrorInfo's reason in our domain."""

    code: str
    kind: str
    message: str
    fields: tuple[str, ...]
    text: str
    """All of it, for a search."""

    def __str__(self) -> str:
        named = f", fields {', '.join(self.fields)}" if self.fields else ", no fields"
        return f"{self.code}, kind {self.kind or 'not told'}{named}"


class Wire:
    """Two connections to one provider: one for unary calls and watches, one for bytes."""

    def __init__(self, address: str, tls: channel.Tls | None = None) -> None:
        channel.require_tls(address, tls)
        self.address = address
        self._tls = tls
        self.channel = self._open()
        self._bytes = self._open()
        stub: Any = provider_pb2_grpc.ProviderStub
        self.stub: Any = stub(self.channel)
        self.bytes_stub: Any = stub(self._bytes)

    def _open(self) -> Any:
        options = [*channel.CLIENT_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        if self._tls is None:
            return grpc.aio.insecure_channel(self.address, options=options)
        credentials = channel.client_credentials(self._tls)
        return grpc.aio.secure_channel(self.address, credentials, options=options)

    async def reach(self, within: float = FIRST_ANSWER, *, patient: bool = False) -> None:
        """Returns once somebody answers there. Unavailable: nobody does; `patient` tries on."""
        state = self.channel.get_state(try_to_connect=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while state is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE and not patient:
                        break
                    await self.channel.wait_for_state_change(state)
                    state = self.channel.get_state(try_to_connect=True)
        if state is not grpc.ChannelConnectivity.READY:
            raise Unavailable(f"the provider at {self.address} does not answer")

    async def close(self) -> None:
        """Ends both connections."""
        await self.channel.close()
        await self._bytes.close()

    async def unary(self, name: str, request: Any) -> Any:
        """The answer of a unary call. Errors of `bridge.errors`."""
        try:
            return await getattr(self.stub, name)(
                request, timeout=channel.UNARY_DEADLINE, metadata=channel.CONTRACT_METADATA
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    async def refused(self, name: str, request: Any) -> Refusal | None:
        """How a unary call was refused; None where it was not."""
        try:
            await getattr(self.stub, name)(
                request, timeout=channel.UNARY_DEADLINE, metadata=channel.CONTRACT_METADATA
            )
        except grpc.RpcError as error:
            return refusal(error)
        return None

    async def stream(self, name: str, request: Any) -> AsyncIterator[Any]:
        """The messages of a stream of bytes. Errors of `bridge.errors`."""
        call = getattr(self.bytes_stub, name)(request, metadata=channel.CONTRACT_METADATA)
        try:
            async for message in call:
                yield message
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()


def refusal(error: grpc.RpcError) -> Refusal:
    """A failed call's status, taken apart."""
    status = rpc_status.from_call(error)
    if status is None:
        status = status_pb2.Status(code=error.code().value[0], message=error.details() or "")
    kind, fields = "", []
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info) and info.domain == DOMAIN:
            kind = info.reason
        elif detail.Unpack(bad):
            fields += [one.field for one in bad.field_violations]
    raw = status.SerializeToString().decode(errors="replace")
    trailing = " ".join(f"{key}={value!r}" for key, value in error.trailing_metadata() or ())
    return Refusal(
        error.code().name, kind, status.message, tuple(fields), f"{raw} {status} {trailing}"
    )
