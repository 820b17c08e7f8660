"""Launches and what is due for groups, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from groups_kit import PaperPod, a_pod
from support import virtual

from bridge.errors import (
    BridgeError,
    Invalid,
    NotFound,
    OutOfCapacity,
    Throttled,
    Unavailable,
    Unsupported,
)
from bridge.groups.due import Due
from bridge.groups.launches import FIRST, LONGEST, Launches
from bridge.groups.pods import Ending, Pods
from bridge.workload import Waiting


class PaperCloud:
    """Answers as the test says, and remembers when it was asked."""

    def __init__(self, *answers: bool | Exception) -> None:
        self.answers = list(answers)
        self.asked_at: list[float] = []
        self.ended: list[Ending] = []
        self.in_doubt = False
        self.gone = False
        self.takes = 0.0
        """Seconds for an answer."""

    async def launch(self, pod: PaperPod) -> bool:
        self.asked_at.append(virtual.clock())
        await asyncio.sleep(self.takes)
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        pod.has_group, pod.never_started, pod.is_stopped = answer, False, False
        return answer

    async def find_out(self, pod: PaperPod) -> None:
        if self.in_doubt:
            raise Unavailable("it is too soon to say")

    async def end(self, pod: PaperPod, why: Ending) -> None:
        if self.gone:
            raise NotFound("there is none")
        self.ended.append(why)


class Place:
    """A backend of one pod."""

    def __init__(self, *answers: bool | Exception) -> None:
        self.cloud = PaperCloud(*answers)
        self.pods = Pods[PaperPod]()
        self.pod = self.pods.add(a_pod())
        self.launches = Launches(self.cloud, self.pods)
        self.looked_at: list[str] = []
        self.due = Due(
            cloud=self.cloud,
            pods=self.pods,
            launches=self.launches,
            start_deadline=60.0,
            look_at=self.looked_at.append,
            clock=virtual.clock,
        )

    async def launched(self) -> None:
        self.launches.start(self.pod)
        assert self.pod.launch is not None
        await self.pod.launch

    async def settled(self) -> None:
        """Everything that was begun is done."""
        while self.due._steps or self.pod.launch is not None:  # noqa: ASYNC110 - in virtual time
            await asyncio.sleep(0.1)


def told(story: Callable[[], Awaitable[None]]) -> None:
    virtual.run(story())


def test_what_is_refused_is_tried_again_ever_more_slowly() -> None:
    async def story() -> None:
        place = Place(*(OutOfCapacity("full") for _ in range(12)))
        began = virtual.clock()
        await place.launched()
        waits = [0.0, *(min(LONGEST, FIRST * 2**at) for at in range(12))]
        at = [began + sum(waits[: n + 1]) for n in range(13)]
        assert place.cloud.asked_at == pytest.approx(at)
        assert place.pod.waiting == Waiting("OutOfCapacity", "full")
        assert place.pod.has_group

    told(story)


def test_whoever_throttles_says_how_long_to_wait() -> None:
    async def story() -> None:
        place = Place(Throttled("slow", retry_after=42.0), Throttled("slow", retry_after=1e6))
        await place.launched()
        first, second, third = place.cloud.asked_at
        assert second - first == pytest.approx(42)
        assert third - second == pytest.approx(LONGEST)

    told(story)


@pytest.mark.parametrize("error", [Invalid("no such size"), Unsupported("no such machine")])
def test_only_what_is_permanent_refuses_a_pod(error: BridgeError) -> None:
    async def story() -> None:
        place = Place(error)
        await place.launched()
        assert place.pod.refused == Waiting(error.kind, error.message)
        assert len(place.cloud.asked_at) == 1

    told(story)


def test_a_fault_of_ours_leaves_the_pod_waiting() -> None:
    async def story() -> None:
        place = Place(KeyError("x"))
        await place.launched()
        assert place.pod.waiting.reason == "CreateContainerError"
        assert place.pod.has_group

    told(story)


def test_a_pod_is_launched_by_one_at_a_time() -> None:
    async def story() -> None:
        place = Place()
        place.cloud.takes = 5.0
        for _ in range(3):
            place.launches.start(place.pod)
            await asyncio.sleep(1)
        await place.settled()
        assert len(place.cloud.asked_at) == 1

    told(story)


def test_who_ends_a_launch_waits_for_the_answer_and_no_longer() -> None:
    async def story() -> None:
        place = Place(Unavailable("no answer"))
        place.cloud.takes = 5.0
        place.launches.start(place.pod)
        await asyncio.sleep(1)
        began = virtual.clock()
        await place.launches.end(place.pod)
        assert virtual.clock() - began == pytest.approx(4)
        assert len(place.cloud.asked_at) == 1
        place.cloud.in_doubt = True
        with pytest.raises(Unavailable):
            await place.launches.end(place.pod)
        place.launches.start(place.pod)
        assert place.pod.launch is None, "it is launched no further"

    told(story)


def test_a_group_that_never_starts_is_replaced_after_a_while() -> None:
    async def story() -> None:
        place = Place()
        await place.launched()
        pod = place.pod
        for tries in (1, 2):
            pod.is_stopped = pod.never_started = True
            began = virtual.clock()
            place.due.advance(pod)
            assert pod.waiting.reason == "OutOfCapacity"
            await place.settled()
            assert pod.tries == tries
            assert place.cloud.asked_at[-1] - began == pytest.approx(FIRST * 2**tries)
            assert pod.runs

    told(story)


def test_what_starts_late_is_ended_once() -> None:
    async def story() -> None:
        place = Place()
        await place.launched()
        place.pod.created_at = virtual.clock()
        for _ in range(59):
            await asyncio.sleep(1)
            place.due.advance(place.pod)
        assert place.cloud.ended == []
        for _ in range(5):
            await asyncio.sleep(1)
            place.due.advance(place.pod)
        await place.settled()
        assert place.cloud.ended == [Ending.LATE]
        assert place.looked_at == [place.pod.mark]

    told(story)


def test_what_runs_too_long_is_ended_by_the_time_of_its_start() -> None:
    async def story() -> None:
        place = Place()
        await place.launched()
        place.pod.started_at, place.pod.hard_stop = virtual.clock(), 100.0
        await asyncio.sleep(99)
        place.due.advance(place.pod)
        assert not place.due._steps
        await asyncio.sleep(2)
        place.due.advance(place.pod)
        await place.settled()
        assert place.cloud.ended == [Ending.HARD_STOP]
        assert place.pod.ending is Ending.HARD_STOP

    told(story)


def test_who_only_looks_ends_and_launches_nothing() -> None:
    async def story() -> None:
        place = Place()
        await place.launched()
        place.due.acts = False
        place.pod.started_at, place.pod.hard_stop = virtual.clock() - 200, 100.0
        place.due.advance(place.pod)
        place.pod.is_stopped = place.pod.never_started = True
        place.due.advance(place.pod)
        await place.settled()
        assert place.cloud.ended == []
        assert len(place.cloud.asked_at) == 1

    told(story)


def test_a_deletion_waits_until_the_cloud_says_so() -> None:
    async def story() -> None:
        place = Place()
        await place.launched()
        await place.due.end(place.pod, Ending.DELETED)
        waiting = asyncio.create_task(place.due.stopped(place.pod))
        await asyncio.sleep(1)
        assert not waiting.done()
        place.pod.is_stopped = True
        place.pods.tell(place.pod)
        await waiting
        assert place.cloud.ended == [Ending.DELETED]
        assert place.looked_at

    told(story)


def test_what_is_gone_needs_no_end() -> None:
    async def story() -> None:
        place = Place()
        await place.launched()
        place.cloud.gone = True
        await place.due.end(place.pod, Ending.DELETED)
        assert place.pod.missing
        await place.due.stopped(place.pod)

    told(story)


def test_what_has_been_asked_to_end_is_not_killed_again() -> None:
    async def story() -> None:
        place = Place()
        await place.launched()
        place.due.kill(place.pod)
        await place.settled()
        place.due.kill(place.pod)
        await place.settled()
        assert place.cloud.ended == [Ending.STOPPED]

    told(story)
