"""When groups are looked at, and when all is searched, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from support import virtual

from bridge.errors import BridgeError, Unavailable
from bridge.groups.discovery import Discovery
from bridge.groups.looks import Looks


class PaperLooks(Looks):
    """Remembers what was wanted, and when."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__(2.0)
        self.failures = list(failures)
        self.seen: list[tuple[float, set[str]]] = []

    async def look(self, wanted: set[str]) -> None:
        self.seen.append((virtual.clock(), wanted))
        if self.failures:
            raise self.failures.pop(0)


@contextlib.asynccontextmanager
async def looking(*failures: Exception) -> AsyncIterator[PaperLooks]:
    looks = PaperLooks(*failures)
    running = asyncio.create_task(looks.run())
    yield looks
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def told(story: Callable[[], Awaitable[None]]) -> None:
    virtual.run(story())


def test_hints_that_come_together_are_one_look() -> None:
    async def story() -> None:
        async with looking() as looks:
            await asyncio.sleep(1)
            looks.look_at("a")
            await asyncio.sleep(0.02)
            looks.look_at("b")
            await asyncio.sleep(0.5)
            ((at, wanted),) = looks.seen
            assert wanted == {"a", "b"}
            await asyncio.sleep(2)
            assert [one for _, one in looks.seen] == [{"a", "b"}, set()]
            assert looks.seen[1][0] - at == pytest.approx(2, abs=0.1)

    told(story)


def test_what_could_not_be_looked_at_is_wanted_still_and_later() -> None:
    async def story() -> None:
        async with looking(*(Unavailable("no answer") for _ in range(9))) as looks:
            looks.look_at("a")
            await asyncio.sleep(600)
            times = [at for at, _ in looks.seen]
            waits = [later - before for before, later in itertools.pairwise(times)]
            expected = [4, 8, 16, 32, 60, 60, 60, 60, 60, 2, 2]
            assert waits[: len(expected)] == pytest.approx(expected, abs=0.1)
            assert all(one == {"a"} for _, one in looks.seen[:10])
            assert looks.seen[10][1] == set()

    told(story)


def test_a_fault_of_ours_ends_no_looks() -> None:
    async def story() -> None:
        async with looking(KeyError("x")) as looks:
            await asyncio.sleep(10)
            assert len(looks.seen) >= 2

    told(story)


class PaperDiscovery(Discovery):
    """Counts, takes a while, and fails where that is wanted."""

    def __init__(self) -> None:
        super().__init__(300.0)
        self.searches = 0
        self.failure: BridgeError | None = None

    async def search(self) -> None:
        self.searches += 1
        await asyncio.sleep(0.05)
        if self.failure is not None:
            raise self.failure


async def test_a_search_serves_all_who_wait_for_one() -> None:
    discovery = PaperDiscovery()
    first = asyncio.create_task(discovery.discover(now=True))
    await asyncio.sleep(0)
    # The first one has begun: it may have missed what these look for.
    await asyncio.gather(first, *(discovery.discover(now=True) for _ in range(5)))
    assert discovery.searches == 2
    await discovery.discover()
    assert discovery.searches == 2, "one was made a short while ago"
    await discovery.discover(now=True)
    assert discovery.searches == 3


async def test_a_search_that_fails_is_none() -> None:
    discovery = PaperDiscovery()
    discovery.failure = Unavailable("no answer")
    with pytest.raises(Unavailable):
        await discovery.discover()
    discovery.failure = None
    await discovery.discover()
    assert discovery.searches == 2
