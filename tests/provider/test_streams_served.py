"""Exec, attach and port-forward as the provider serves them, message by message."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from streams_kit import Client, credit, opened, start, stdin, tell, until
from support import virtual
from support.paper import Cloud, PaperAdapter
from support.pipes import CLUSTER, PIECES, POD, WIRE, Hand, PipesAdapter

from bridge.adapter import Size
from bridge.errors import BridgeError, Invalid, NotFound, Unavailable, Unsupported
from bridge.provider.service import Provider
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import stream_pb2 as st
from bridge.workload import ContainerState, Identity, Observed, Running

WINDOW, FRAME = 256 * 1024, 32 * 1024
SECRET = b"s3cret"


OTHER = pod_pb2.PodIdentity()
OTHER.CopyFrom(WIRE)
OTHER.uid = str(uuid.UUID(int=99))


@pytest.mark.parametrize(
    ("first", "kind", "field"),
    [
        (start(container=""), Invalid, "container"),
        (start(command=[]), Invalid, "command"),
        (start(tty=True), Invalid, "stderr"),
        (start(pod=pod_pb2.PodIdentity()), Invalid, "pod.node"),
        (start(pod=OTHER), NotFound, ""),
        (start(container="d"), NotFound, ""),
        (stdin(SECRET), Invalid, "start"),
        (credit(1), Invalid, "start"),
        (st.ExecRequest(), Invalid, "start"),
        (None, Invalid, "start"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    first: st.ExecRequest | None, kind: type[BridgeError], field: str
) -> None:
    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        client = Client(provider.exec)
        client.says(first)
        with pytest.raises(kind) as refused:
            await client.ended()
        assert field in {one.field for one in refused.value.violations} | {""}
        assert (not field) == (not refused.value.violations)
        assert SECRET.decode() not in refused.value.message
        assert adapter.asked == []

    tell(story)


@pytest.mark.parametrize("port", [0, 65536])
def test_a_port_must_be_one(port: int) -> None:
    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        client = Client(provider.port_forward)
        client.says(st.PortForwardRequest(start=st.PortForwardStart(pod=WIRE, port=port)))
        with pytest.raises(Invalid) as refused:
            await client.ended()
        assert refused.value.violations[0].field == "port"

    tell(story)


def test_a_backend_without_the_ability_is_named() -> None:
    cloud = Cloud(virtual.clock)
    who = Identity(CLUSTER, "n", "d", "plain", str(uuid.UUID(int=9)))
    cloud.pods[who.key] = Observed(who, containers=(ContainerState("c", Running(0.0)),))
    wire = pod_pb2.PodIdentity(cluster=CLUSTER, node="n", namespace="d", name="p", uid=who.uid)

    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        attach = st.AttachRequest(start=st.AttachStart(pod=wire, container="c"))
        forward = st.PortForwardRequest(start=st.PortForwardStart(pod=wire, port=1))
        calls = [
            (provider.exec, start(pod=wire)),
            (provider.attach, attach),
            (provider.port_forward, forward),
        ]
        for call, request in calls:
            client = Client(call)
            client.says(request)
            with pytest.raises(Unsupported, match="backend plain "):
                await client.ended()

    tell(story, PaperAdapter(cloud, "plain"))


def test_a_command_that_cannot_start_is_an_exit_without_a_code() -> None:
    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        for call, request in (
            (provider.exec, start()),
            (provider.attach, st.AttachRequest(start=st.AttachStart(pod=WIRE, container="c"))),
        ):
            adapter.given.append(Invalid("no such file"))
            client = Client(call)
            client.says(request)
            await client.ended()
            assert len(client.heard) == 1
            assert client.heard[0].exit.error == "no such file"
            assert not client.heard[0].exit.HasField("code")

    tell(story)


@pytest.mark.parametrize("error", [NotFound("gone"), Unavailable("down")])
def test_other_errors_before_the_start_are_the_calls(error: BridgeError) -> None:
    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        adapter.given.append(error)
        client = Client(provider.exec)
        client.says(start())
        with pytest.raises(type(error), match=error.message):
            await client.ended()
        assert client.heard == []

    tell(story)


def test_a_failure_in_mid_stream_comes_after_the_last_byte() -> None:
    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        client, hand = await opened(provider, adapter)
        hand.says("stdout", b"half")
        hand.out.put_nowait(Unavailable("the engine went away"))
        await client.ended()
        assert [one.WhichOneof("message") for one in client.heard] == ["data", "exit"]
        end = client.heard[-1].exit
        assert (end.HasField("code"), end.error) == (False, "the engine went away")
        assert hand.closed.is_set()

    tell(story)


def test_the_exit_comes_after_the_last_byte_and_waits_for_credit() -> None:
    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        client, hand = await opened(provider, adapter)
        hand.says("stdout", *PIECES)
        hand.says("stderr", b"last")
        hand.ends(9)
        await until(lambda: sum(len(one.content) for one in client.of("data")) == WINDOW)
        await asyncio.sleep(60)
        assert client.of("exit") == []
        assert sum(len(one.content) for one in client.of("data")) == WINDOW
        client.says(credit(10))
        await until(lambda: sum(len(one.content) for one in client.of("data")) == WINDOW + 10)
        client.says(credit(1 << 40))
        await client.ended()
        data = client.of("data")
        assert b"".join(one.content for one in data) == b"".join(PIECES) + b"last"
        assert data[-1].stream == st.STREAM_STDERR
        assert client.heard[-1].exit.code == 9
        assert len(client.of("exit")) == 1

    tell(story)


def test_no_frame_is_larger_than_the_contract_allows() -> None:
    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        client, hand = await opened(provider, adapter)
        hand.says("stdout", b"".join(PIECES[:5]) + b"x")
        hand.ends()
        await client.ended()
        sizes = [len(one.content) for one in client.of("data")]
        assert sizes == [FRAME] * 5 + [1]

    tell(story)


def test_what_was_not_asked_for_is_dropped() -> None:
    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        client, hand = await opened(provider, adapter, stderr=False)
        hand.says("stderr", *PIECES)
        hand.says("stdout", b"wanted")
        hand.ends()
        await client.ended()
        assert [one.content for one in client.of("data")] == [b"wanted"]

    tell(story)


@pytest.mark.parametrize(
    ("more", "breach"),
    [
        ({}, [stdin(SECRET + bytes(FRAME))]),
        ({}, [stdin(bytes(FRAME))] * 8 + [stdin(SECRET)]),
        ({}, [st.ExecRequest(data=st.Data(stream=st.STREAM_STDOUT, content=SECRET))]),
        ({}, [st.ExecRequest(data=st.Data(content=SECRET))]),
        ({}, [credit(0)]),
        ({}, [credit(-5)]),
        ({}, [credit(5, st.STREAM_STDIN)]),
        ({}, [start(command=[SECRET.decode()])]),
        ({}, [st.ExecRequest()]),
        ({}, [st.ExecRequest(close_stdin=True), stdin(SECRET)]),
        ({"stdin": False}, [stdin(SECRET)]),
    ],
)
def test_a_client_that_breaks_the_contract_is_refused(
    more: dict[str, object], breach: list[st.ExecRequest]
) -> None:
    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        client, hand = await opened(provider, adapter, **more)
        hand.takes.clear()
        client.says(*breach)
        with pytest.raises(Invalid) as refused:
            await client.ended()
        assert SECRET.decode() not in refused.value.message
        assert hand.closed.is_set()
        assert client.of("exit") == []

    tell(story)


def test_stdin_is_granted_again_as_it_is_taken() -> None:
    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        client, hand = await opened(provider, adapter)
        hand.takes.clear()
        client.says(*[stdin(piece) for piece in PIECES[:8]])
        await until(client.sent)
        await asyncio.sleep(60)
        assert client.of("credit") == []
        hand.takes.set()
        await until(lambda: len(hand.written) == 8)
        await until(lambda: bool(client.of("credit")))
        granted = sum(one.bytes for one in client.of("credit"))
        assert {one.stream for one in client.of("credit")} == {st.STREAM_STDIN}
        # What may wait here is never more than two windows.
        assert WINDOW // 2 <= granted <= 2 * WINDOW
        for piece in PIECES[8:16]:
            client.says(stdin(piece))
        client.says(st.ExecRequest(close_stdin=True))
        await hand.input_closed.wait()
        assert b"".join(hand.written) == b"".join(PIECES[:16])
        await client.leaves()
        assert hand.closed.is_set()

    tell(story)


def test_resizes_pass_what_is_blocked_and_only_the_newest_counts() -> None:
    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        client, hand = await opened(provider, adapter, tty=True, stderr=False)
        hand.takes.clear()
        hand.says("stdout", *PIECES)
        client.says(*[stdin(piece) for piece in PIECES[:8]])
        sizes = [(0, 0), (80, 24), (100, 50)]
        for width, height in sizes:
            client.says(st.ExecRequest(resize=st.TerminalSize(width=width, height=height)))
        await hand.resized.wait()
        assert hand.sizes == [Size(100, 50)]
        assert hand.written == []
        hand.ends(0)
        client.says(credit(1 << 30))
        await client.ended()
        assert client.heard[-1].exit.code == 0

    tell(story)


def test_half_a_close_ends_stdin_and_nothing_else() -> None:
    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        client, hand = await opened(provider, adapter)
        hand.says("stdout", *PIECES[:8])
        client.says(stdin(b"all of it"))
        client.half_closes()
        await hand.input_closed.wait()
        assert hand.written == [b"all of it"]
        hand.ends(4)
        await client.ended()
        assert client.heard[-1].exit.code == 4

    tell(story)


def test_input_that_breaks_still_lets_the_output_through() -> None:
    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        client, hand = await opened(provider, adapter)
        hand.broken = Unavailable("broken pipe")
        for piece in PIECES[:8]:
            client.says(stdin(piece))
        await until(lambda: bool(client.of("credit")))
        hand.says("stdout", b"goodbye")
        hand.ends(1)
        await client.ended()
        assert [one.content for one in client.of("data")] == [b"goodbye"]
        assert client.heard[-1].exit.code == 1

    tell(story)


def test_a_client_that_leaves_closes_the_channel_at_any_point() -> None:
    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        for seconds in (0.0, 0.001, 1.0):
            client, hand = await opened(provider, adapter)
            adapter.asked.clear()
            hand.takes.clear()
            hand.says("stdout", *PIECES)
            client.says(*[stdin(piece) for piece in PIECES[:8]])
            await asyncio.sleep(seconds)
            await client.leaves()
            assert hand.closed.is_set()

    tell(story)


def test_a_connection_closes_in_order_or_with_words() -> None:
    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        for failure, words in ((None, ""), (Unavailable("reset"), "reset")):
            adapter.given.append(hand := Hand())
            client = Client(provider.port_forward)
            client.says(st.PortForwardRequest(start=st.PortForwardStart(pod=WIRE, port=80)))
            client.says(st.PortForwardRequest(data=b"ping"), st.PortForwardRequest(close=True))
            await hand.input_closed.wait()
            assert hand.written == [b"ping"]
            hand.says("stdout", b"pong")
            hand.out.put_nowait(failure or ("", b""))
            await client.ended()
            assert client.of("data") == [b"pong"]
            assert client.of("closed") == [words]
            assert hand.closed.is_set()
        assert adapter.asked == [(POD, 80, True)] * 2

    tell(story)


def test_a_connection_has_credits_too() -> None:
    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        adapter.given.append(hand := Hand())
        client = Client(provider.port_forward)
        client.says(st.PortForwardRequest(start=st.PortForwardStart(pod=WIRE, port=80)))
        hand.says("stdout", *PIECES)
        await until(lambda: sum(map(len, client.of("data"))) == WINDOW)
        await asyncio.sleep(60)
        assert sum(map(len, client.of("data"))) == WINDOW
        client.says(st.PortForwardRequest(credit=1 << 30))
        await until(lambda: sum(map(len, client.of("data"))) == len(PIECES) * FRAME)
        client.says(st.PortForwardRequest(data=bytes(FRAME + 1)))
        with pytest.raises(Invalid, match="at most 32768"):
            await client.ended()
        assert hand.closed.is_set()

    tell(story)


def test_a_defect_of_an_adapter_ends_the_stream_and_closes_the_channel() -> None:
    class Defective(Hand):
        async def read(self) -> tuple[str, bytes]:
            raise ZeroDivisionError

    async def story(provider: Provider, adapter: PipesAdapter) -> None:
        adapter.given.append(hand := Defective())
        client = Client(provider.exec)
        client.says(start())
        with pytest.raises(ZeroDivisionError):
            await client.ended()
        assert hand.closed.is_set()

    tell(story)
