"""A client of byte streams that says and hears single messages, and the stories that it is in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any

from support import virtual
from support.paper import PaperAdapter
from support.pipes import WIRE, Hand, PipesAdapter

from bridge.provider.backend import Backend
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker
from bridge.rpc.v1 import stream_pb2 as st


class Client:
    """Says what its test wants said, and keeps what it hears."""

    def __init__(self, call: Callable[[AsyncIterator[Any]], AsyncGenerator[Any, None]]) -> None:
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        self.heard: list[Any] = []
        self._news = asyncio.Event()
        self._responses = call(self._say())
        self._listening = asyncio.create_task(self._listen())

    def says(self, *requests: Any) -> None:
        for request in requests:
            self._requests.put_nowait(request)

    def half_closes(self) -> None:
        self._requests.put_nowait(None)

    def sent(self) -> bool:
        """Whether the provider has taken all that was said."""
        return self._requests.empty()

    async def _say(self) -> AsyncIterator[Any]:
        while (request := await self._requests.get()) is not None:
            yield request

    async def _listen(self) -> None:
        async for response in self._responses:
            self.heard.append(response)

    def of(self, kind: str) -> list[Any]:
        return [getattr(one, kind) for one in self.heard if one.WhichOneof("message") == kind]

    async def ended(self) -> None:
        """Returns, or raises, as the call does."""
        await self._listening

    async def leaves(self) -> None:
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)


Story = Callable[[Provider, PipesAdapter], Coroutine[Any, Any, None]]


def tell(story: Story, *others: PaperAdapter) -> None:
    async def told() -> None:
        before = asyncio.all_tasks()
        adapter = PipesAdapter()
        backends = [Backend(one, {"pods": 9}) for one in (adapter, *others)]
        provider = Provider(Tracker(backends, clock=virtual.clock))
        running = asyncio.create_task(provider.run())
        await provider.settled()
        await story(provider, adapter)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert asyncio.all_tasks() <= before

    virtual.run(told(), limit=600)


def start(**more: object) -> st.ExecRequest:
    asked = {"pod": WIRE, "container": "c", "command": ["run", "it"]}
    wanted = {"stdin": True, "stdout": True, "stderr": True}
    return st.ExecRequest(start=st.ExecStart(**{**asked, **wanted, **more}))


def stdin(content: bytes) -> st.ExecRequest:
    return st.ExecRequest(data=st.Data(stream=st.STREAM_STDIN, content=content))


def credit(count: int, stream: st.Stream.ValueType = st.STREAM_STDOUT) -> st.ExecRequest:
    return st.ExecRequest(credit=st.Credit(stream=stream, bytes=count))


async def until(met: Callable[[], bool]) -> None:
    while not met():  # noqa: ASYNC110 - both ends are looked at from outside
        await asyncio.sleep(0.01)


async def opened(provider: Provider, adapter: PipesAdapter, **more: object) -> tuple[Client, Hand]:
    adapter.given.append(hand := Hand())
    client = Client(provider.exec)
    client.says(start(**more))
    await until(lambda: bool(adapter.asked))
    return client, hand
