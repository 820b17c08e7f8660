"""The credits themselves: what may leave, what may come, when more is granted."""

from __future__ import annotations

import asyncio

import pytest

from bridge.errors import Invalid
from bridge.rpc.credit import BATCH, FIRST_BATCH, FRAME, WINDOW, Inbox, Outbox


def drained(outbox: Outbox) -> list[int]:
    sizes = []
    while (frame := outbox.take()) is not None:
        sizes.append(len(frame[1]))
    return sizes


async def test_no_more_leaves_than_was_granted_and_no_frame_is_too_large() -> None:
    outbox = Outbox(["a", "b"], asyncio.Event())
    sending = asyncio.create_task(outbox.send("a", bytes(WINDOW + FRAME + 1)))
    await asyncio.sleep(0)
    assert drained(outbox) == [FRAME] * (WINDOW // FRAME)
    await asyncio.sleep(0)
    assert drained(outbox) == []
    # Another stream has a credit of its own.
    await outbox.send("b", b"xy")
    assert drained(outbox) == [2]
    outbox.granted("a", 7)
    await asyncio.sleep(0)
    assert drained(outbox) == [7]
    outbox.granted("a", FRAME)
    await sending_done(sending, outbox, [FRAME - 6])


async def sending_done(sending: asyncio.Task[None], outbox: Outbox, sizes: list[int]) -> None:
    await asyncio.wait_for(sending, 5)
    assert drained(outbox) == sizes


async def test_a_rich_credit_does_not_fill_the_memory() -> None:
    outbox = Outbox(["a"], asyncio.Event())
    outbox.granted("a", 1 << 40)
    sending = asyncio.create_task(outbox.send("a", bytes(3 * WINDOW)))
    await asyncio.sleep(0)
    assert sum(drained(outbox)) == WINDOW
    outbox.close()
    await asyncio.wait_for(sending, 5)
    assert drained(outbox) == []


@pytest.mark.parametrize("count", [0, -1])
async def test_a_credit_is_a_positive_number(count: int) -> None:
    outbox = Outbox(["a"], asyncio.Event())
    with pytest.raises(Invalid, match="credit"):
        outbox.granted("a", count)
    with pytest.raises(Invalid, match="does not run this way"):
        outbox.granted("other", 1)


def filled(inbox: Inbox) -> None:
    for _ in range(WINDOW // FRAME):
        inbox.arrived("a", bytes(FRAME))


async def test_an_overdraft_is_refused() -> None:
    inbox = Inbox(["a"], asyncio.Event())
    filled(inbox)
    inbox.arrived("a", b"")
    with pytest.raises(Invalid, match="only 0 were granted"):
        inbox.arrived("a", b"x")


async def test_what_breaks_the_contract_is_refused_and_not_quoted() -> None:
    inbox = Inbox(["a"], asyncio.Event())
    for stream, content in (("a", b"s" * (FRAME + 1)), ("", b"s"), ("b", b"s")):
        with pytest.raises(Invalid) as refused:
            inbox.arrived(stream, content)
        assert "sss" not in refused.value.message
    inbox.end()
    with pytest.raises(Invalid, match="after the end"):
        inbox.arrived("a", b"s")


async def test_grants_come_in_batches_and_only_for_what_was_taken() -> None:
    news = asyncio.Event()
    inbox = Inbox(["a"], news)
    filled(inbox)
    granted = []
    for turn in range(WINDOW // FRAME):
        stream, content = await inbox.take()
        assert not news.is_set() or turn * FRAME >= FIRST_BATCH
        inbox.taken(stream, len(content))
        if (grant := inbox.due()) is not None:
            granted.append(grant)
    assert granted == [("a", FIRST_BATCH + WINDOW)]
    # All was taken: what may come now is the doubled window but for what no batch is full of yet.
    for _ in range((FIRST_BATCH + WINDOW) // FRAME):
        inbox.arrived("a", bytes(FRAME))
    with pytest.raises(Invalid, match="only 0 were granted"):
        inbox.arrived("a", b"x")
    while (grant := inbox.due()) is None:
        stream, content = await inbox.take()
        inbox.taken(stream, len(content))
    assert grant == ("a", BATCH)


@pytest.mark.parametrize("first", [1, 17, FRAME - 1, FRAME])
@pytest.mark.parametrize("frame", [FRAME, FRAME - 1, 1000])
async def test_a_sender_of_whole_frames_never_stands_still_for_ever(first: int, frame: int) -> None:
    """Such a sender waits until it may send all of the next frame."""
    inbox = Inbox(["a"], asyncio.Event())
    credit, came = WINDOW, 0
    while came < 20 * WINDOW:
        size = frame if came else first
        assert size <= credit, f"after {came} bytes, with all of them taken"
        inbox.arrived("a", bytes(size))
        credit, came = credit - size, came + size
        stream, content = await inbox.take()
        inbox.taken(stream, len(content))
        if (grant := inbox.due()) is not None:
            credit += grant[1]


async def test_a_taker_that_always_comes_late_still_gets_all() -> None:
    """However small the pieces: the sender never stands still for ever."""
    inbox, outbox = Inbox(["a"], asyncio.Event()), Outbox(["a"], asyncio.Event())
    size = 5 * WINDOW + 17
    sending = asyncio.create_task(outbox.send("a", bytes(size)))
    came = got = 0
    while got < size:
        await asyncio.sleep(0)
        while (frame := outbox.take()) is not None:
            inbox.arrived(*frame)
            came += len(frame[1])
        if came > got:
            stream, content = await inbox.take()
            got += len(content)
            inbox.taken(stream, len(content))
        if (grant := inbox.due()) is not None:
            outbox.granted(*grant)
    await sending


async def test_small_frames_that_wait_are_joined() -> None:
    inbox = Inbox(["a", "b"], asyncio.Event())
    for _ in range(WINDOW // 2):
        inbox.arrived("a", b"xy")
    inbox.end()
    sizes = []
    while (piece := await inbox.take())[0]:
        sizes.append(len(piece[1]))
    assert sizes == [FRAME] * (WINDOW // FRAME)


async def test_joining_keeps_the_order_of_streams() -> None:
    inbox = Inbox(["a", "b"], asyncio.Event())
    for stream in ("a", "a", "b", "a"):
        inbox.arrived(stream, stream.encode())
    inbox.end()
    taken = []
    while (piece := await inbox.take())[0]:
        taken.append(piece)
    assert taken == [("a", b"aa"), ("b", b"b"), ("a", b"a")]
