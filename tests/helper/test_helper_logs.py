"""Which part of one log is of which run."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator

import pytest

from bridge.adapter import LogOptions
from bridge.errors import NotFound
from bridge.helper.logs import Window, window, within
from bridge.workload import ContainerState, Exit, Running, State, Waiting

FIRST = Exit(5, 20.0, "Error", started_at=10.0)
SECOND = Exit(5, 40.0, "Error", started_at=30.0)
BACK = Waiting("CrashLoopBackOff")


@pytest.mark.parametrize(
    ("state", "restart", "previous", "latest", "before"),
    [
        (Running(10.0), 0, None, (None, None), None),
        (FIRST, 0, None, (None, None), None),
        (Running(30.0), 1, FIRST, (30.0, None), (10.0, 30.0)),
        (SECOND, 1, FIRST, (30.0, None), (10.0, 30.0)),
        # What waits to run again shows the run that ended, whichever is asked for.
        (BACK, 1, SECOND, (30.0, math.inf), (30.0, math.inf)),
        (Waiting("ContainerCreating"), 1, FIRST, (10.0, 20.0), (10.0, 20.0)),
    ],
)
def test_when_a_run_wrote(
    state: State, restart: int, previous: Exit | None, latest: Window, before: Window | None
) -> None:
    one = ContainerState("m", state, restart, previous)
    assert window(one, previous=False) == latest
    if before is None:
        with pytest.raises(NotFound, match="no previous run"):
            window(one, previous=True)
    else:
        assert window(one, previous=True) == before


def test_of_what_never_ran_there_is_no_log() -> None:
    with pytest.raises(NotFound, match="no run of container m"):
        window(ContainerState("m", Waiting("PodInitializing")), previous=False)


async def test_words_that_were_given_a_late_time_are_of_the_run_that_wrote_them() -> None:
    asked = []

    async def log(options: LogOptions) -> AsyncGenerator[bytes, None]:
        asked.append(options)
        for second, words in ((10, "begun"), (21, "late"), (30, "again"), (31, "more")):
            yield f"1970-01-01T00:00:{second:02}.000000000Z {words}\n".encode()

    async def of(span: Window) -> bytes:
        return b"".join([piece async for piece in within(log, LogOptions(follow=True), span)])

    assert await of((10.0, 30.0)) == b"begun\nlate\n"
    # Who asks for a run that is over does not wait for the next one.
    assert await of((10.0, math.inf)) == b"begun\nlate\nagain\nmore\n"
    assert [(one.since, one.follow) for one in asked] == [(10.0, False)] * 2
