"""Which part of one log is of which run."""

from __future__ import annotations

import hmac
import math
from collections.abc import AsyncGenerator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.adapter import LogOptions
from bridge.errors import NotFound
from bridge.helper.logs import Marks, Window, window, within
from bridge.workload import ContainerState, Exit, Identity, Running, State, Waiting

FIRST = Exit(5, 20.0, "Error", started_at=10.0)
SECOND = Exit(5, 40.0, "Error", started_at=30.0)
BACK = Waiting("CrashLoopBackOff")
MARKS = Marks(bytes(32), Identity("c", "n", "ns", "p", "uid-1", 2), "m")
TIME = b"1970-01-01T00:00:%02d.000000000Z "


def mark(number: int, container: str = "m") -> bytes:
    text = f"podbridge run 1\nuid-1\n2\n{container}\n{number}\n"
    seal = hmac.new(bytes(32), text.encode(), "sha256").hexdigest()[:32]
    return f"podbridge-run/1 {number} {seal}\n".encode()


async def read(span: Window, pieces: Sequence[bytes], **options: object) -> list[bytes]:
    async def log(_: LogOptions) -> AsyncGenerator[bytes, None]:
        for one in pieces:
            yield one

    made = LogOptions(**options)  # type: ignore[arg-type]
    return [piece async for piece in within(log, made, span, MARKS)]


@pytest.mark.parametrize(
    ("state", "restart", "previous", "latest", "before"),
    [
        (Running(10.0), 0, None, Window(0), None),
        (FIRST, 0, None, Window(0), None),
        (Running(30.0), 1, FIRST, Window(1, 30.0), Window(0, 10.0, 30.0)),
        (SECOND, 1, FIRST, Window(1, 30.0), Window(0, 10.0, 30.0)),
        # What waits to run again shows the run that ended, whichever is asked for.
        (BACK, 1, SECOND, Window(1, 30.0, math.inf), Window(1, 30.0, math.inf)),
        (
            Waiting("ContainerCreating"),
            1,
            FIRST,
            Window(0, 10.0, 20.0),
            Window(0, 10.0, 20.0),
        ),
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
    words = ((10, b"begun\n"), (21, b"late\n"), (30, b"again\n"), (31, b"more\n"))
    pieces = [TIME % second + line for second, line in words]
    assert await read(Window(0, 10.0, 30.0), pieces) == [b"begun\n", b"late\n"]
    # Who asks for a run that is over does not wait for the next one.
    assert len(await read(Window(0, 10.0, math.inf), pieces, follow=True)) == 4
    pieces.insert(2, TIME % 21 + mark(1))
    pieces.insert(2, TIME % 21 + b"last\n")
    assert await read(Window(0, 10.0, math.inf), pieces, tail_lines=1) == [b"last\n"]
    assert await read(Window(1, 10.0, math.inf), pieces, tail_lines=2) == [b"again\n", b"more\n"]


async def test_who_follows_a_run_comes_to_its_end_and_sees_no_mark() -> None:
    pieces = [b"one\n", mark(1), mark(1), b"two\n", mark(2), b"three\n"]
    assert await read(Window(0), pieces, follow=True) == [b"one\n"]
    assert await read(Window(1), pieces, follow=True) == [b"one\n", b"two\n"]
    assert b"".join(await read(Window(2), pieces)) == b"one\ntwo\nthree\n"
    stamped = [TIME % 1 + one for one in pieces]
    assert await read(Window(0), stamped, follow=True, timestamps=True) == [TIME % 1 + b"one\n"]


async def test_what_only_looks_like_a_mark_is_the_containers_own() -> None:
    others = [mark(1, "other"), mark(1)[:-5] + b"0000\n", b"x" + mark(1), mark(1)[:-1] + b"x\n"]
    pieces = [*others, b"podbridge-run/1 " + b"9" * 999 + b"\n", b"podbridge-run"]
    assert b"".join(await read(Window(0), pieces)) == b"".join(pieces)
    # An unfinished line is shown at once, unless a mark begins so.
    assert await read(Window(0), [b"name: ", b"po", b"d\n", b"po", b"x"]) == [
        b"name: ",
        b"po",
        b"d\n",
        b"pox",
    ]


@given(st.lists(st.sampled_from([b"a\n", b"\n", b"podbridge-run/1 x\n", b"po", b"end"])), st.data())
async def test_however_a_log_is_cut_it_is_the_same(words: list[bytes], data: st.DataObject) -> None:
    text = b"".join(words)
    whole = text + (b"" if not text or text.endswith(b"\n") else b"\n") + mark(1) + b"later\n"
    for stamped in (False, True):
        log = whole
        if stamped:
            log = b"".join(TIME % 1 + line for line in whole.splitlines(keepends=True))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=9)))
        pieces = [log[one:other] for one, other in zip([0, *cuts], [*cuts, len(log)], strict=True)]
        found = b"".join(await read(Window(0), pieces, timestamps=stamped))
        assert found == log[: log.index(mark(1)) - (len(TIME % 1) if stamped else 0)]
