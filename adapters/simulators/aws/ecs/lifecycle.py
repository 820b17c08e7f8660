"""The life of one task, from PROVISIONING to STOPPED.

Source: "Amazon ECS task lifecycle" in the developer guide for the states, "Stopped tasks error
codes" for reasons. The notice of a Spot reclaim is an event and a SIGTERM, both at once.
"""

from __future__ import annotations

import asyncio

from adapters.simulators.aws.ecs.containers import Containers
from adapters.simulators.aws.ecs.records import Task
from adapters.simulators.aws.ecs.sources import Unfetched, fetch, open_streams
from adapters.simulators.aws.ecs.workloads import (
    DEFAULT_STOP_TIMEOUT,
    NoSuchUser,
    identity_of,
    workload_of,
)
from adapters.simulators.aws.ecs.world import World
from adapters.simulators.common.signals import Signal

FAILED = "TaskFailedToStart"
ESSENTIAL = "Essential container in task exited"
INTERRUPTED = "Your Spot Task was interrupted."
UNPLACED = "Timeout waiting for network interface provisioning to complete."
NO_ADDRESS = (
    "Unexpected EC2 error while attempting to Create Network Interface with public IP assignment"
    " disabled in subnet '{}': InsufficientFreeAddressesInSubnet"
)


class Life:
    """One task's. `run` returns when the task is STOPPED and holds nothing any more."""

    def __init__(self, task: Task, world: World) -> None:
        self._task = task
        self._world = world
        self._signal = Signal()
        self._identity = identity_of(task, world.owner)
        self._containers: Containers | None = None

    async def run(self) -> None:
        """Lives it. Cancelled: what was started is let go of."""
        fates = [
            asyncio.create_task(self._reclaim(), name=f"spot {self._task.id}"),
            asyncio.create_task(self._tell_of_stop(), name=f"stop {self._task.id}"),
        ]
        living = asyncio.create_task(self._to_the_end(), name=f"life {self._task.id}")
        vanishing = asyncio.create_task(self._task.taken_away.wait(), name=f"gone {self._task.id}")
        try:
            await asyncio.wait({living, vanishing}, return_when=asyncio.FIRST_COMPLETED)
            self._task.vanished = not living.done()
            if living.done():
                living.result()
        finally:
            vanishing.cancel()
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
            for one in fates:
                one.cancel()
            if self._containers is not None:
                await self._containers.cancel()
            await self._world.runner.delete(self._identity)
            self._world.network.release(self._task.interface)
            self._world.ended(self._task)

    async def _tell_of_stop(self) -> None:
        await self._task.stop_wanted.wait()
        self._signal.fire()

    async def _to_the_end(self) -> None:
        try:
            if await self._provision() and await self._prepare():
                await self._work()
        except Exception as error:
            self._fail(f"The simulator made a mistake: {error!r}")
            await self._leave()
            raise
        await self._leave()

    async def _provision(self) -> bool:
        """Whether the task has a place and an address."""
        task, timing = self._task, self._world.timing
        if "stuck-provisioning" in task.fate:
            if not await self._pause(timing.stuck):
                self._fail(UNPLACED)
            # Such a task ends without any containers.
            task.containers.clear()
            return False
        if await self._pause(timing.provisioning):
            return False
        if not self._world.network.attach(task.interface):
            self._fail(NO_ADDRESS.format(task.interface.subnet))
            return False
        task.interface.status = "ATTACHED"
        self._now("connectivityAt")
        self._set("PENDING")
        return True

    async def _prepare(self) -> bool:
        """Whether everything that the containers need is there."""
        task, world = self._task, self._world
        self._now("pullStartedAt")
        if "never-starts" in task.fate:
            await task.stop_wanted.wait()
            return False
        if await self._pause(world.timing.pulling):
            return False
        try:
            sources = fetch(task, world.stores)
            streams = open_streams(task, world.stores, world.place.region)
            images = world.runner.has_images
            workload = workload_of(task, self._identity, sources, world.place.region, images)
        except Unfetched as error:
            self._fail(str(error))
            return False
        except NoSuchUser as error:
            self._fail(f"CannotStartContainerError: {error}")
            return False
        world.runner.listen(task.id, self._signal.fire)
        problem = await world.runner.prepare(workload)
        if problem:
            self._fail(f"CannotStartContainerError: {problem}")
            return False
        self._now("pullStoppedAt")
        self._containers = Containers(
            task,
            workload=workload,
            streams=streams,
            world=world,
            signal=self._signal,
            changed=self._changed,
        )
        return True

    async def _work(self) -> None:
        """The containers run until the task has to end."""
        task, containers = self._task, self._containers
        assert containers is not None
        containers.begin()

        def decided() -> bool:
            return containers.all_started() or containers.is_over() or task.stop_wanted.is_set()

        await self._signal.until(decided)
        # One whose image could not be had has stopped as well, and never was.
        if not containers.failure and any(one.runtime_id for one in task.containers):
            self._own_address()
            self._set("ACTIVATING")
            await self._pause(self._world.timing.activating)
            if containers.all_started():
                self._now("startedAt")
                self._set("RUNNING")
        await self._signal.until(lambda: containers.is_over() or task.stop_wanted.is_set())
        self._say_why(containers)
        if task.stop_code == "TerminationNotice":
            await self._interrupted(containers)
        self._set("DEACTIVATING")
        await self._world.clock.sleep(self._world.timing.deactivating)
        self._set("STOPPING")
        await containers.stop()
        await containers.wait()
        self._now("executionStoppedAt")

    def _own_address(self) -> None:
        address = self._world.runner.address(self._task.id)
        if address:
            self._task.interface.address = address

    def _say_why(self, containers: Containers) -> None:
        if self._task.stop_wanted.is_set():
            return
        unstarted = [
            one.reason
            for one in self._task.containers
            if one.essential and one.last_status == "STOPPED" and not one.runtime_id
        ]
        if containers.failure or any(unstarted):
            self._fail(containers.failure or next(one for one in unstarted if one))
        else:
            self._task.ask_to_stop("EssentialContainerExited", ESSENTIAL, self._world.clock.now())

    async def _leave(self) -> None:
        """Gives the place back, and keeps only what can be described."""
        task = self._task
        for one in task.containers:
            if one.last_status != "STOPPED":
                one.stop(None, one.reason)
        self._set("DEPROVISIONING")
        self._world.network.release(task.interface)
        await self._world.clock.sleep(self._world.timing.deprovisioning)
        self._now("stoppedAt")
        self._set("STOPPED")

    async def _reclaim(self) -> None:
        """A Spot task may be asked to go, once it runs."""
        if not self._task.is_spot:
            return
        await self._task.reclaimed.wait()
        await self._signal.until(lambda: self._task.last_status == "RUNNING")
        self._task.ask_to_stop("TerminationNotice", INTERRUPTED, self._world.clock.now())

    async def _interrupted(self, containers: Containers) -> None:
        """The notice: RUNNING still, SIGTERM already, at most two minutes."""
        task, world = self._task, self._world
        self._changed()

        async def end(name: str, timeout: float) -> None:
            grace = world.clock.real(min(timeout, world.timing.spot_notice))
            await world.runner.kill(self._identity, name, grace)

        running = [one for one in task.containers if one.last_status == "RUNNING"]
        await asyncio.gather(
            *(
                end(one.name, one.definition.get("stopTimeout", DEFAULT_STOP_TIMEOUT))
                for one in running
            )
        )
        notice = world.clock.real(world.timing.spot_notice)
        await self._signal.until(lambda: all(o.last_status == "STOPPED" for o in running), notice)
        task.stop_code = "SpotInterruption"

    async def _pause(self, seconds: float) -> bool:
        """Waits; True as soon as somebody wants the task to stop."""
        try:
            async with asyncio.timeout(self._world.clock.real(seconds)):
                await self._task.stop_wanted.wait()
        except TimeoutError:
            return self._task.stop_wanted.is_set()
        return True

    def _fail(self, reason: str) -> None:
        self._task.ask_to_stop(FAILED, reason, self._world.clock.now())

    def _now(self, moment: str) -> None:
        self._task.moments[moment] = self._world.clock.now()

    def _set(self, status: str) -> None:
        self._task.last_status = status
        self._changed()

    def _changed(self) -> None:
        self._task.version += 1
        self._world.changed(self._task)
        self._signal.fire()
