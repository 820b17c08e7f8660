"""The containers of one task: in the order of their dependencies, to their ends, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from adapters.simulators.aws.ecs.records import ContainerRecord, Task
from adapters.simulators.aws.ecs.workloads import DEFAULT_STOP_TIMEOUT
from adapters.simulators.aws.ecs.world import World
from adapters.simulators.aws.logdriver import (
    DEFAULT_BUFFER,
    Driver,
    Options,
    buffer_size,
)
from adapters.simulators.aws.shapes import Json
from adapters.simulators.common.signals import Signal
from bridge.errors import BridgeError
from bridge.workload import Exit, Waiting, Workload

_CHECK = {"interval": 30, "timeout": 5, "retries": 3, "startPeriod": 0}
"""A health check's defaults (the model's shape HealthCheck), seconds but for retries."""

_PULL, _CREATE = "CannotPullContainerError", "CannotCreateContainerError"
_ERRORS = {
    "ErrImagePull": _PULL,
    "ErrImageNeverPull": _PULL,
    "ImagePullBackOff": _PULL,
    "InvalidImageName": _PULL,
    "CreateContainerConfigError": _CREATE,
    "CreateContainerError": _CREATE,
}
"""ECS's names of what an engine waits for: Fargate does not try again."""


class Containers:
    """Starts, watches and ends them. `signal` fires with every change."""

    def __init__(
        self,
        task: Task,
        *,
        workload: Workload,
        streams: Mapping[str, tuple[str, str]],
        world: World,
        signal: Signal,
        changed: Callable[[], None],
    ) -> None:
        self._task = task
        self._workload = workload
        self._streams = streams
        self._world = world
        self._signal = signal
        self._changed = changed
        self._running: list[asyncio.Task[None]] = []
        self._stopping = False
        self.failure = ""
        """Why the task cannot go on, beside its containers' own ends."""

    def begin(self) -> None:
        """Starts each as soon as its dependencies allow."""
        self._running = [
            asyncio.create_task(self._live(one), name=f"container {self._task.id} {one.name}")
            for one in self._task.containers
        ]

    async def wait(self) -> None:
        """Until each has ended and its log is out. What one of them raised is raised."""
        await asyncio.gather(*self._running)

    async def cancel(self) -> None:
        """Lets go of everything; what runs goes on until it is deleted."""
        for one in self._running:
            one.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def all_started(self) -> bool:
        """Whether none waits for its start any more."""
        return all(one.last_status != "PENDING" for one in self._task.containers)

    def is_over(self) -> bool:
        """Whether the task has to end: an essential container has, or one can never start."""
        return bool(self.failure) or any(
            one.essential and one.last_status == "STOPPED" for one in self._task.containers
        )

    async def stop(self) -> None:
        """Ends them in the reverse order of their dependencies, each with its own grace."""
        self._stopping = True
        self._signal.fire()
        await asyncio.gather(*(self._stop(one) for one in self._task.containers))

    async def _stop(self, one: ContainerRecord) -> None:
        dependents = [other for other in self._task.containers if one.name in _dependencies(other)]
        await self._signal.until(lambda: all(o.last_status == "STOPPED" for o in dependents))
        if one.last_status == "RUNNING":
            grace = self._world.clock.real(one.definition.get("stopTimeout", DEFAULT_STOP_TIMEOUT))
            await self._world.runner.kill(self._workload.identity, one.name, grace)
        await self._signal.until(lambda: one.last_status == "STOPPED")

    async def _live(self, one: ContainerRecord) -> None:
        try:
            await self._run(one)
        except Exception as error:
            # Whoever waits for its end gets it.
            self._end(one, None, f"The simulator made a mistake: {error!r}")
            raise

    async def _run(self, one: ContainerRecord) -> None:
        if not await self._may_start(one):
            self._end(one, None, "")
            return
        problem = await self._world.runner.start(self._workload, one.name)
        if problem:
            self._end(one, None, f"CannotStartContainerError: {problem}")
            return
        uid = self._workload.identity.uid
        await self._signal.until(lambda: _is_settled(self._state(uid, one)))
        waiting = self._state(uid, one)
        if isinstance(waiting, Waiting):
            self._end(one, None, f"{_ERRORS[waiting.reason]}: {waiting.message}")
            return
        state = self._world.runner.state(uid, one.name)
        assert state is not None
        one.runtime_id = f"{self._task.id}-{one.arn.rpartition('/')[2][:10]}"
        one.image_digest = _digest(state.image_id)
        if isinstance(state.state, Exit) and state.state.reason == "StartError":
            self._end(one, None, f"CannotStartContainerError: {state.state.message}")
            return
        one.started = self._world.clock.now()
        self._set(one, "RUNNING")
        await self._attend(one, uid)

    def _state(self, uid: str, one: ContainerRecord) -> object:
        found = self._world.runner.state(uid, one.name)
        return found.state if found is not None else None

    async def _attend(self, one: ContainerRecord, uid: str) -> None:
        checking = self._check_health(one)
        logging = asyncio.create_task(self._log(one), name=f"log {uid} {one.name}")
        health = asyncio.create_task(checking, name=f"health {uid} {one.name}")
        try:
            await self._signal.until(lambda: isinstance(self._state(uid, one), Exit))
            state = self._state(uid, one)
            assert isinstance(state, Exit)
            # A task's last words are in CloudWatch Logs before it says that it has stopped.
            await logging
        finally:
            health.cancel()
            logging.cancel()
        self._end(one, *_ended(state))

    async def _log(self, one: ContainerRecord) -> None:
        place = self._streams.get(one.name)
        if place is None:
            return
        given = one.definition["logConfiguration"]["options"]
        size = buffer_size(given.get("max-buffer-size", str(DEFAULT_BUFFER)))
        options = Options(*place, given.get("mode", "non-blocking") == "blocking", size)
        pieces = self._world.runner.lines(self._workload.identity, one.name)
        try:
            await Driver(options, self._world.sink).run(pieces)
        except BridgeError:
            # The container was taken away: there is no more of its log.
            return

    async def _may_start(self, one: ContainerRecord) -> bool:
        needed = [
            (self._task.container(item["containerName"]), item["condition"])
            for item in one.definition.get("dependsOn", ())
        ]

        def decided() -> bool:
            return (
                self._stopping
                or bool(self.failure)
                or all(_holds(other, condition) for other, condition in needed)
                or any(_never_holds(other, condition) for other, condition in needed)
            )

        timeouts = [
            float(other.definition["startTimeout"])
            for other, condition in needed
            if condition != "START" and "startTimeout" in other.definition
        ]
        limit = self._world.clock.real(min(timeouts)) if timeouts else None
        await self._signal.until(decided, limit)
        if self._stopping or self.failure:
            return False
        for other, condition in needed:
            if not _holds(other, condition):
                self.failure = (
                    f"dependency graph: container {one.name} depends on {other.name} reaching"
                    f" {condition}, which it did not"
                )
                return False
        return True

    async def _check_health(self, one: ContainerRecord) -> None:
        given = one.definition.get("healthCheck")
        if given is None:
            return
        clock, begun, failed = self._world.clock, self._world.clock.now(), 0
        check = {**_CHECK, **given}
        while True:
            await clock.sleep(check["interval"])
            try:
                async with asyncio.timeout(clock.real(check["timeout"])):
                    good = await self._world.runner.succeeds(
                        self._workload.identity, one.name, _command(given)
                    )
            except TimeoutError:
                good = False
            if good:
                failed = 0
                self._set_health(one, "HEALTHY")
            elif one.health == "HEALTHY" or clock.passed(begun) > check["startPeriod"]:
                failed += 1
                if failed >= check["retries"]:
                    self._set_health(one, "UNHEALTHY")

    def _set_health(self, one: ContainerRecord, health: str) -> None:
        if one.health != health:
            one.health = health
            self._signal.fire()

    def _set(self, one: ContainerRecord, status: str) -> None:
        one.last_status = status
        self._changed()
        self._signal.fire()

    def _end(self, one: ContainerRecord, code: int | None, reason: str) -> None:
        one.stop(code, reason)
        self._changed()
        self._signal.fire()


