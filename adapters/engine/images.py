"""Images by policy: pulled in the background, one pull for all that wait for it.

Nobody waits for a pull in a call: a container that has no image yet is Waiting, and whoever asks
again later finds it pulled, or backing off. Reasons, words and back-off are the kubelet's
(pkg/kubelet/images/image_manager.go).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from adapters.engine import references
from adapters.engine.client import Engine, lines
from adapters.engine.redaction import without
from bridge.errors import BridgeError, Invalid, NotFound, Unavailable
from bridge.workload import Container, Identity, Key, PullCredential, Waiting, Workload

FIRST_BACKOFF = 10.0
"""Seconds; doubled at each further failure."""
LONGEST_BACKOFF = 300.0


@dataclass(frozen=True, slots=True)
class Image:
    """An image that the engine has."""

    id: str
    name: str
    """What a pod's status calls it, with its digest."""
    user: str = ""
    stop_signal: str = ""
    entrypoint: tuple[str, ...] = ()
    """Its own command, to which a container's args are added."""
    cmd: tuple[str, ...] = ()
    """Its own args."""


@dataclass(slots=True)
class Backoff:
    """When an image that could not be pulled may be asked for again. Times are of one clock."""

    failures: int = 0
    until: float = 0.0
    message: str = ""

    def fail(self, now: float, message: str) -> None:
        """Another failure."""
        delay = min(FIRST_BACKOFF * 2.0 ** min(self.failures, 10), LONGEST_BACKOFF)
        # Long quiet: it begins anew (flowcontrol.Backoff, twice the longest).
        if self.failures and now - self.until > 2 * LONGEST_BACKOFF:
            self.failures, delay = 0, FIRST_BACKOFF
        self.failures += 1
        self.until, self.message = now + delay, message


@dataclass(slots=True)
class _Pull:
    """One pull under way, and what waits for it."""

    task: asyncio.Task[None] | None = None
    waiters: dict[tuple[Key, str], tuple[Identity, int]] = field(default_factory=dict)
    """By (pod, container): whose, and which run."""


_RECENT = 5.0
"""Seconds for which an image that was found is not looked for again: a Job's pods are many."""

_LONGEST_WORDS = 1024
"""Characters of why a pull failed: a registry may answer any number."""

Changed = Callable[[Identity, str, int, Waiting | None], None]
"""Is told of a run (pod, container, restart) what it waits for now; None: ask again."""


