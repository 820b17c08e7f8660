"""Follows the objects of one path for ever: a list, then a watch from where the list ended.

A watch that breaks is taken up again at the last version heard (bookmarks keep that fresh where
nothing happens). Where the API server no longer knows that version, or tells of an error, the
objects are listed anew, and what was not said in between is seen in the new list. While nobody
answers this goes on by itself, with pauses that double.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

import orjson

from bridge.errors import BridgeError, Throttled, Unavailable
from bridge.kubelet.client import ApiClient, Gone
from bridge.pods import Manifest

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
"""Seconds before a broken watch is opened again: doubling from the first to the longest."""
SHORTEST_LIFE = 1.0
"""Seconds: a watch that ended sooner was no watch, and pauses grow as after an error."""
WATCH_LIFE = 1800.0
"""Seconds after which the API server ends a watch, at the least; twice that at the most, so that
those of many nodes do not end together. It is the API server's own --min-request-timeout."""
SILENCE = 300.0
"""Seconds without a line after which a watch is taken up anew. Bookmarks come each minute."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects that there are: what is not among them is gone."""

    items: list[Manifest]
    version: str
    """The resourceVersion from which a watch goes on."""


@dataclass(frozen=True, slots=True)
class Changed:
    """One object was added, changed or deleted; `object` as it is then, or last was."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: Manifest


class ListWatch:
    """Lists and watches one path, such as `/api/v1/pods`, perhaps only what a selector matches."""

    def __init__(
        self,
        client: ApiClient,
        path: str,
        *,
        fields: str = "",
        cached: bool = False,
        recovered: Callable[[], None] = lambda: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`fields` is a fieldSelector. `cached`: a list may be as old as the API server's cache
        (resourceVersion 0), which costs it less. `recovered` is called when the API server answers
        again after it had not."""
        self.problem = ""
        """Why nothing is heard at the moment; empty: all is well."""
        self._client = client
        self._path = path
        self._selector = {"fieldSelector": fields} if fields else {}
        self._cached = cached
        self._recovered = recovered
        self._jitter = jitter

    async def list(self) -> Listed:
        """All objects. Raises as `ApiClient.list`."""
        query = {**self._selector, "resourceVersion": "0"} if self._cached else self._selector
        items, version = await self._client.list(self._path, query)
        for one in items:
            _trim(one)
        return Listed(items, version)

    async def follow(self, listed: Listed | None = None) -> AsyncGenerator[Listed | Changed, None]:
        """A list, then its changes, with a new list where changes may have been missed. Never ends
        and never raises. With `listed` it goes on from that list, which is not told again."""
        version = listed.version if listed is not None else ""
        failures = 0
        while True:
            since = asyncio.get_running_loop().time()
            try:
                if not version:
                    fresh = await self.list()
                    self._well()
                    yield fresh
                    version = fresh.version
                async with aclosing(self._watch(version)) as changes:
                    async for at, change in changes:
                        failures, version = 0, at
                        if change is not None:
                            yield change
                error: BridgeError | None = None
            except Gone as gone:
                version, error = "", gone
            except BridgeError as other:
                error = other
                self._say(error)
            if asyncio.get_running_loop().time() - since >= SHORTEST_LIFE:
                failures = 0
                if error is None:
                    continue
            await asyncio.sleep(self._pause(failures, error))
            failures += 1

    async def _watch(self, version: str) -> AsyncGenerator[tuple[str, Changed | None], None]:
        """(version, change) of each line; a bookmark has no change."""
        query = {
            **self._selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(int(WATCH_LIFE * (1 + self._jitter()))),
        }
        async with aclosing(
            self._client.lines(self._path, query, silence=SILENCE, opened=self._well)
        ) as lines:
            async for line in lines:
                try:
                    event = orjson.loads(line)
                    kind, found = event["type"], event["object"]
                    if kind == "ERROR":
                        # 410 above all. Whatever it is: what comes after it cannot be known.
                        raise Gone(str(found.get("message") or "the watch ended with an error"))
                    metadata = found["metadata"]
                    at = str(metadata["resourceVersion"])
                except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError):
                    raise Unavailable(f"{self._path}: a line of the watch is no event") from None
                if kind == "BOOKMARK":
                    yield at, None
                elif kind in ("ADDED", "MODIFIED", "DELETED"):
                    _trim(found)
                    yield at, Changed(kind, found)

    def _pause(self, failures: int, error: BridgeError | None) -> float:
        if isinstance(error, Gone) and not failures:
            return 0.0
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 10))
        pause *= 0.5 + self._jitter()
        if isinstance(error, Throttled) and error.retry_after is not None:
            pause = max(pause, min(error.retry_after, 60.0))
        return pause

    def _say(self, error: BridgeError) -> None:
        if not self.problem:
            _log.warning("watching %s: %s", self._path, error)
        self.problem = str(error)

    def _well(self) -> None:
        if self.problem:
            _log.warning("watching %s: goes on", self._path)
            self.problem = ""
            self._recovered()


def _trim(one: Manifest) -> None:
    """Who set which field is half of an object, and nobody here asks."""
    one["metadata"].pop("managedFields", None)
