"""What goes wrong at AWS, and what holds all the same."""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fargate_sky import HOUR, FargateSky, fargate
from faults_kit import PATIENCE, PODS, Attended, Trouble, attended, codes, job, proven, storm, until
from support import helper_program

pytestmark = pytest.mark.slow

READS = re.compile(":(Describe|List|Get|Head|Receive)")
KEPT = 10 * HOUR
"""Seconds of the cloud's for which it keeps stopped tasks that are to vanish: two real minutes,
for a machine that has much else to do."""
PARTS = 3
"""Of the calls of a life, so that no test takes long on a slow machine."""
SEEDS = range(int(os.environ.get("PODBRIDGE_FAULT_SEEDS", "10")))


@pytest.fixture(scope="module", autouse=True)
def helper() -> None:
    """The program, built where it is not yet."""
    helper_program.built()


@pytest.fixture
async def sky(tmp_path: Path) -> AsyncIterator[FargateSky]:
    async with fargate(tmp_path) as made:
        yield made


async def gone(work: Attended, sky: FargateSky) -> None:
    """Nothing is left once it is deleted."""
    await work.delete()
    await work.over()
    assert await sky.left() == []
    assert await sky.templates() <= 1


async def stopped(sky: FargateSky, count: int) -> None:
    """Returns once so many tasks have stopped."""
    async with asyncio.timeout(PATIENCE):
        while await asyncio.to_thread(sky.stopped) < count:  # noqa: ASYNC110 - it is elsewhere
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("files", [False, True])
async def test_a_calm_day(sky: FargateSky, *, files: bool) -> None:
    async with attended(sky, job(sky, files=files)) as work:
        await work.over()
        proven(work)
        assert sky.reads()
        await gone(work, sky)


@pytest.mark.parametrize("files", [False, True])
@pytest.mark.parametrize("part", range(PARTS))
async def test_killed_after_each_call_of_a_life(tmp_path: Path, part: int, *, files: bool) -> None:
    """Of a pod's launch, end and deletion, after each that changes something and, of a pod without
    files, the first of each that does not: whoever comes next goes on from there."""
    heard: list[str] = []
    (folder := tmp_path / "calm").mkdir()
    async with fargate(folder) as sky:
        sky.calls(heard.append)
        async with attended(sky, job(sky, 1, files=files)) as work:
            await work.over()
            await gone(work, sky)
    actions = {"RunTask", "RegisterTaskDefinition", "PutObject", "DeleteObjects", "CreateSecret"}
    assert {one.partition(":")[2] for one in heard} >= actions
    first = {action: number for number, action in reversed(list(enumerate(heard, 1)))}
    writes = {number for number, action in enumerate(heard, 1) if not READS.search(action)}
    for number in sorted(writes if files else {*first.values(), *writes})[part::PARTS]:
        (folder := tmp_path / str(number)).mkdir()
        async with fargate(folder) as sky:
            await _killed_after(sky, number, files=files)


async def _killed_after(sky: FargateSky, number: int, *, files: bool) -> None:
    async with attended(sky, job(sky, 1, files=files)) as work:
        work.doom(number)
        await work.revived()
        proven(work, 1)
        await work.delete()
        await work.revived()
    assert await sky.left() == [], number
    assert await sky.templates() <= 1


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_storm(sky: FargateSky, seed: int) -> None:
    """Troubles together, and whoever attends it killed now and then. Every other time the pods have
    files, and the helper."""
    dice = random.Random(seed)
    troubles = storm(sky, dice)
    async with attended(sky, job(sky, files=seed % 2 == 1)) as work:
        work.doom(*(dice.randint(1, 60) for _ in range(dice.randint(0, 3))))
        await work.revived()
        proven(work)
        sky.calm()
        await work.delete()
        await work.revived()
    assert await sky.left() == [], troubles
    assert await sky.templates() <= 1, troubles


async def test_an_outage_of_five_minutes(sky: FargateSky) -> None:
    """AWS answers nothing but errors: nothing fails, and all goes on afterwards."""
    go = sky.path / "go"
    script = f"until [ -e {go} ]; do sleep 0.05; done"
    async with attended(sky, job(sky, script=script)) as work:
        await until(lambda: sum(work.ran().values()) == 5)
        sky.trouble(Trouble.BROKEN, 1.0)
        sky.simulator.account.clock.skip(300)
        go.touch()
        await until(lambda: sky.refused() >= 5)
        assert {one["status"]["phase"] for one in work.pods()} <= {"Running", "Pending"}
        sky.calm()
        await work.over()
        proven(work)
        await gone(work, sky)


@pytest.mark.parametrize(("hours", "files"), [(2, False), (25, False), (25, True)])
async def test_nobody_was_there_for_hours(tmp_path: Path, hours: int, *, files: bool) -> None:
    """Stopped tasks vanish after a while, tokens end after a day. What ended meanwhile has its
    code, from the event that waits in the queue; what runs still runs."""
    async with fargate(tmp_path, retention=KEPT) as sky:
        go = sky.path / "go"
        script = f'if [ "$i" = 4 ]; then until [ -e {go} ]; do sleep 0.05; done; fi'
        async with attended(sky, job(sky, script=script, files=files)) as work:
            await until(lambda: sum(work.ran().values()) == 5)
            await work.kill()
            await stopped(sky, 4)
            await asyncio.to_thread(sky.skip, KEPT + hours * HOUR)
            work.begin()
            go.touch()
            await work.over()
            proven(work)
            await gone(work, sky)


async def test_news_that_come_twice_and_out_of_order(tmp_path: Path) -> None:
    """All of them, and of what ended while nobody was there they alone tell the codes."""
    async with fargate(tmp_path, retention=KEPT) as sky:
        sky.trouble(Trouble.REPEATED, 1.0)
        sky.trouble(Trouble.UNORDERED, 0.5)
        async with attended(sky, job(sky)) as work:
            await until(lambda: sum(work.ran().values()) == PODS)
            await work.kill()
            await stopped(sky, PODS)
            await asyncio.to_thread(sky.skip, KEPT + HOUR)
            work.begin()
            await work.over()
            proven(work)
            await gone(work, sky)


async def test_a_reclaim_is_a_disruption(sky: FargateSky) -> None:
    """Spot takes a running task back: its pod is told as disrupted, and the Job makes another."""
    sky.reclaim(1.0, times=1)
    script = "sleep 2"
    sky.options["capacity"] = "spot"
    async with attended(sky, job(sky, 1, script=script)) as work:
        await work.over()
        assert codes(work.pods()) == {"0": [0]}
        lost = [one for one in work.pods() if one["status"]["phase"] == "Failed"]
        (condition,) = [
            one for one in lost[0]["status"]["conditions"] if one["type"] == "DisruptionTarget"
        ]
        assert condition["status"] == "True"
        assert "pot" in condition["message"]
        await gone(work, sky)


async def test_definitions_deleted_from_outside(sky: FargateSky) -> None:
    """The next pod of the template registers it anew."""
    async with attended(sky, job(sky, 2, parallelism=1)) as work:
        await until(lambda: work.ran()["0"])
        await asyncio.to_thread(sky.deregister)
        await work.over()
        proven(work, 2)
        await gone(work, sky)
