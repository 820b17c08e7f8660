"""Runs nothing, and says at once that it does: for measuring everything else.

A pod is Running as soon as it was accepted, and goes on until it is stopped. With the annotation
`podbridge.io/null-seconds: "2.5"` it ends after so long, its main containers with the code of
`podbridge.io/null-exit-code` (0 without it). All of it is in memory: a provider that starts again
has forgotten every pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import ClassVar

from bridge.adapter import YES, LogOptions, Rate, Support
from bridge.errors import NotFound, Violation
from bridge.workload import (
    ContainerState,
    Exit,
    Identity,
    Key,
    Observed,
    Role,
    Running,
    State,
    Workload,
)

SECONDS = "podbridge.io/null-seconds"
EXIT_CODE = "podbridge.io/null-exit-code"

_ADDRESS = ("127.0.0.1",)
_KILLED = 137
_TERMINATED = 143


class Adapter:
    """Nothing, kept in memory."""

    type: ClassVar[str] = "null"
    simulated: ClassVar[bool] = True
    # One entry for everything, which no backend that runs something may have: nothing that a pod
    # asks for can fail to be done here, because nothing is done.
    capabilities: ClassVar[Mapping[str, Support]] = {"spec": YES}
    rates: ClassVar[Mapping[str, Rate]] = {}

    def __init__(
        self, name: str, options: None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.name = name
        self._clock = clock
        self._pods: dict[Key, Observed] = {}
        self._ends: dict[Key, tuple[float, int]] = {}
        """When a pod ends by itself, and with which code."""
        self._due: list[tuple[float, Key]] = []
        self._listeners: set[_Listener] = set()

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to let go of, but who waits for events."""
        for listener in self._listeners:
            listener.end()

    def check(self, workload: Workload) -> Sequence[Violation]:
        """Whether the annotations that it reads are numbers."""
        found = []
        for name in (SECONDS, EXIT_CODE):
            value = workload.annotations.get(name)
            allowed = "seconds, 0 or more" if name == SECONDS else "a code from 0 to 255"
            if value is not None and _number(name, value) is None:
                words = f"{value!r} is not allowed: {allowed}"
                found.append(Violation(f"metadata.annotations[{name}]", words))
        return found

    async def run(self, workload: Workload) -> None:
        """Says from now on that it runs."""
        key = workload.identity.key
        if key in self._pods:
            return
        now = self._clock()
        states = [
            ContainerState(one.name, _first(one.role, now), container_id=_id(key, one.name))
            for one in workload.containers
        ]
        seconds = _number(SECONDS, workload.annotations.get(SECONDS, ""))
        if seconds is not None:
            code = _number(EXIT_CODE, workload.annotations.get(EXIT_CODE, "")) or 0
            self._ends[key] = (now + seconds, int(code))
            heapq.heappush(self._due, (now + seconds, key))
        self._tell(Observed(workload.identity, tuple(states), False, _ADDRESS, _ADDRESS, now))

    async def list(self) -> Sequence[Observed]:
        """Every pod, in the order of acceptance."""
        self._settle()
        return list(self._pods.values())

    async def stop(self, identity: Identity, grace: float) -> None:
        """Ends it at once: nothing needs the grace."""
        self._settle()
        code = _TERMINATED if grace > 0 else _KILLED
        self._end(identity.key, self._clock(), code, code - 128)

    async def delete(self, identity: Identity) -> None:
        """Forgets it."""
        self._pods.pop(identity.key, None)
        self._ends.pop(identity.key, None)

    async def events(self) -> AsyncIterator[Observed]:
        """Pods as they are accepted, and as they end."""
        listener = _Listener()
        self._listeners.add(listener)
        try:
            while not listener.ended:
                self._settle()
                wait = self._due[0][0] - self._clock() if self._due else None
                for key in await listener.take(wait):
                    if key in self._pods:
                        yield self._pods[key]
        finally:
            self._listeners.discard(listener)

    async def logs(
        self, identity: Identity, container: str, options: LogOptions
    ) -> AsyncIterator[bytes]:
        """What does not run writes nothing; NotFound where the pod is not there."""
        if identity.key not in self._pods:
            raise NotFound(f"no pod {identity.uid}")
        nothing: tuple[bytes, ...] = ()
        for piece in nothing:
            yield piece

    def _tell(self, observed: Observed) -> None:
        key = observed.identity.key
        self._pods[key] = observed
        for listener in self._listeners:
            listener.put(key)

    def _settle(self) -> None:
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            at, key = heapq.heappop(self._due)
            end, code = self._ends.get(key, (None, 0))
            if end == at:
                self._end(key, at, code, 0)

    def _end(self, key: Key, at: float, code: int, signal: int) -> None:
        observed = self._pods.get(key)
        if observed is None or observed.ended:
            return
        self._ends.pop(key, None)
        states = tuple(_ended(one, at, code, signal) for one in observed.containers)
        self._tell(
            Observed(observed.identity, states, True, _ADDRESS, _ADDRESS, observed.accepted_at)
        )


class _Listener:
    """The pods that have changed since they were last taken, each once."""

    def __init__(self) -> None:
        self._keys: dict[Key, None] = {}
        self._changed = asyncio.Event()
        self.ended = False

    def put(self, key: Key) -> None:
        self._keys[key] = None
        self._changed.set()

    def end(self) -> None:
        self.ended = True
        self._changed.set()

    async def take(self, wait: float | None) -> list[Key]:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._changed.wait()
        keys = list(self._keys)
        self._keys.clear()
        self._changed.clear()
        return keys


def _number(name: str, value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    if name == EXIT_CODE:
        return number if number.is_integer() and 0 <= number <= 255 else None
    return number if math.isfinite(number) and number >= 0 else None


def _id(key: Key, name: str) -> str:
    return f"null://{key[1]}.{key[2]}/{name}"


def _first(role: Role, now: float) -> State:
    return Exit(0, now, started_at=now) if role is Role.INIT else Running(now)


def _ended(one: ContainerState, at: float, code: int, signal: int) -> ContainerState:
    if not isinstance(one.state, Running):
        return one
    end = Exit(
        code=code,
        finished_at=at,
        reason="Error" if code else "Completed",
        signal=signal,
        started_at=one.state.started_at,
        container_id=one.container_id,
    )
    return ContainerState(one.name, end, container_id=one.container_id)
