"""Looks at what the engine has: all pods by one list, one pod by its containers.

A list waits for every container that is just being started, on Podman for seconds where a hundred
are; an inspect waits for its own. So a pod that was seen once is looked at container by container.
Its containers are known: all were listed, made here since, or named by the engine's events. Where
an answer to a create was lost they are not, and the pod is listed again. Whoever only looks at
pods that another process runs hears of their containers late: what it asks for by name is listed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from adapters.engine import names
from adapters.engine.client import Engine, Refused, part
from adapters.engine.observe import Entry, Pod, entry, inspected, pods
from bridge.errors import NotFound
from bridge.workload import Identity, Key

_TRIES = 4
"""Looks at most, where each fails since something went meanwhile."""
_GOING = ("no such container", "no such process")
"""Podman's words, with status 500, of what is just going: of a list, or of one container."""


class Sight:
    """What there is; it holds no truth but where to look."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[Key, set[str]] = {}
        """The IDs of pods' containers."""
        self._made: dict[Key, set[str]] = {}
        """Those that were made here: a list that was under way then may lack them."""

    async def all(self) -> list[Entry]:
        """Every container of this owner. Errors as of the engine's calls."""
        return await self._list(None)

    async def pod(self, identity: Identity, *, listed: bool = False) -> Pod:
        """What the engine has of that pod; `listed`: by its list, whatever is known."""
        known = self._known.get(identity.key)
        if known is None or listed:
            found = await self._list(identity)
            self._known.setdefault(identity.key, set(self._made.get(identity.key, ())))
        else:
            asked = list(known)
            looked = await asyncio.gather(*map(self._inspect, asked))
            known.difference_update(
                one for one, seen in zip(asked, looked, strict=True) if seen is None
            )
            found = [one for one in looked if one is not None]
        return pods(found).get(identity.key, Pod(identity))

    def begun(self, identity: Identity, container: str) -> None:
        """The pod was made just now, and that is its only container."""
        self._known[identity.key] = {container}

    def made(self, identity: Identity, container: str) -> None:
        """A container of that pod was made just now."""
        self._made.setdefault(identity.key, set()).add(container)
        if (known := self._known.get(identity.key)) is not None:
            known.add(container)

    def heard(self, identity: Identity, container: str) -> None:
        """The engine tells of a container of that pod, which another process may have made."""
        if (known := self._known.get(identity.key)) is not None:
            known.add(container)

    async def runs(self, identity: Identity, container: str) -> list[Entry]:
        """The runs of one of the pod's containers, the latest first. Listed unless the latest was
        made here: there may be a later one."""
        pod = await self.pod(identity)
        runs = pod.runs.get(container, [])
        if not runs or runs[0].id not in self._made.get(identity.key, ()):
            runs = (await self.pod(identity, listed=True)).runs.get(container, [])
        return runs

    def known(self) -> set[str]:
        """The IDs of all containers that are known, made since the last list among them."""
        return {one for found in (self._known, self._made) for ids in found.values() for one in ids}

    def doubt(self, identity: Identity) -> None:
        """There may be containers of that pod which nobody here has heard of."""
        self._known.pop(identity.key, None)

    def pods(self) -> set[Key]:
        """The pods of which anything is known."""
        return {*self._known, *self._made}

    def forget(self, key: Key) -> None:
        """The pod is gone."""
        self._known.pop(key, None)
        self._made.pop(key, None)

    async def _list(self, identity: Identity | None) -> list[Entry]:
        said = await self._listing(names.filters(self._engine.owner, identity))
        found = [one for one in map(entry, said or ()) if one is not None]
        for one in found:
            # Added, never taken away: this list may be older than what was made since.
            key = one.identity.key
            self._known.setdefault(key, set(self._made.get(key, ()))).add(one.id)
        return found

    async def _listing(self, filters: Mapping[str, Any]) -> Any:
        return await _again(lambda: self._engine.containers(filters))

    async def _inspect(self, container: str) -> Entry | None:
        url = f"containers/{part(container)}/json"
        try:
            return inspected(await _again(lambda: self._engine.call("GET", url)))
        except NotFound:
            return None


async def _again(ask: Callable[[], Awaitable[Any]]) -> Any:
    """An answer of the engine. Podman fails, with words of its own, where something goes while it
    looks: it is asked again, a few times."""
    for _ in range(_TRIES - 1):
        try:
            return await ask()
        except Refused as error:
            if not any(words in error.message for words in _GOING):
                raise
    return await ask()
