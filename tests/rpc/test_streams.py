"""Exec, attach and port-forward by their client: in process, and over gRPC."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path

import pytest
from support.pipes import PIECES, POD, WIRE, Hand, PipesAdapter

from bridge.adapter import Size
from bridge.errors import BridgeError, Invalid, NotFound, Unavailable
from bridge.provider.backend import Backend
from bridge.provider.server import Server
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker
from bridge.rpc.client import RemoteProvider
from bridge.rpc.credit import WINDOW
from bridge.rpc.streams import Remote, StreamClient, open_attach, open_exec, open_forward
from bridge.rpc.v1 import provider_pb2, stream_pb2

Place = Callable[[], AbstractAsyncContextManager[tuple[PipesAdapter, StreamClient]]]


@pytest.fixture(params=["in process", "over the wire"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[PipesAdapter, StreamClient]]:
        adapter = PipesAdapter()
        provider = Provider(Tracker([Backend(adapter, {"pods": 1})]))
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            before = asyncio.all_tasks()
            running = tasks.create_task(provider.run())
            await provider.settled()
            if request.param == "in process":
                yield adapter, provider
            else:
                server = Server(provider, f"unix://{tmp_path}/s")
                remote = RemoteProvider(await server.start())
                try:
                    yield adapter, remote
                finally:
                    await remote.close()
                    await server.stop(0)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            left = [task.get_name() for task in asyncio.all_tasks() - before]
            assert not [name for name in left if "stream" in name or "request" in name]

    return opened


def exec_start(**more: object) -> stream_pb2.ExecStart:
    given = {"stdin": True, "stdout": True, "stderr": True, **more}
    return stream_pb2.ExecStart(pod=WIRE, container="c", command=["do", "it"], **given)


FORWARD = stream_pb2.PortForwardStart(pod=WIRE, port=80)


async def until(met: Callable[[], bool]) -> None:
    while not met():  # noqa: ASYNC110 - both ends are looked at from outside
        await asyncio.sleep(0.001)


async def rest(channel: Remote) -> list[tuple[str, bytes]]:
    pieces = []
    while (piece := await channel.read())[0]:
        pieces.append(piece)
    return pieces


async def test_a_command_says_all_and_then_its_code(place: Place) -> None:
    async with place() as (adapter, provider):
        adapter.given.append(hand := Hand())
        channel = await open_exec(provider, exec_start())
        hand.says("stdout", b"one")
        assert await channel.read() == ("stdout", b"one")
        hand.says("stderr", b"two")
        assert await channel.read() == ("stderr", b"two")
        hand.says("stdout", PIECES[0])
        hand.ends(143)
        assert await channel.wait() == 143
        assert await rest(channel) == [("stdout", PIECES[0])]
        assert await channel.read() == ("", b"")
        await asyncio.wait_for(hand.closed.wait(), 5)
        await channel.write(b"after the end nobody wants it")
        await channel.close()
        assert adapter.asked == [(POD, "c", ("do", "it"), True, False)]


async def test_stdin_arrives_in_order_and_ends(place: Place) -> None:
    async with place() as (adapter, provider):
        adapter.given.append(hand := Hand())
        channel = await open_exec(provider, exec_start())
        for piece in (b"a", PIECES[1] + PIECES[2] + b"b", b"", b"c"):
            await channel.write(piece)
        await channel.close_input()
        await hand.input_closed.wait()
        assert b"".join(hand.written) == b"a" + PIECES[1] + PIECES[2] + b"bc"
        hand.ends(0)
        assert await channel.wait() == 0
        await channel.close()


async def test_without_stdin_there_is_nothing_to_write_to(place: Place) -> None:
    async with place() as (adapter, provider):
        adapter.given.append(hand := Hand())
        channel = await open_exec(provider, exec_start(stdin=False))
        with pytest.raises(Invalid, match="stdin"):
            await channel.write(b"x")
        await channel.close_input()
        hand.ends(3)
        assert await channel.wait() == 3
        await channel.close()


async def test_a_resize_passes_data_that_are_blocked_both_ways(place: Place) -> None:
    async with place() as (adapter, provider):
        adapter.given.append(hand := Hand())
        hand.takes.clear()
        hand.says("stdout", *PIECES, *PIECES)
        channel = await open_exec(provider, exec_start(tty=True, stderr=False))
        writing = asyncio.create_task(channel.write(b"x" * (WINDOW + 1)))
        await until(lambda: hand.reads > WINDOW // len(PIECES[0]))
        await channel.resize(Size(132, 43))
        await hand.resized.wait()
        assert hand.sizes == [Size(132, 43)]
        assert not writing.done()
        assert not hand.written
        hand.takes.set()
        await writing
        await channel.close_input()
        await hand.input_closed.wait()
        assert sum(map(len, hand.written)) == WINDOW + 1
        # Nothing of its output was read so far, and so little of it was taken from the process.
        assert hand.reads <= 2 * WINDOW // len(PIECES[0])
        hand.ends(5)
        assert b"".join(piece for _, piece in await rest(channel)) == b"".join(PIECES * 2)
        assert await channel.wait() == 5
        await channel.close()


async def test_the_end_of_stdin_passes_output_that_is_blocked(place: Place) -> None:
    async with place() as (adapter, provider):
        adapter.given.append(hand := Hand())
        hand.says("stdout", *PIECES)
        channel = await open_exec(provider, exec_start())
        await until(lambda: hand.reads > WINDOW // len(PIECES[0]))
        await channel.write(b"last")
        await channel.close_input()
        await hand.input_closed.wait()
        assert hand.written == [b"last"]
        await channel.close()
        await asyncio.wait_for(hand.closed.wait(), 5)


async def test_closing_ends_the_command_though_all_is_blocked(place: Place) -> None:
    async with place() as (adapter, provider):
        adapter.given.append(hand := Hand())
        hand.takes.clear()
        hand.says("stdout", *PIECES)
        channel = await open_exec(provider, exec_start())
        writing = asyncio.create_task(channel.write(b"x" * 2 * WINDOW))
        await until(lambda: hand.reads > WINDOW // len(PIECES[0]))
        await channel.close()
        await asyncio.wait_for(hand.closed.wait(), 5)
        await writing
        await channel.close()
        with pytest.raises(Unavailable, match="closed before its end"):
            await channel.wait()


async def test_a_reader_that_goes_away_leaves_no_trace_in_the_log(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with place() as (adapter, provider):
        for _ in range(20):
            adapter.given.append(hand := Hand())
            hand.says("stdout", *PIECES)
            channel = await open_exec(provider, exec_start())
            await channel.read()
            await channel.close()
            await asyncio.wait_for(hand.closed.wait(), 5)
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


async def test_what_cannot_start_says_why(place: Place) -> None:
    async with place() as (adapter, provider):
        adapter.given.append(Invalid("no such file"))
        channel = await open_exec(provider, exec_start())
        assert await channel.read() == ("", b"")
        with pytest.raises(Invalid, match=r"^no such file$"):
            await channel.wait()
        await channel.close()


@pytest.mark.parametrize("error", [NotFound("not here"), Unavailable("not now")])
async def test_a_refusal_is_raised_by_read_and_wait(place: Place, error: BridgeError) -> None:
    async with place() as (adapter, provider):
        for opens in (
            lambda: open_exec(provider, exec_start()),
            lambda: open_attach(
                provider, stream_pb2.AttachStart(pod=WIRE, container="c", stdin=True)
            ),
            lambda: open_forward(provider, FORWARD),
        ):
            adapter.given.append(error)
            channel = await opens()
            for call in (channel.read, channel.wait, lambda c=channel: c.write(b"x")):
                await _raises(type(error), error.message, call)
            await channel.close()


async def _raises(
    kind: type[BridgeError], words: str, call: Callable[[], Awaitable[object]]
) -> None:
    with pytest.raises(kind, match=f"^{words}$"):
        await call()


async def test_a_connection_goes_both_ways_and_half_closes(place: Place) -> None:
    async with place() as (adapter, provider):
        adapter.given.append(hand := Hand())
        channel = await open_forward(provider, FORWARD)
        await channel.write(b"question")
        await channel.close_input()
        await hand.input_closed.wait()
        hand.says("stdout", b"answer")
        hand.ends()
        assert await rest(channel) == [("stdout", b"answer")]
        assert await channel.wait() == 0
        await channel.close()
        assert hand.written == [b"question"]
        assert adapter.asked == [(POD, 80, True)]


async def test_a_connection_that_breaks_is_unavailable_after_its_last_byte(place: Place) -> None:
    async with place() as (adapter, provider):
        adapter.given.append(hand := Hand())
        channel = await open_forward(provider, FORWARD)
        hand.says("stdout", b"half")
        hand.out.put_nowait(Unavailable("reset by the other end"))
        assert await channel.read() == ("stdout", b"half")
        for call in (channel.read, channel.wait, lambda: channel.write(b"x")):
            await _raises(Unavailable, "reset by the other end", call)
        await channel.close()


async def test_attach_tells_the_containers_own_code(place: Place) -> None:
    async with place() as (adapter, provider):
        adapter.given.append(hand := Hand())
        start = stream_pb2.AttachStart(pod=WIRE, container="c", stdin=True, stdout=True)
        channel = await open_attach(provider, start)
        await channel.write(b"in")
        hand.says("stdout", b"out")
        assert await channel.read() == ("stdout", b"out")
        await until(lambda: hand.written == [b"in"])
        hand.ends(137)
        assert await channel.wait() == 137
        await channel.close()


async def test_a_call_ends_after_its_client_has_ended_its_own_direction(place: Place) -> None:
    async with place() as (adapter, provider):
        adapter.given.append(hand := Hand())
        hand.ends()
        leaves = asyncio.Event()

        async def requests() -> AsyncIterator[stream_pb2.ExecRequest]:
            yield stream_pb2.ExecRequest(start=exec_start())
            await leaves.wait()

        async with aclosing(provider.exec(requests())) as responses:
            assert (await anext(responses)).exit.code == 0
            over = asyncio.ensure_future(anext(responses, None))
            assert not (await asyncio.wait({over}, timeout=0.1))[0]
            leaves.set()
            assert await over is None


async def test_many_bytes_of_both_outputs_keep_their_order(place: Place) -> None:
    async with place() as (adapter, provider):
        adapter.given.append(hand := Hand())
        said = [
            ("stdout" if n % 3 else "stderr", b"%d" % n + PIECES[n % 32][:-8]) for n in range(90)
        ]
        for stream, piece in said:
            hand.says(stream, piece)
        hand.ends()
        channel = await open_exec(provider, exec_start())
        # Frames may be cut where credit ends; what each says, and in which order, stays.
        assert _joined(await rest(channel)) == _joined(said)
        assert await channel.wait() == 0
        await channel.close()


def _joined(pieces: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    groups = itertools.groupby(pieces, key=lambda piece: piece[0])
    return [(stream, b"".join(content for _, content in group)) for stream, group in groups]


async def test_a_provider_that_stops_breaks_the_stream(tmp_path: Path) -> None:
    adapter = PipesAdapter()
    adapter.given.append(hand := Hand())
    provider = Provider(Tracker([Backend(adapter, {"pods": 1})]))
    running = asyncio.create_task(provider.run())
    await provider.settled()
    server = Server(provider, f"unix://{tmp_path}/s")
    remote = RemoteProvider(await server.start())
    channel = await open_exec(remote, exec_start())
    hand.says("stdout", b"x")
    assert await channel.read() == ("stdout", b"x")
    await server.stop(0)
    await asyncio.wait_for(hand.closed.wait(), 5)
    with pytest.raises(BridgeError):
        await channel.wait()
    await channel.close()
    await remote.close()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_requests_that_fail_end_the_call_with_their_error(tmp_path: Path) -> None:
    adapter = PipesAdapter()
    adapter.given.append(hand := Hand())
    provider = Provider(Tracker([Backend(adapter, {"pods": 1})]))
    running = asyncio.create_task(provider.run())
    await provider.settled()
    server = Server(provider, f"unix://{tmp_path}/s")
    remote = RemoteProvider(await server.start())

    async def requests() -> AsyncIterator[stream_pb2.ExecRequest]:
        yield stream_pb2.ExecRequest(start=exec_start())
        await until(lambda: bool(adapter.asked))
        raise Invalid("of the caller's own")

    with pytest.raises(Invalid, match="of the caller's own"):
        [message async for message in remote.exec(requests())]
    await asyncio.wait_for(hand.closed.wait(), 5)
    request = provider_pb2.GetStatsRequest(cluster=WIRE.cluster, node="n")
    assert await remote.get_stats(request) == provider_pb2.GetStatsResponse()
    await remote.close()
    await server.stop(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