def _is_settled(state: object) -> bool:
    """Whether a container has started, or will not."""
    return state is not None and not (isinstance(state, Waiting) and state.reason not in _ERRORS)


def _dependencies(one: ContainerRecord) -> set[str]:
    return {item["containerName"] for item in one.definition.get("dependsOn", ())}


def _holds(one: ContainerRecord, condition: str) -> bool:
    if condition == "START":
        return one.last_status == "RUNNING" or one.exit_code is not None
    if condition == "COMPLETE":
        return one.exit_code is not None
    if condition == "SUCCESS":
        return one.exit_code == 0
    return one.health == "HEALTHY"


def _never_holds(one: ContainerRecord, condition: str) -> bool:
    if one.last_status != "STOPPED":
        return condition == "HEALTHY" and one.health == "UNHEALTHY"
    return not _holds(one, condition)


def _command(check: Json) -> list[str]:
    kind, *rest = check["command"]
    return rest if kind == "CMD" else ["/bin/sh", "-c", " ".join(rest)]


def _digest(image_id: str) -> str:
    digest = image_id.rpartition("@")[2]
    return digest if digest.startswith("sha256:") else ""


def _ended(state: Exit) -> tuple[int | None, str]:
    """The exit code, None where nobody knows it, and the reason."""
    if state.reason == "OOMKilled":
        return state.code, "OutOfMemoryError: Container killed due to memory usage"
    if state.reason == "ContainerStatusUnknown":
        return None, f"CannotInspectContainerError: {state.message}"
    return state.code, ""
