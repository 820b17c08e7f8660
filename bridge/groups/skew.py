"""How far this machine's clock is from a cloud's, by the `Date` of the cloud's answers.

What runs there has the cloud's times. A machine whose clock is wrong by minutes would end it early
or late, and give up what it has just asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from email.utils import parsedate_to_datetime

_log = logging.getLogger(__name__)

_SLACK = 5.0
"""Seconds by which clocks may differ: less says nothing, and does no harm."""
_WHOLE = 1.0
"""Seconds that a `Date` stands for: it has no fractions."""


class Skew:
    """A cloud's clock, from this machine's (`clock`, epoch seconds). Threads share it. `cloud`: its
    name, for people."""

    def __init__(self, clock: Callable[[], float], cloud: str) -> None:
        self.clock = clock
        """This machine's."""
        self._cloud = cloud
        self._offset = 0.0

    def now(self) -> float:
        """The time as the cloud has it (epoch seconds)."""
        return self.clock() + self._offset

    def learn(self, date: str, began: float) -> None:
        """What an answer says of it by its header `Date`; empty: it had none. `began`: when it was
        asked for, by this machine's clock. The answer was dated between then and now, so one that
        took long says little."""
        ended = self.clock()
        try:
            said = parsedate_to_datetime(date).timestamp()
        except (TypeError, ValueError):
            return
        least, most = said - ended, said + _WHOLE - began
        # Where the clock was set meanwhile, that is no measure.
        if most < least or least - _SLACK <= self._offset <= most + _SLACK:
            return
        found = (least + most) / 2
        self._offset = 0.0 if abs(found) < _SLACK else found
        _log.warning(
            "this machine's clock is %.0f s from %s's, which is used", self._offset, self._cloud
        )
