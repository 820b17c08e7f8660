"""Does what is due for a group once the cloud tells of it, whoever has looked.

One that never starts is ended and replaced, and one that runs for longer than it may is ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from bridge.errors import BridgeError, NotFound
from bridge.groups.cloud import GroupCloud
from bridge.groups.launches import Launches
from bridge.groups.pods import Ending, Pod, Pods

_log = logging.getLogger(__name__)

P = TypeVar("P", bound=Pod)


class Due(Generic[P]):
    """What is done for the groups of one backend."""

    def __init__(
        self,
        *,
        cloud: GroupCloud[P],
        pods: Pods[P],
        launches: Launches[P],
        start_deadline: float,
        look_at: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        """`start_deadline`: seconds in which a group has to run. `look_at`: has the pod of a mark
        looked at now. `clock`: the cloud's, with which its times are compared."""
        self.acts = True
        """Whether what is due is done; else there is only a look."""
        self._cloud = cloud
        self._pods = pods
        self._launches = launches
        self._start_deadline = start_deadline
        self._look_at = look_at
        self._clock = clock
        self._steps: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Ends what is under way."""
        steps = list(self._steps.values())
        for one in steps:
            one.cancel()
        await asyncio.gather(*steps, return_exceptions=True)

    def advance(self, pod: P) -> None:
        """Does what is due for its group, as that is known."""
        if pod.is_halted or pod.ending is Ending.DELETED or not self.acts:
            return
        if pod.never_started:
            if pod.launch is None:
                pod.waiting = pod.failure()
                pod.tries += 1
                pod.ending = None
                self._launches.start(pod)
            return
        if pod.is_stopped or pod.ending is not None:
            return
        now, started = self._clock(), pod.started_at
        if started is not None:
            if pod.hard_stop is not None and now > started + pod.hard_stop:
                self._end(pod, Ending.HARD_STOP)
        elif now > pod.created_at + self._start_deadline:
            self._end(pod, Ending.LATE)

    def _end(self, pod: P, why: Ending) -> None:
        if pod.mark in self._steps:
            return
        _log.warning("pod %s: its group is ended: %s", pod.identity.uid, why.value)

        async def end() -> None:
            await self._cloud.end(pod, why)
            pod.ending = why
            self._look_at(pod.mark)

        self.begin(pod.mark, end)

    def begin(self, name: str, do: Callable[[], Awaitable[None]]) -> None:
        """Does it in the background; whoever wants it still will ask again where it fails."""

        async def step() -> None:
            try:
                await do()
            except BridgeError as error:
                _log.info("%s: %s", name, error)
            finally:
                self._steps.pop(name, None)

        self._steps[name] = asyncio.create_task(step(), name=f"end {name}")

    async def end(self, pod: P, why: Ending) -> None:
        """Begins to end its group. Errors as of the cloud's calls; that it is gone is none."""
        pod.ending = why
        try:
            await self._cloud.end(pod, why)
        except NotFound:
            pod.missing = True
        self._look_at(pod.mark)

    def kill(self, pod: P) -> None:
        """Ends what should have ended by now."""
        if pod.runs and pod.ending is None:
            self._end(pod, Ending.STOPPED)

    async def stopped(self, pod: P) -> None:
        """Returns once nothing of its group runs, or the cloud no longer has it."""
        with self._pods.listen() as listener:
            while pod.runs and not pod.missing:
                self._look_at(pod.mark)
                await listener.take()
