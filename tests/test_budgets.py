"""Token buckets, in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from support import virtual

from bridge.adapter import Rate
from bridge.bucket import Bucket, Budgets
from bridge.errors import Throttled


def test_a_burst_then_the_sustained_rate_first_come_first_served() -> None:
    async def story() -> None:
        bucket = Bucket(Rate(per_second=10, burst=20), virtual.clock)
        order: list[int] = []

        async def take(number: int) -> None:
            await bucket.take()
            order.append(number)

        began = virtual.clock()
        await asyncio.gather(*(take(number) for number in range(96)))
        assert order == list(range(96))
        assert virtual.clock() - began == pytest.approx((96 - 16) / 8, rel=0.02)

    virtual.run(story())


def test_a_throttle_halves_the_rate_which_recovers_slowly() -> None:
    async def story() -> None:
        bucket = Bucket(Rate(per_second=10, burst=10), virtual.clock)
        full = bucket.per_second
        bucket.throttled()
        assert bucket.per_second == pytest.approx(full / 2)
        for _ in range(20):
            bucket.throttled()
        assert bucket.per_second > 0
        await asyncio.sleep(10)
        await bucket.take()
        assert full * 0.1 < bucket.per_second < full
        await asyncio.sleep(100)
        await bucket.take()
        assert bucket.per_second == pytest.approx(full)

    virtual.run(story())


def test_families_are_apart_and_unlimited_without_a_rate() -> None:
    async def story() -> None:
        budgets = Budgets({"run": Rate(1, 1)}, virtual.clock)
        calls = 0

        async def call() -> int:
            nonlocal calls
            calls += 1
            return calls

        began = virtual.clock()
        for _ in range(50):
            await budgets.call(call, "list")
        assert virtual.clock() == began

        async def refused() -> None:
            raise Throttled("slow")

        with pytest.raises(Throttled):
            await budgets.call(refused, "run")
        await budgets.call(call, "run")
        assert virtual.clock() - began > 1

    virtual.run(story())


def test_a_call_of_several_families_waits_for_each_and_is_throttled_in_each() -> None:
    async def story() -> None:
        budgets = Budgets({"all": Rate(10, 10, share=1), "run": Rate(1, 2, share=1)}, virtual.clock)
        calls = 0

        async def call() -> None:
            nonlocal calls
            calls += 1

        async def refused() -> None:
            raise Throttled("slow")

        began = virtual.clock()
        for _ in range(4):
            await budgets.call(call, "all", "run")
        assert virtual.clock() - began == pytest.approx(2, rel=0.02)
        with pytest.raises(Throttled):
            await budgets.call(refused, "all", "run")
        began = virtual.clock()
        for _ in range(5):
            await budgets.call(call, "all")
        assert virtual.clock() - began == pytest.approx(1, rel=0.05)
        assert calls == 9

    virtual.run(story())
