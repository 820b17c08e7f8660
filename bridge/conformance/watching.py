"""One WatchPods, read to the end of the check and kept whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from bridge.conformance.model import Broken
from bridge.conformance.wire import Wire, refusal
from bridge.rpc import channel
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb

if TYPE_CHECKING:
    from bridge.conformance.kit import Kit

T = TypeVar("T")


class Watch:
    """Everything that one WatchPods has told so far, in order."""

    def __init__(self, wire: Wire, request: pb.WatchPodsRequest, kit: Kit) -> None:
        self._kit = kit
        self.epoch = ""
        self.events: list[pb.WatchPodsEvent] = []
        self.empty = 0
        """Messages without any event."""
        self.failure = ""
        """Why the stream has ended."""
        self.changed = asyncio.Event()
        """Set at the next message; another one then takes its place."""
        self._newest: dict[str, pb.WatchPodsEvent] = {}
        self._call = wire.stub.WatchPods(request, metadata=channel.CONTRACT_METADATA)
        self._reading = asyncio.create_task(self._read(), name="watch pods")

    def newest(self, uid: str) -> pb.WatchPodsEvent | None:
        """The last event of that pod since the last snapshot began."""
        return self._newest.get(uid)

    def facts(self, uid: str) -> pod_pb2.PodFacts | None:
        """The last facts of that pod."""
        event = self._newest.get(uid)
        return event.pod if event is not None else None

    def of(self, uid: str) -> list[pod_pb2.PodFacts]:
        """All facts of that pod, in order."""
        return [one.pod for one in self.events if one.pod.pod.uid == uid]

    @property
    def backends(self) -> list[str] | None:
        """The backends that the snapshot names; None before it began."""
        for one in self.events:
            if one.WhichOneof("event") == "snapshot_started":
                return list(one.snapshot_started.backends)
        return None

    @property
    def synced(self) -> bool:
        """Whether every mark that the snapshot promises has come."""
        marks = {one.synced.backend for one in self.events if one.HasField("synced")}
        return self.backends is not None and marks >= set(self.backends)

    @property
    def revision(self) -> int:
        """That of the last event."""
        return self.events[-1].revision if self.events else 0

    async def until(self, found: Callable[[], T | None], expected: str) -> T:
        """What `found` gives, once it gives something. Broken where the stream ends before."""
        with self._kit.waiting(expected):
            while True:
                changed = self.changed
                if (value := found()) is not None and value is not False:
                    return value
                if self.failure:
                    raise Broken(expected, self.failure)
                await changed.wait()

    async def snapshot(self) -> None:
        """Returns once the snapshot is whole, or, for a provider that does not say when it is,
        after some seconds: its marks are judged by a check of their own."""
        await self.until(lambda: self.backends is not None, "a snapshot begins")
        await self._for(self._kit.settings.timeout / 6, lambda: self.synced)

    async def quiet(self, seconds: float) -> None:
        """Lets the provider tell for that long what it has to tell."""
        await self._for(seconds, lambda: False)

    async def _for(self, seconds: float, true: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not true() and not self.failure and (left := end - loop.time()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.changed.wait()

    async def close(self) -> None:
        """Ends the stream."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async for message in self._call:
                self._take(message)
            self.failure = "WatchPods ended by itself"
        except grpc.RpcError as error:
            self.failure = f"WatchPods failed: {refusal(error)}"
        finally:
            self._call.cancel()
            self.changed.set()

    def _take(self, message: Any) -> None:
        self.epoch = message.epoch
        self.empty += not message.events
        for event in message.events:
            self.events.append(event)
            kind = event.WhichOneof("event")
            if kind == "snapshot_started":
                self._newest.clear()
            elif kind == "pod":
                self._newest[event.pod.pod.uid] = event
        self.changed.set()
        self.changed = asyncio.Event()
