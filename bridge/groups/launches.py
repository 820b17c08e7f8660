"""Brings pods on their way: one try after another, one at a time for each pod, until it is known
what has come of them."""

from __future__ import annotations

import asyncio
import logging
from typing import Generic, TypeVar

from bridge.errors import BridgeError, Invalid, Throttled, Unsupported
from bridge.groups.cloud import GroupCloud
from bridge.groups.pods import Pod, Pods
from bridge.workload import Key, Waiting

_log = logging.getLogger(__name__)

FIRST, LONGEST = 1.0, 300.0
"""Seconds before what was refused is tried again: doubling from the first to the longest."""

P = TypeVar("P", bound=Pod)


class Launches(Generic[P]):
    """Those of one backend, in the background."""

    def __init__(self, cloud: GroupCloud[P], pods: Pods[P]) -> None:
        self._cloud = cloud
        self._pods = pods
        self._resting: dict[Key, asyncio.Event] = {}

    def start(self, pod: P) -> None:
        """Launches it, unless that is under way."""
        if pod.launch is None and not pod.is_halted:
            pod.launch = asyncio.create_task(self._launch(pod), name=f"launch {pod.identity.uid}")

    async def end(self, pod: P) -> None:
        """Launches it no further; returns when it is known how far it has come. Unavailable: that
        takes a while."""
        pod.is_halted = True
        if (resting := self._resting.get(pod.identity.key)) is not None:
            resting.set()
        if pod.launch is not None:
            # Not cancelled: what the cloud was just asked for would come all the same.
            await asyncio.gather(pod.launch, return_exceptions=True)
        await self._cloud.find_out(pod)

    async def close(self) -> None:
        """Ends what is under way. What runs goes on running."""
        launches = [pod.launch for pod in self._pods if pod.launch is not None]
        for one in launches:
            one.cancel()
        await asyncio.gather(*launches, return_exceptions=True)

    async def _launch(self, pod: P) -> None:
        pause = FIRST * 2.0 ** min(pod.tries, 9)
        try:
            if pod.tries:
                await self._rest(pod, min(pause, LONGEST))
            while not pod.is_halted:
                wait = await self._try(pod)
                if wait is None:
                    return
                await self._rest(pod, min(LONGEST, max(wait, pause)))
                pause = min(pause * 2, LONGEST)
        finally:
            pod.launch = None
            self._pods.tell(pod)

    async def _rest(self, pod: P, seconds: float) -> None:
        if pod.is_halted:
            return
        halted = self._resting[pod.identity.key] = asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                await halted.wait()
        except TimeoutError:
            pass
        finally:
            del self._resting[pod.identity.key]

    async def _try(self, pod: P) -> float | None:
        """One try. None: nothing more to do, else the least seconds until the next one."""
        try:
            if await self._cloud.launch(pod) and not self._is_dead(pod):
                return None
            return 0.0
        except (Invalid, Unsupported) as error:
            pod.refused = Waiting(error.kind, error.message)
            return None
        except BridgeError as error:
            _log.info("pod %s: %s", pod.identity.uid, error)
            self._pods.waits(pod, Waiting(error.kind, error.message))
            return (error.retry_after or 0.0) if isinstance(error, Throttled) else 0.0
        except Exception as error:  # noqa: BLE001 - the pod is shown as waiting, not forgotten
            _log.exception("pod %s", pod.identity.uid)
            self._pods.waits(pod, Waiting("CreateContainerError", repr(error)))
            return 0.0

    def _is_dead(self, pod: P) -> bool:
        """Whether the group that was come to has ended already, and never started: nobody looks at
        one that has stopped, so the next one is asked for here."""
        if not pod.never_started:
            return False
        self._pods.waits(pod, pod.failure())
        pod.tries += 1
        return True
