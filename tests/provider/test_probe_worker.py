"""When a probe asks, and what its answers come to."""

from __future__ import annotations

import asyncio

import pytest
from support import virtual

from bridge.provider.probing.actions import Outcome, Result
from bridge.provider.probing.care import Care
from bridge.provider.probing.worker import Counter, Kind, watch
from bridge.workload import ExecAction, Probe

ASK = ExecAction(("x",))


@pytest.mark.parametrize(
    ("answers", "verdicts"),
    [
        ("+", "+"),
        ("---", "..-"),
        ("--+--", "..+.."),
        ("----", "..--"),
        ("+-+---", "+.+..-"),
    ],
)
def test_three_failures_or_one_success_in_a_row(answers: str, verdicts: str) -> None:
    counter = Counter(Probe(ASK))
    shown = {None: ".", True: "+", False: "-"}
    assert "".join(shown[counter.add(one == "+")] for one in answers) == verdicts


def asked(kind: Kind, probe: Probe, *answers: tuple[float, Result]) -> tuple[list[float], str]:
    """When it asked, and what it told, until it ended or the answers did."""

    async def story() -> tuple[list[float], str]:
        loop, left = asyncio.get_running_loop(), list(answers)
        times: list[float] = []
        told: list[bool] = []
        out = asyncio.Event()

        async def ask() -> Outcome:
            if not left:
                out.set()
                await asyncio.sleep(1e6)
            times.append(round(loop.time(), 6))
            seconds, result = left.pop(0)
            await asyncio.sleep(seconds)
            return Outcome(result)

        def tell(_: Kind, good: bool) -> None:
            told.append(good)

        work = asyncio.create_task(
            watch(kind, probe, ask, first=2.0, hear=lambda *_: None, tell=tell)
        )
        waiting = asyncio.create_task(out.wait())
        await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
        for task in (work, waiting):
            task.cancel()
        return times, "".join("+" if one else "-" for one in told)

    return virtual.run(story())


GOOD, BAD, UNKNOWN = (0.1, Result.SUCCESS), (0.1, Result.FAILURE), (0.0, Result.UNKNOWN)
LIVE = Probe(ASK, period=5, failure_threshold=2)


def test_it_asks_every_period_from_the_first() -> None:
    assert asked(Kind.READINESS, LIVE, GOOD, BAD, BAD, GOOD) == ([2, 7, 12, 17], "+-+")


def test_it_is_on_hold_once_liveness_failed_or_startup_is_known() -> None:
    assert asked(Kind.LIVENESS, LIVE, GOOD, BAD, BAD, GOOD) == ([2, 7, 12], "+-")
    assert asked(Kind.STARTUP, LIVE, BAD, GOOD, GOOD) == ([2, 7], "+")
    assert asked(Kind.STARTUP, LIVE, BAD, BAD, GOOD) == ([2, 7], "-")


def test_slow_answers_make_up_no_missed_turns() -> None:
    slow = (12.0, Result.SUCCESS)
    assert asked(Kind.READINESS, LIVE, slow, GOOD, GOOD, GOOD)[0] == [2, 14, 17, 22]


def test_what_cannot_be_tried_is_tried_three_times_and_counts_for_nothing() -> None:
    times, told = asked(Kind.LIVENESS, LIVE, BAD, UNKNOWN, UNKNOWN, UNKNOWN, BAD)
    assert times == [2, 7, 7, 7, 12]
    assert told == "-"
    warning = (0.0, Result.WARNING)
    assert asked(Kind.READINESS, LIVE, UNKNOWN, warning) == ([2, 2], "+")


def test_old_runs_are_spread_over_a_period_unless_somebody_waits() -> None:
    now = 1000.0
    care = Care(lambda: now, lambda _: None, jitter=lambda: 0.5)
    probe = Probe(ASK, initial_delay=30, period=20)
    assert care.first(now - 1, probe, pressing=False) == 29
    assert care.first(now - 500, probe, pressing=False) == 10
    assert care.first(now - 500, probe, pressing=True) == 0
