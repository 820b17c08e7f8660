"""One deployment of a group: its containers in their order, their restarts, to their ends.

Sources: "Run an init container for setup tasks" (order, and which policy init containers have);
"Run containerized tasks with restart policies". ACI documents no back-off: it is the kubelet's, 10
seconds doubled up to 5 minutes, forgotten after 10 minutes of running.
"""

from __future__ import annotations

import asyncio

from adapters.simulators.azure.groups.probes import watch
from adapters.simulators.azure.groups.records import Group, Record, happen
from adapters.simulators.azure.groups.world import World
from adapters.simulators.common.signals import Signal
from bridge.workload import ContainerState, Exit, Running, Waiting, Workload

_BACK_OFF, _LONGEST_BACK_OFF, _GOOD_RUN = 10.0, 300.0, 600.0
_PULL = ("ErrImagePull", "ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName")
_UNSTARTABLE = (*_PULL, "CreateContainerConfigError", "CreateContainerError")
NEVER_STARTED = 128
_LATE = 30.0
"""Real seconds after SIGKILL within which a container is seen to have ended."""


class Run:
    """The containers of a group in the runner. `signal` fires with every change."""

    def __init__(self, group: Group, workload: Workload, world: World, signal: Signal) -> None:
        self.workload = workload
        self._policy = group.policy
        # A group that is deployed anew has other records: these are this deployment's.
        self._inits = tuple(group.inits)
        self._containers = tuple(group.containers)
        self._world = world
        self._signal = signal
        self._stopping = False
        self._starts: dict[str, asyncio.Task[str]] = {}
        """By container: the start of its latest run, and what stood in its way."""
        self.failure = ""
        """Why it can never start: an image, or an init container of policy Never."""

    def all_started(self) -> bool:
        """Whether each of its containers has run."""
        return all(one.has_run for one in self._containers)

    async def go(self) -> None:
        """Until nothing of it will run again."""
        for one in self._inits:
            again = "Never" if self._policy == "Never" else "OnFailure"
            if await self._live(one, again) != 0:
                self.failure = self.failure or f"init container {one.name} has failed"
                self._signal.fire()
                return
        async with asyncio.TaskGroup() as group:
            for one in self._containers:
                group.create_task(self._live(one, self._policy), name=f"container {one.name}")

    async def stop(self, grace: float) -> None:
        """Ends what runs, with so many seconds of the cloud's from SIGTERM to SIGKILL."""
        self._stopping = True
        real = self._world.clock.real(grace)
        await asyncio.gather(*(self._end(one, real) for one in (*self._inits, *self._containers)))

    async def settle(self) -> None:
        """Until nothing is being started: what is removed then is all of it."""
        await asyncio.gather(*self._starts.values(), return_exceptions=True)

    async def _end(self, one: Record, grace: float) -> None:
        start = self._starts.get(one.name)
        if start is None or one.state == "Terminated" or await start:
            return
        if not _is_over(self._seen(one)):
            self._happen(one, "Killing", f"Killing container {one.name}.")
            await self._world.runner.kill(self.workload.identity, one.name, grace)
            await self._signal.until(lambda: _is_over(self._seen(one)), grace + _LATE)
        ended = self._seen(one)
        if isinstance(ended, Exit):
            one.end(ended.code, ended.reason, ended.finished_at)

    async def _live(self, one: Record, policy: str) -> int:
        delay = 0.0
        while True:
            begun = self._world.clock.now()
            code = await self._once(one)
            if self._stopping or self.failure or not _again(policy, code):
                return code
            if self._world.clock.passed(begun) >= _GOOD_RUN:
                delay = 0.0
            one.wait("CrashLoopBackOff" if delay else "")
            self._signal.fire()
            if delay:
                words = f"Back-off restarting failed container {one.name}"
                self._happen(one, "BackOff", words, "Warning")
                await self._world.clock.sleep(delay)
            delay = min(max(_BACK_OFF, 2 * delay), _LONGEST_BACK_OFF)
            one.restarts += 1

    async def _once(self, one: Record) -> int:
        start = self._world.runner.start(self.workload, one.name, one.restarts)
        self._starts[one.name] = asyncio.create_task(start, name=f"start {one.name}")
        # Whoever ends this before it is over must know whether anything runs.
        problem = await asyncio.shield(self._starts[one.name])
        if problem:
            return self._never_started(one, problem)
        await self._signal.until(lambda: _is_settled(self._seen(one)))
        seen = self._seen(one)
        if isinstance(seen, Waiting):
            if seen.reason in _PULL:
                self.failure = f"{seen.reason}: {seen.message}"
            return self._never_started(one, seen.message)
        if isinstance(seen, Exit) and seen.reason == "StartError":
            return self._never_started(one, seen.message)
        started = seen.started_at if isinstance(seen, (Running, Exit)) else None
        one.run(started or self._world.clock.now())
        self._happen(one, "Started", "Started container")
        self._signal.fire()
        watching = asyncio.create_task(
            watch(one, self.workload.identity, self._world), name=f"probes {one.name}"
        )
        try:
            await self._signal.until(lambda: isinstance(self._seen(one), Exit))
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        ended = self._seen(one)
        assert isinstance(ended, Exit)
        one.end(ended.code, ended.reason, ended.finished_at)
        self._signal.fire()
        return ended.code

    def _seen(self, one: Record) -> object:
        found: ContainerState | None = self._world.runner.state(
            self.workload.identity.uid, one.name
        )
        return found.state if found is not None and found.restart == one.restarts else None

    def _never_started(self, one: Record, words: str) -> int:
        self._happen(one, "Failed", f"Error: {words}", "Warning")
        one.end(NEVER_STARTED, "Error", self._world.clock.now())
        self._signal.fire()
        return NEVER_STARTED

    def _happen(self, one: Record, name: str, words: str, type_: str = "Normal") -> None:
        happen(one.events, name, words, self._world.clock.now(), type_)


def _again(policy: str, code: int) -> bool:
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def _is_settled(state: object) -> bool:
    return isinstance(state, Running) or _is_over(state)


def _is_over(state: object) -> bool:
    return isinstance(state, Exit) or (isinstance(state, Waiting) and state.reason in _UNSTARTABLE)
