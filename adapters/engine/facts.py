"""What the list does not say of a container: one inspect for each of its transitions, remembered.

The memory is a cache: all of it can be asked for again, so that 500 quiet pods cost one list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from adapters.engine import logs, names
from adapters.engine.client import Engine, Refused, part
from adapters.engine.observe import Entry, Fact, Pod, ended, running
from adapters.engine.oom import KernelLog
from adapters.engine.references import normalized, resolved
from adapters.engine.scratch import Scratch
from bridge.errors import Invalid, NotFound
from bridge.workload import Exit, Waiting

_AT_ONCE = 8
"""Inspects under way."""
_LINES, _BYTES = 80, 2048
"""Of a log that stands for a message (MaxContainerTerminationMessageLog{Lines,Length})."""
_PATIENCE = 5.0
"""Seconds for a message: how a run ended is told without one rather than late."""
_AS_MESSAGE = f"{names.PREFIX}logs-as-message"


class Facts:
    """By container; remembers what it was told in which state."""

    def __init__(self, engine: Engine, scratch: Scratch, log: KernelLog) -> None:
        self._engine = engine
        self._scratch = scratch
        self._log = log
        self._known: dict[str, tuple[str, Fact]] = {}
        self._failed: dict[str, Exit] = {}
        self._images: dict[str, tuple[str, ...]] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self.beginning: set[str] = set()
        """Containers that are being started just now: no failure of theirs is recorded yet."""

    def fail(self, container: str, how: Exit) -> None:
        """A container could not be started."""
        self._failed[container] = how

    def has_failed(self, container: str) -> bool:
        """Whether it is known that it could not be started."""
        return container in self._failed

    def keep(self, containers: Iterable[str]) -> None:
        """Forgets all others."""
        kept = set(containers)
        for known in (self._known, self._failed):
            for one in known.keys() - kept:
                del known[one]
        self._log.keep(kept)

    async def of(self, pods: Iterable[Pod]) -> Mapping[str, Fact]:
        """By container ID: of all containers of these pods. What has vanished since the list is
        left out. Errors as of the engine's calls."""
        wanted: list[tuple[Entry, Entry | None]] = []
        found: dict[str, Fact] = {}
        for pod in pods:
            for one in (run for runs in pod.runs.values() for run in runs):
                wanted.append((one, pod.pause))
            if pod.pause is not None and pod.pause.is_over:
                wanted.append((pod.pause, None))
        fresh = []
        for one, pause in wanted:
            known = self._known.get(one.id)
            if known is not None and known[0] == one.status:
                found[one.id] = known[1]
            else:
                fresh.append((one, pause))
        for (one, _), fact in zip(
            fresh, await asyncio.gather(*(self._ask(*one) for one in fresh)), strict=True
        ):
            if fact is not None:
                found[one.id] = fact
        return found

    async def _ask(self, one: Entry, pause: Entry | None) -> Fact | None:
        if one.is_new:
            return await self._new(one, pause)
        async with self._gate:
            said = one.said
            try:
                if said is None:
                    said = await self._engine.call("GET", f"containers/{part(one.id)}/json")
            except NotFound:
                return None
            return await self._told(one, pause, said)

    async def _new(self, one: Entry, pause: Entry | None) -> Fact | None:
        """Made and not started: either it soon will be, or it could not be."""
        identifier = f"{self._engine.type}://{one.id}"
        if one.id not in self._failed and one.id not in self.beginning and pause is not None:
            how = await self._scratch.failed(one.identity, pause.id, one.container, one.restart)
            if how is not None:
                self._failed[one.id] = how
        how = self._failed.get(one.id)
        if how is None:
            return Fact(Waiting("ContainerCreating"))
        fact = Fact(_with_id(how, identifier), identifier)
        self._known[one.id] = (one.status, fact)
        return fact

    async def _told(self, one: Entry, pause: Entry | None, said: Mapping[str, Any]) -> Fact:
        state = said.get("State") or {}
        identifier = f"{self._engine.type}://{one.id}"
        status = str(state.get("Status", one.status)).lower()
        image = str(said.get("Image", ""))
        name = await self._image(image, one.labels.get(names.IMAGE, "")) if one.container else ""
        if status in ("exited", "stopped", "dead"):
            how = ended(state, one.created, oom=self._was_killed(one, state))
            message = await self._message(one, pause, how, said) if pause is not None else ""
            how = _with_id(how, identifier, message)
            released = pause is None and await self._scratch.released(one.identity, one.id)
            fact = Fact(how, identifier, name, released)
        else:
            fact = Fact(running(state, one.created), identifier, name)
        self._known[one.id] = (status, fact)
        return fact

    def _was_killed(self, one: Entry, state: Mapping[str, Any]) -> bool:
        if not state.get("ExitCode") or not self._engine.local:
            return False
        return self._log.has_killed(one.id)

    async def _message(self, one: Entry, pause: Entry, how: Exit, said: Mapping[str, Any]) -> str:
        """What the run left as its message; empty as well where that cannot be had in time."""
        whose = (one.identity, pause.id, one.container, one.restart)
        try:
            async with asyncio.timeout(_PATIENCE):
                message = await self._scratch.message(*whose)
                if message or not how.code or one.labels.get(_AS_MESSAGE) != "true":
                    return message
                return await self._end_of_log(said)
        except TimeoutError:
            return ""

    async def _end_of_log(self, said: Mapping[str, Any]) -> str:
        try:
            text = await logs.ending(self._engine, said, _LINES, _BYTES)
        except (Invalid, NotFound, Refused):
            return ""  # Asked again it would say the same, and no other pod may wait for it.
        return text.decode(errors="replace")

    async def _image(self, image: str, asked: str) -> str:
        """What a status calls the image with that ID."""
        if image not in self._images:
            try:
                said = await self._engine.call("GET", f"images/{image}/json")
            except NotFound:
                said = {}
            self._images[image] = tuple(str(one) for one in said.get("RepoDigests") or ())
        try:
            reference = normalized(asked)
        except Invalid:
            reference = asked
        return resolved(reference, image, self._images[image])


def _with_id(how: Exit, identifier: str, message: str = "") -> Exit:
    return Exit(
        how.code,
        how.finished_at,
        how.reason,
        how.signal,
        how.message or message,
        how.started_at,
        identifier,
    )
