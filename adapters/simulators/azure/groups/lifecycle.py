"""The life of one group: deployed, stopped, evicted, deleted; one thing at a time.

Sources: "Azure Container Instances states", for the group's state and its provisioningState; "Azure
Container Instances Spot containers", for what follows an eviction: the group is deployed again,
whatever its restart policy.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Coroutine
from typing import Any

from adapters.simulators.azure.errors import no_capacity_words
from adapters.simulators.azure.groups.operations import Operation
from adapters.simulators.azure.groups.records import Group, happen
from adapters.simulators.azure.groups.run import Run
from adapters.simulators.azure.groups.workloads import NoShare, workload_of
from adapters.simulators.azure.groups.world import World
from adapters.simulators.azure.settings import Fault
from adapters.simulators.common.names import uuid_id
from adapters.simulators.common.signals import Signal
from adapters.simulators.common.web import Json
from bridge.workload import Identity

_logger = logging.getLogger(__name__)

_LATE = "The deployment has not completed within 30 minutes."


class Life:
    """One group's. What is asked for replaces what was on its way."""

    def __init__(self, group: Group, world: World) -> None:
        self.group = group
        self._world = world
        self._signal = Signal()
        self._task: asyncio.Task[None] | None = None
        self._fates: set[asyncio.Task[None]] = set()
        self._run: Run | None = None

    @property
    def identity(self) -> Identity | None:
        """Who the group's latest deployment is to the runner; None: there is none."""
        return self._run.workload.identity if self._run is not None else None

    def deploy(self, body: Json, operation: Operation, fates: list[Fault]) -> None:
        """Begins to run that anew, ending what runs."""
        self.group.body = body
        self.group.reset()
        self.group.state, self.group.provisioning = "Pending", "Pending"
        for task in self._fates:
            # What was to befall the deployment before does not befall this one.
            task.cancel()
        self._replace(self._deploy(operation, fates), operation)
        for one in fates:
            if one.kind == "evict":
                self.evict(one.seconds)

    def stop(self) -> None:
        """Begins to stop it."""
        self._replace(self._stop())

    def delete(self, operation: Operation) -> None:
        """Begins to delete it."""
        self.group.deleting = True
        self._replace(self._delete(operation), operation)

    def evict(self, seconds: float) -> None:
        """Takes its Spot capacity away, so many seconds from now or as soon as it runs."""
        task = asyncio.create_task(self._evict_later(seconds), name=f"evict {self.group.name}")
        self._fates.add(task)
        task.add_done_callback(self._fates.discard)

    async def close(self) -> None:
        """Lets go of everything and removes what runs."""
        tasks = [*self._fates, *([self._task] if self._task is not None else [])]
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._run is not None:
            await self._run.settle()
            await self._world.runner.delete(self._run.workload.identity)

    def _replace(self, work: Coroutine[Any, Any, None], operation: Operation | None = None) -> None:
        self.group.transitioning = True
        before = self._task
        name = f"group {self.group.name}"
        self._task = asyncio.create_task(self._after(before, work, operation), name=name)

    async def _after(
        self,
        before: asyncio.Task[None] | None,
        work: Coroutine[Any, Any, None],
        operation: Operation | None,
    ) -> None:
        try:
            if before is not None:
                before.cancel()
                await asyncio.wait({before})
            await work
        except Exception as error:
            _logger.exception("group %s", self.group.name)
            self._world.mistakes.append(f"group {self.group.name}: {error!r}")
            if operation is not None:
                operation.fail("The simulator has failed.")
            self._settle("Failed", "Failed")
        finally:
            work.close()

    async def _deploy(self, operation: Operation, fates: list[Fault]) -> None:
        group, world = self.group, self._world
        await self._end()
        group.deallocate(world.clock.now())
        await world.clock.sleep(world.settings.timing.pending)
        for one in fates:
            if one.kind == "no-capacity":
                await world.clock.sleep(one.seconds)
                words = no_capacity_words(
                    group.location, group.cpu, group.memory, group.properties["osType"]
                )
                # The name has a dot in what the service answers.
                self._fail(operation, "InsufficientCapacity.", words)
                return
        group.provisioning = "Creating"
        if any(one.kind == "never-starts" for one in fates):
            await world.clock.sleep(world.settings.timing.stuck)
            self._fail(operation, "Failed", _LATE)
            return
        stays = [one.seconds or math.inf for one in fates if one.kind == "stays-running"]
        await self._launch(operation, max(stays, default=0.0))

    async def _launch(self, operation: Operation, stays: float = 0.0) -> None:
        group, world = self.group, self._world
        self._tell_all("Pulling", 'pulling image "{}"')
        group.allocate(world.clock.now())
        await world.clock.sleep(world.settings.timing.pulling)
        identity = Identity(world.owner, "azure", "aci", group.name, uuid_id())
        try:
            shares, images = world.settings.azure_files, world.runner.has_images
            workload = workload_of(group, identity, shares, has_images=images)
        except NoShare as error:
            self._fail(operation, "FailedMount", f"Output: {error}")
            return
        world.runner.listen(identity.uid, self._signal.fire)
        self._run = Run(group, workload, world, self._signal)
        problem = await world.runner.prepare(workload)
        if problem:
            self._fail(operation, "Failed", f"Error: {problem}")
            return
        self._tell_all("Pulled", 'Successfully pulled image "{}"')
        await self._work(self._run, operation, stays)

    async def _work(self, run: Run, operation: Operation, stays: float) -> None:
        """Until nothing of it will run again and, for `stays` seconds, is still said to."""
        group, world = self.group, self._world
        going = asyncio.create_task(run.go(), name=f"run {group.name}")
        going.add_done_callback(lambda _: self._signal.fire())
        try:
            limit = world.clock.real(world.settings.timing.stuck)
            await self._signal.until(
                lambda: run.all_started() or bool(run.failure) or going.done(), limit
            )
            if run.failure or not (run.all_started() or going.done()):
                await run.stop(world.settings.timing.grace)
                self._fail(operation, "Failed", run.failure or _LATE)
                return
            group.address = world.runner.address(run.workload.identity.uid) or "127.0.0.1"
            operation.succeed()
            self._settle("Running", "Succeeded")
            await going
        finally:
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)
        group.deallocate(world.clock.now())
        await world.clock.sleep(stays)
        bad = any(one.code != 0 for one in group.containers)
        self._settle("Failed" if bad else "Succeeded", "Succeeded")

    async def _stop(self) -> None:
        if self._run is not None:
            await self._run.stop(self._world.settings.timing.grace)
        self.group.deallocate(self._world.clock.now())
        self._settle("Stopped", "Succeeded")

    async def _delete(self, operation: Operation) -> None:
        await self._end()
        self.group.deallocate(self._world.clock.now())
        await self._world.clock.sleep(self._world.settings.timing.deleting)
        for one in self._fates:
            one.cancel()
        self._world.gone(self.group)
        operation.succeed()

    async def _evict_later(self, seconds: float) -> None:
        group = self.group
        await self._world.clock.sleep(seconds)
        await self._signal.until(lambda: not group.transitioning or group.deleting)
        if group.state == "Running" and not group.deleting:
            self._replace(self._evict())

    async def _evict(self) -> None:
        group, world = self.group, self._world
        words = "The Spot container group was evicted."
        happen(group.events, "Evicted", words, world.clock.now(), "Warning")
        await self._end()
        group.deallocate(world.clock.now())
        group.reset()
        group.state, group.provisioning = "Pending", "Repairing"
        await world.clock.sleep(world.settings.timing.evicting)
        await self._launch(Operation(group, world.clock.now()))

    async def _end(self) -> None:
        """Ends and removes what runs of it."""
        run, self._run = self._run, None
        if run is not None:
            try:
                await run.stop(self._world.settings.timing.grace)
            finally:
                await self._world.runner.delete(run.workload.identity)

    def _tell_all(self, event: str, words: str) -> None:
        """An event of each container that names its image."""
        for one in (*self.group.inits, *self.group.containers):
            image = one.definition["properties"]["image"]
            happen(one.events, event, words.format(image), self._world.clock.now())

    def _fail(self, operation: Operation, event: str, words: str) -> None:
        """It cannot be deployed."""
        now = self._world.clock.now()
        happen(self.group.events, event, words, now, "Warning")
        self.group.deallocate(now)
        operation.fail(words)
        # "Failed" is a state of groups of policy Never alone.
        self._settle("Failed" if self.group.policy == "Never" else "Pending", "Failed")

    def _settle(self, state: str, provisioning: str) -> None:
        """From now on it can be changed again."""
        self.group.state, self.group.provisioning = state, provisioning
        self.group.transitioning = False
        self._signal.fire()
