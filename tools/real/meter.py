"""Counts what tasks cost while they run, and lets none begin that could pass the limit.

A task counts with the longest that it can be billed until it is seen to have ended, and from then
on with what it took, a minute at least. So the limit holds whatever becomes of whoever watches, but
for a task that hangs before its containers start: it ends only where somebody stops it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from botocore import exceptions as sdk

from bridge.cost.money import at_most, over
from bridge.errors import QuotaExceeded

_TOKEN = "podbridge.token"
_UNSENT = (sdk.EndpointConnectionError, sdk.ConnectTimeoutError, sdk.ProxyConnectionError)
"""After these nothing was launched."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What one task costs, and how many there may be."""

    hourly: Decimal
    """US dollars."""
    least: float
    """Seconds that are billed at least."""
    longest: float
    """Seconds after which nothing of a task is billed any more: one that starts ends by itself, one
    that does not is stopped."""
    tasks: int
    """How many may be started in all."""
    limit: Decimal
    """US dollars for all of them."""

    @property
    def worst(self) -> Decimal:
        """What one can cost at most."""
        return over(self.hourly, max(self.least, self.longest))


@dataclass(slots=True)
class _Task:
    asked_at: float
    arn: str = ""
    seconds: float | None = None
    """How long it was billed; None: it may run."""
    doubtful: bool = False
    """Whether it was asked for without an answer that says what became of it: it may run, whatever
    is said of the token from then on."""


class Meter:
    """One run's. Calls come from several threads."""

    def __init__(self, terms: Terms, clock: Callable[[], float] = time.time) -> None:
        self._terms, self._clock = terms, clock
        self._lock = threading.Lock()
        self._tasks: dict[str, _Task] = {}
        """By RunTask's token: the same one gives the same task."""
        self.refused = ""
        """Why a task was not started; empty: none was refused."""

    @property
    def tasks(self) -> int:
        """How many were started, or may have been."""
        return len(self._tasks)

    @property
    def running(self) -> list[str]:
        """The ARNs of those that were not seen to have ended."""
        return [one.arn for one in self._tasks.values() if one.arn and one.seconds is None]

    @property
    def unknown(self) -> int:
        """How many of them nobody has answered for."""
        return sum(not one.arn for one in self._tasks.values())

    @property
    def spent(self) -> Decimal:
        """What they cost until now, in US dollars: about what the bill will say."""
        with self._lock:
            now = self._clock()
            return sum((self._cost(one, now - one.asked_at) for one in self._tasks.values()), _NIL)

    @property
    def committed(self) -> Decimal:
        """What they can still come to, if what runs does so to its hard stop."""
        with self._lock:
            return self._committed()

    def _committed(self) -> Decimal:
        longest = self._terms.longest
        return sum((self._cost(one, longest) for one in self._tasks.values()), _NIL)

    def _cost(self, one: _Task, running: float) -> Decimal:
        seconds = running if one.seconds is None else one.seconds
        return over(self._terms.hourly, max(self._terms.least, seconds))

    def lacks(self, tasks: int) -> str:
        """Why so many more tasks may not be started; empty: they may."""
        with self._lock:
            return self._lacks(tasks)

    def check(self) -> None:
        """QuotaExceeded, once a task was refused."""
        if self.refused:
            raise QuotaExceeded(self.refused)

    def _lacks(self, tasks: int) -> str:
        terms = self._terms
        if len(self._tasks) + tasks > terms.tasks:
            return f"{len(self._tasks)} tasks were started, and {terms.tasks} were reckoned with"
        if self._committed() + tasks * terms.worst > terms.limit:
            return (
                f"{len(self._tasks)} tasks can come to {at_most(self._committed())}, and with "
                f"{tasks} more the limit of {at_most(terms.limit)} could be passed"
            )
        return ""

    def attach(self, session: Any) -> None:
        """Watches all clients that this session of boto3 is going to make."""
        events = session.events
        events.register_first("before-parameter-build.ecs.RunTask", self._asked)
        events.register("after-call.ecs.RunTask", self._launched)
        events.register("after-call-error.ecs.RunTask", self._lost)
        events.register("after-call.ecs.DescribeTasks", self._seen)
        events.register("after-call.ecs.StopTask", self._seen)

    def _asked(self, params: Mapping[str, Any], context: dict[str, Any], **_: Any) -> None:
        token = str(params["clientToken"])
        context[_TOKEN] = token
        with self._lock:
            if (known := self._tasks.get(token)) is not None:
                # Not answered yet, or it would be gone or have an ARN.
                known.doubtful = True
                return
            if problem := self._lacks(1):
                self.refused = problem
                # Nothing was sent: who catches it knows that nothing runs.
                raise QuotaExceeded(problem)
            self._tasks[token] = _Task(self._clock())

    def _launched(self, parsed: Mapping[str, Any], context: dict[str, Any], **_: Any) -> None:
        status = parsed.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        with self._lock:
            one = self._tasks[context[_TOKEN]]
            if status < 300 and parsed.get("tasks"):
                one.arn = parsed["tasks"][0]["taskArn"]
            elif status < 500:
                self._refuse(context[_TOKEN])
            else:
                one.doubtful = True

    def _lost(self, exception: Exception, context: dict[str, Any], **_: Any) -> None:
        with self._lock:
            if isinstance(exception, _UNSENT):
                self._refuse(context[_TOKEN])
            else:
                self._tasks[context[_TOKEN]].doubtful = True

    def _refuse(self, token: str) -> None:
        """This time it was not started: it does not count, unless it may have been before."""
        one = self._tasks[token]
        if not one.arn and not one.doubtful:
            del self._tasks[token]

    def _seen(self, parsed: Mapping[str, Any], **_: Any) -> None:
        found = [*(parsed.get("tasks") or ()), *([parsed["task"]] if parsed.get("task") else ())]
        ended = {
            one["taskArn"]: (one["stoppedAt"] - one["createdAt"]).total_seconds()
            for one in found
            if one.get("lastStatus") == "STOPPED" and "stoppedAt" in one and "createdAt" in one
        }
        with self._lock:
            for one in self._tasks.values():
                if one.arn in ended:
                    one.seconds = ended[one.arn]


_NIL = Decimal(0)
