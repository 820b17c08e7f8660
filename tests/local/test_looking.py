"""Looking at a run that nobody attends: what is found is all that its provider knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from jobs_kit import indexed

from bridge.agent.provider import Passing, ProviderClient
from bridge.cli.onlooker import Onlooker
from bridge.local.outcome import Outcome
from bridge.local.runs import Run, Runs
from bridge.local.session import Session
from bridge.pods import Manifest
from bridge.pods.defaults import with_defaults
from bridge.provider.service import Provider
from bridge.provider.tracker import Backend, Tracker
from bridge.rpc.v1 import provider_pb2 as pb
from tests.support import virtual
from tests.support.paper import Cloud, PaperAdapter


class Slow(Passing):
    """A provider whose every message takes its time, as on a machine that is busy."""

    async def watch_pods(self, request: pb.WatchPodsRequest) -> AsyncIterator[pb.WatchPodsResponse]:
        async for message in super().watch_pods(request):
            await asyncio.sleep(4)
            yield message


async def nothing_due() -> None:
    """Of a provider elsewhere nobody knows whether it has something to do."""


@asynccontextmanager
async def provider_over(sky: Cloud) -> AsyncIterator[Provider]:
    """A provider in its first life."""
    provider = Provider(Tracker([Backend(PaperAdapter(sky), {})], clock=virtual.clock))
    running = asyncio.create_task(provider.run())
    try:
        yield provider
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def look(run: Run, provider: ProviderClient) -> tuple[Outcome, list[Manifest]]:
    """How the run stands, and its pods, as they are found."""
    onlooker = Onlooker(provider, nothing_due)
    session = Session(run, onlooker, clock=virtual.clock, observe=nothing_due)
    observing = asyncio.create_task(session.attend())
    try:
        await session.settled()
        return session.outcome(), list(session.store.pods.values())
    finally:
        observing.cancel()
        await asyncio.gather(observing, return_exceptions=True)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of seven pods, two at a time: they are found again in four rounds."""
    job = with_defaults(indexed(completions=7, parallelism=2))
    job["metadata"].pop("uid")
    return Runs(tmp_path).create("it", [job], {}, virtual.EPOCH)


def test_what_is_over_is_found_over_however_slowly_it_is_told(run: Run) -> None:
    async def story() -> None:
        async with provider_over(Cloud(virtual.clock, {("main", 0): (1, 0)})) as provider:
            assert (await Session(run, provider, clock=virtual.clock).attend()).over
            run.new = False
            outcome, pods = await look(run, Slow(provider))
            assert outcome.over
            assert not outcome.failed
            assert [one["status"]["phase"] for one in pods] == ["Succeeded"] * 7

    virtual.run(story())


def test_of_a_provider_that_knows_no_manifests_nothing_is_waited_for(run: Run) -> None:
    async def story() -> None:
        sky = Cloud(virtual.clock)
        async with provider_over(sky) as provider:
            session = Session(run, provider, clock=virtual.clock)
            attending = asyncio.create_task(session.attend())
            async for _ in session.store.changes():
                if len(sky.runs) == 2:
                    break
            attending.cancel()
            await asyncio.gather(attending, return_exceptions=True)
        run.new = False
        async with provider_over(sky) as provider:
            began = virtual.clock()
            outcome, pods = await look(run, provider)
            assert not outcome.over
            assert len(pods) == 2
            assert virtual.clock() - began < 2

    virtual.run(story())
