"""The keyed queue, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise

import pytest
from support import virtual

from bridge.errors import Throttled, Unavailable
from bridge.queue import LONGEST_RETRY, KeyedQueue


def test_one_worker_a_key_and_the_latest_state_wins() -> None:
    async def story() -> None:
        running, most, handled = 0, 0, 0

        async def handle(_: str) -> None:
            nonlocal running, most, handled
            running += 1
            most = max(most, running)
            await asyncio.sleep(1)
            handled += 1
            running -= 1

        queue = KeyedQueue(handle, name="t")
        for _ in range(10):
            queue.add("a")
        await asyncio.sleep(0.5)
        for _ in range(10):
            queue.add("a")
        await queue.settled()
        assert (most, handled) == (1, 2)

    virtual.run(story())


def test_a_first_try_is_at_once_and_failures_back_off_to_five_minutes_for_ever() -> None:
    async def story() -> None:
        times: list[float] = []

        async def handle(_: str) -> None:
            times.append(virtual.clock())
            raise Unavailable("away")

        queue = KeyedQueue(handle, name="t", jitter=lambda: 0.5)
        queue.add("a")
        await asyncio.sleep(3600)
        await queue.close()
        waits = [after - before for before, after in pairwise(times)]
        assert times[0] == virtual.EPOCH
        assert waits[0] == pytest.approx(0.25)
        assert waits == sorted(waits)
        assert waits[-1] == pytest.approx(LONGEST_RETRY)

    virtual.run(story())


def test_a_throttle_says_how_long() -> None:
    async def story() -> None:
        times: list[float] = []

        async def handle(_: str) -> None:
            times.append(virtual.clock())
            if len(times) == 1:
                raise Throttled("slow", retry_after=42)

        queue = KeyedQueue(handle, name="t")
        queue.add("a")
        await asyncio.sleep(100)
        assert times[1] - times[0] == pytest.approx(42)

    virtual.run(story())


def test_a_new_reason_cuts_a_back_off_short_and_a_defect_stops_no_other_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        handled: list[str] = []

        async def handle(key: str) -> None:
            handled.append(key)
            if key == "bad":
                raise ZeroDivisionError

        queue = KeyedQueue(handle, name="t")
        queue.add("bad")
        queue.add("good")
        await queue.settled()
        queue.add("bad")
        await queue.settled()
        assert handled == ["bad", "good", "bad"]
        await queue.close()

    with caplog.at_level(logging.CRITICAL):
        virtual.run(story())


def test_a_handler_can_ask_to_look_again_and_the_nearer_time_stays() -> None:
    async def story() -> None:
        times: list[float] = []

        async def handle(_: str) -> float | None:
            times.append(virtual.clock() - virtual.EPOCH)
            return 10.0 if len(times) == 1 else None

        queue = KeyedQueue(handle, name="t")
        queue.add("a")
        await queue.settled()
        queue.add_after("a", 50)
        await asyncio.sleep(100)
        assert times == [0.0, 10.0]
        queue.add_after("a", 5)
        queue.forget("a")
        await asyncio.sleep(100)
        assert len(times) == 2

    virtual.run(story())


def test_what_is_under_way_goes_before_what_waits_its_turn() -> None:
    async def story() -> None:
        turn = asyncio.Event()
        done: list[int] = []

        async def handle(key: int) -> None:
            if key < 100:
                await turn.wait()
            done.append(key)

        queue = KeyedQueue(handle, name="t", concurrency=2, ahead=lambda key: key >= 100)
        for key in (0, 1, 2, 100, 101, 3, 102):
            queue.add(key)
        await asyncio.sleep(1)
        assert done == [100, 101, 102]
        turn.set()
        await queue.settled()
        assert done == [100, 101, 102, 0, 1, 2, 3]

    virtual.run(story())


def test_a_key_that_comes_to_be_under_way_is_handled_once() -> None:
    async def story() -> None:
        begun: set[str] = set()
        done: list[str] = []
        free = asyncio.Event()

        async def handle(key: str) -> None:
            if key == "slow":
                await free.wait()
            done.append(key)

        queue = KeyedQueue(handle, name="t", concurrency=1, ahead=lambda key: key in begun)
        for key in ("slow", "a", "b"):
            queue.add(key)
        begun.add("b")
        queue.add("b")
        await asyncio.sleep(1)
        assert done == ["b"]
        free.set()
        await queue.settled()
        assert done == ["b", "slow", "a"]

    virtual.run(story())
