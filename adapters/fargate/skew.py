"""How far this machine's clock is from AWS's, by the `Date` of AWS's answers.

Tasks have AWS's times. A machine whose clock is wrong by minutes would end them early or late, and
give up what it has just asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

_log = logging.getLogger(__name__)

_SLACK = 5.0
"""Seconds by which clocks may differ: less says nothing, and does no harm."""
_WHOLE = 1.0
"""Seconds that a `Date` stands for: it has no fractions."""


class Skew:
    """AWS's clock, from this machine's (`clock`, epoch seconds). Threads share it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        """This machine's."""
        self._offset = 0.0

    def now(self) -> float:
        """The time as AWS has it (epoch seconds)."""
        return self.clock() + self._offset

    def learn(self, answer: Mapping[str, Any], began: float) -> None:
        """What an answer of AWS says of it. `began`: when it was asked for, by this machine's
        clock. The answer was dated between then and now, so one that took long says little."""
        ended = self.clock()
        headers = (answer.get("ResponseMetadata") or {}).get("HTTPHeaders") or {}
        try:
            said = parsedate_to_datetime(headers["date"]).timestamp()
        except (KeyError, TypeError, ValueError):
            return
        least, most = said - ended, said + _WHOLE - began
        # Where the clock was set meanwhile, that is no measure.
        if most < least or least - _SLACK <= self._offset <= most + _SLACK:
            return
        found = (least + most) / 2
        self._offset = 0.0 if abs(found) < _SLACK else found
        _log.warning("this machine's clock is %.0f s from AWS's, which is used", self._offset)
