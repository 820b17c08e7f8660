"""Containers that are not run at all, for loads that no machine could run for real.

A container runs from its start until it is stopped, but `true` ends at once and `sleep N` after N
seconds, both with 0. It writes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from bridge.adapter import Channel, LogOptions
from bridge.errors import Unsupported, Violation
from bridge.workload import ContainerState, Exit, Identity, Observed, Running, Workload

_TERMINATED, _KILLED = 143, 137


class Nothing:
    """What `adapters.simulators.common.running` asks of an adapter, without any process."""

    def __init__(self) -> None:
        self._tasks: dict[str, Observed] = {}
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._changed: asyncio.Queue[str] = asyncio.Queue()
        self._ended = asyncio.Condition()

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Takes its timers back."""
        for timer in self._timers.values():
            timer.cancel()

    def check(self, workload: Workload) -> Sequence[Violation]:
        """Nothing can be wrong with what is not done."""
        del workload
        return ()

    async def run(self, workload: Workload) -> None:
        """Knows the task from now on."""
        self._tasks.setdefault(workload.identity.uid, Observed(workload.identity, ()))

    async def list(self) -> Sequence[Observed]:
        """All tasks that are known."""
        return list(self._tasks.values())

    async def delete(self, identity: Identity) -> None:
        """Forgets the task."""
        for one in self._tasks.pop(identity.uid, Observed(identity, ())).containers:
            self._stop_timer(identity.uid, one.name)
        await self._tell(identity.uid)

    async def start(self, workload: Workload, container: str, restart: int) -> None:
        """The container runs from now on."""
        uid, now = workload.identity.uid, time.time()
        task = self._tasks[uid]
        before = task.container(container)
        if before is not None and before.restart >= restart:
            return
        known = f"null://{uid}/{container}/{restart}"
        state = ContainerState(container, Running(now), restart, container_id=known)
        others = (one for one in task.containers if one.name != container)
        self._tasks[uid] = replace(task, containers=(*others, state))
        command = next(
            (*one.command, *one.args) for one in workload.containers if one.name == container
        )
        if (seconds := _lasts(command)) is not None:
            loop = asyncio.get_running_loop()
            self._timers[uid, container] = loop.call_later(seconds, self._end, uid, container, 0)
        await self._tell(uid)

    async def kill(self, identity: Identity, container: str, grace: float) -> None:
        """Ends it at once: nothing needs the grace."""
        self._end(identity.uid, container, _TERMINATED if grace > 0 else _KILLED)

    def _end(self, uid: str, container: str, code: int) -> None:
        self._stop_timer(uid, container)
        task = self._tasks.get(uid)
        if task is None:
            return
        now = time.time()
        self._tasks[uid] = replace(
            task,
            containers=tuple(
                replace(one, state=_exit(one.state, now, code))
                if one.name == container and isinstance(one.state, Running)
                else one
                for one in task.containers
            ),
        )
        self._changed.put_nowait(uid)

    def _stop_timer(self, uid: str, container: str) -> None:
        if (timer := self._timers.pop((uid, container), None)) is not None:
            timer.cancel()

    async def _tell(self, uid: str) -> None:
        await self._changed.put(uid)

    async def events(self) -> AsyncIterator[Observed]:
        """Tasks as they change."""
        while True:
            uid = await self._changed.get()
            async with self._ended:
                self._ended.notify_all()
            if (task := self._tasks.get(uid)) is not None:
                yield task

    async def logs(
        self, identity: Identity, container: str, options: LogOptions
    ) -> AsyncIterator[bytes]:
        """Nothing; where it is followed, until the container has ended."""
        async with self._ended:
            await self._ended.wait_for(
                lambda: not (options.follow and self._is_running(identity.uid, container))
            )
        nothing: tuple[bytes, ...] = ()
        for piece in nothing:
            yield piece

    def _is_running(self, uid: str, container: str) -> bool:
        task = self._tasks.get(uid)
        state = task.container(container) if task is not None else None
        return state is not None and isinstance(state.state, Running)

    async def exec(
        self, identity: Identity, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> Channel:
        """Unsupported: there is no container."""
        del identity, container, command, stdin, tty
        raise Unsupported("nothing is run here")

    async def attach(self, identity: Identity, container: str, *, stdin: bool) -> Channel:
        """Unsupported: there is no container."""
        del identity, container, stdin
        raise Unsupported("nothing is run here")


def _lasts(command: Sequence[str]) -> float | None:
    """How many seconds a command takes; None: until it is stopped."""
    name, *words = command or ("",)
    if name.rpartition("/")[2] == "true":
        return 0.0
    if name.rpartition("/")[2] == "sleep" and len(words) == 1:
        try:
            return float(words[0])
        except ValueError:
            return None
    return None


def _exit(state: Running, now: float, code: int) -> Exit:
    reason = "Error" if code else "Completed"
    return Exit(code, now, reason, max(0, code - 128), started_at=state.started_at)
