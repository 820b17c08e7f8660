"""A cloud's clock, from this machine's and the dates of answers."""

from __future__ import annotations

import pytest

from bridge.groups.skew import Skew

AT = "Thu, 01 Jan 2026 00:00:00 GMT"
THEN = 1767225600.0


@pytest.mark.parametrize(
    ("local", "took", "offset"),
    [
        (THEN, 0.1, 0),
        (THEN + 4, 0.1, 0),
        (THEN + 600, 0.1, -599.5),
        (THEN - 600, 0.1, 600.5),
        # It may have been dated at any time since it was asked for.
        (THEN + 25, 30, 0),
    ],
)
def test_the_clock_is_corrected(local: float, took: float, offset: float) -> None:
    skew = Skew(lambda: local, "the cloud")
    skew.learn(AT, local - took)
    assert skew.now() - local == pytest.approx(offset, abs=0.2)


def test_the_clock_may_be_set_right() -> None:
    local = [THEN + 600]
    skew = Skew(lambda: local[0], "the cloud")
    skew.learn(AT, local[0])
    local[0] = THEN
    skew.learn(AT, THEN)
    assert skew.now() == THEN
    # It was set while the call was under way.
    skew.learn(AT, THEN + 600)
    skew.learn("", THEN)
    skew.learn("soon", THEN)
    assert skew.now() == THEN