class Images:
    """All that this adapter pulls."""

    def __init__(self, engine: Engine, changed: Changed, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._changed = changed
        self._clock = clock
        self._pulls: dict[tuple[str, tuple[PullCredential, ...]], _Pull] = {}
        self._backoffs: dict[tuple[str, str], Backoff] = {}
        self._found: dict[str, tuple[float, Image]] = {}
        """When each image was found, by its normalized name."""
        self._timers: dict[tuple[Key, str], asyncio.TimerHandle] = {}
        self.own: set[str] = set()
        """IDs of images that were made here: they are no names."""
        self._fresh: set[tuple[Key, str, int]] = set()
        """Runs whose image was pulled for them, and that have not begun."""

    async def close(self) -> None:
        """Ends what is being pulled."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        tasks = [one.task for one in self._pulls.values() if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def forget(self, identity: Identity) -> None:
        """The pod wants nothing any more. A pull that others may want goes on."""
        for key in [one for one in self._timers if one[0] == identity.key]:
            self._timers.pop(key).cancel()
        self._fresh = {one for one in self._fresh if one[0] != identity.key}
        for uid, reference in [one for one in self._backoffs if one[0] == identity.uid]:
            del self._backoffs[uid, reference]
        for pull in self._pulls.values():
            for waiter in [one for one in pull.waiters if one[0] == identity.key]:
                del pull.waiters[waiter]

    async def need(self, workload: Workload, container: Container, restart: int) -> Image | Waiting:
        """The image for that run, or what it waits for. Asking again is how to go on.

        Errors as of the engine's calls.
        """
        try:
            own = container.image in self.own
            reference = container.image if own else references.normalized(container.image)
        except Invalid as error:
            return Waiting("InvalidImageName", error.message)
        found = await self.find(reference)
        run = (workload.identity.key, container.name, restart)
        policy = container.image_pull_policy
        if found is not None and (policy != "Always" or run in self._fresh):
            self._fresh.discard(run)
            return found
        if policy == "Never":
            words = f'Container image "{container.image}" is not present with pull policy of Never'
            return Waiting("ErrImageNeverPull", words)
        return self._pull(workload, container, restart, reference)

    async def fetch(self, reference: str) -> None:
        """Pulls an image that no pod asks for. Unavailable."""
        words = await self._try(reference, ())
        if words:
            raise Unavailable(f"{reference}: {words}")

    async def find(self, reference: str) -> Image | None:
        """The image by a normalized name, where the engine has it: as of a few seconds ago."""
        if (known := self._found.get(reference)) is not None and self._clock() < known[0] + _RECENT:
            return known[1]
        try:
            said = await self._engine.call("GET", f"images/{reference}/json")
        except NotFound:
            self._found.pop(reference, None)
            return None
        image = _image(reference, said)
        self._found[reference] = (self._clock(), image)
        return image

    def _pull(
        self, workload: Workload, container: Container, restart: int, reference: str
    ) -> Waiting:
        logins = tuple(references.logins(reference, workload.pull_credentials))
        waiter = (workload.identity.key, container.name)
        pull = self._pulls.get((reference, logins))
        if pull is None:
            backoff = self._backoffs.get((workload.identity.uid, reference))
            if backoff is not None and backoff.until > self._clock():
                self._wake(workload.identity, container.name, restart, backoff.until)
                words = f'Back-off pulling image "{container.image}": {backoff.message}'
                return Waiting("ImagePullBackOff", words)
            pull = self._pulls[reference, logins] = _Pull()
            pull.task = asyncio.create_task(
                self._run(reference, logins, pull), name=f"pull {reference}"
            )
        pull.waiters[waiter] = (workload.identity, restart)
        return Waiting("ContainerCreating", f'Pulling image "{container.image}"')

    def _wake(self, identity: Identity, container: str, restart: int, at: float) -> None:
        """Has the pod asked about again when its back-off is over."""
        key = (identity.key, container)
        if key in self._timers:
            return

        def over() -> None:
            self._timers.pop(key, None)
            self._changed(identity, container, restart, None)

        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(max(at - self._clock(), 0.0), over)

    async def _run(self, reference: str, logins: tuple[PullCredential, ...], pull: _Pull) -> None:
        self._found.pop(reference, None)
        try:
            message = await self._try(reference, logins)
        finally:
            self._pulls.pop((reference, logins), None)
        # What one pod waits for twice (two containers) is one failure.
        for uid in {identity.uid for identity, _ in pull.waiters.values()}:
            if message:
                self._backoffs.setdefault((uid, reference), Backoff()).fail(self._clock(), message)
            else:
                self._backoffs.pop((uid, reference), None)
        for (key, container), (identity, restart) in pull.waiters.items():
            if message:
                self._changed(identity, container, restart, Waiting("ErrImagePull", message))
            else:
                self._fresh.add((key, container, restart))
                self._changed(identity, container, restart, None)

    async def _try(self, reference: str, logins: tuple[PullCredential, ...]) -> str:
        """Pulls with each login, or with none where there is none; the last failure's words."""
        words = ""
        secrets = [secret for one in logins for secret in references.secrets(one)]
        try:
            for headers in [references.header(one) for one in logins] or [{}]:
                words = await self._pull_once(reference, headers)
                if not words:
                    return ""
        except BridgeError as error:
            words = error.message
        # A registry's answer may repeat what it was sent.
        return without(words, secrets)[:_LONGEST_WORDS]

    async def _pull_once(self, reference: str, headers: Mapping[str, str]) -> str:
        """Empty: pulled; else the engine's words for why not."""
        async with self._engine.stream(
            "POST", "images/create", params={"fromImage": reference}, headers=headers
        ) as answer:
            async for line in lines(answer):
                if words := _error_in(line):
                    return words
        return ""


def _error_in(line: bytes) -> str:
    """What a line of a pull's progress says went wrong; it may be cut."""
    if not line.strip():
        return ""
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError:
        return line.decode(errors="replace") if b'"error"' in line else ""
    return str(said.get("error") or "") if isinstance(said, dict) else ""


def _image(reference: str, said: Mapping[str, Any]) -> Image:
    digests = [str(one) for one in said.get("RepoDigests") or ()]
    settings = said.get("Config") or {}
    name = str(said["Id"])
    name = name if ":" in name else f"sha256:{name}"
    return Image(
        name,
        references.resolved(reference, name, digests),
        str(settings.get("User") or ""),
        str(settings.get("StopSignal") or ""),
        _words(settings.get("Entrypoint")),
        _words(settings.get("Cmd")),
    )


def _words(said: Any) -> tuple[str, ...]:
    # An old image may have one string, for a shell.
    return ("/bin/sh", "-c", said) if isinstance(said, str) and said else tuple(said or ())
