"""What is not asked for again: content by its digest, answers for a short time, calls under way."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from bridge.errors import BridgeError, Unavailable
from bridge.registry.documents import LIMIT, is_intact

V = TypeVar("V")

_MEMORY = 32 * 1024 * 1024
"""Bytes of content kept in memory: thousands of usual images, and room for some of the largest."""
_FILES = 4096
"""Files kept on disk: some hundred images with all that leads to them."""
_ANSWERS = 4096
_ERRORS_LAST = 5.0
"""Seconds: what failed for one pod is not asked for again for the next of a thousand."""


class Blobs:
    """Content by its digest, which never changes: in memory, and in a folder where there is one.

    A file that is damaged, or cannot be read or written, is as if it were not there: the registry
    has the content.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    async def get(self, digest: str) -> bytes | None:
        """The content with that digest (a checked one), or None."""
        if (content := self._kept.get(digest)) is not None:
            self._kept.move_to_end(digest)
            return content
        if self._folder is None:
            return None
        content = await asyncio.to_thread(_read, self._folder, digest)
        if content is not None:
            self._keep(digest, content)
        return content

    async def put(self, digest: str, content: bytes) -> None:
        """Keeps content whose digest was verified."""
        self._keep(digest, content)
        if self._folder is not None:
            await asyncio.to_thread(_write, self._folder, digest, content)

    def _keep(self, digest: str, content: bytes) -> None:
        self._size += len(content) - len(self._kept.pop(digest, b""))
        self._kept[digest] = content
        while self._size > _MEMORY:
            _, oldest = self._kept.popitem(last=False)
            self._size -= len(oldest)


def _path(folder: Path, digest: str) -> Path:
    return folder / digest.replace(":", "-")


def _read(folder: Path, digest: str) -> bytes | None:
    try:
        with _path(folder, digest).open("rb") as file:
            content = file.read(LIMIT + 1)
    except OSError:
        return None
    return content if is_intact(digest, content) else None


def _write(folder: Path, digest: str, content: bytes) -> None:
    """Whole or not at all, for the owner's eyes only: an image's environment may hold anything."""
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_room(folder)
        handle, name = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(name).replace(_path(folder, digest))
        except OSError:
            Path(name).unlink(missing_ok=True)


def _make_room(folder: Path) -> None:
    files = list(folder.iterdir())
    if len(files) >= _FILES:
        for one in sorted(files, key=lambda file: file.stat().st_mtime)[: _FILES // 8]:
            one.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[V]):
    until: float
    """When it is asked for anew, by the cache's clock."""
    value: V | None = field(default=None, repr=False)
    error: BridgeError | None = None


class Answers(Generic[V]):
    """Answers that hold for some seconds; who asks while a call is under way shares its answer."""

    def __init__(self, fresh: float, clock: Callable[[], float]) -> None:
        self._fresh = fresh
        self._clock = clock
        self._known: OrderedDict[Hashable, _Outcome[V]] = OrderedDict()
        self._calls: dict[Hashable, asyncio.Task[_Outcome[V]]] = {}

    async def get(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """The answer of `make`, or one that is fresh. Its errors, for a few seconds too."""
        known = self._known.get(key)
        if known is None or self._clock() >= known.until:
            known = await self._shared(key, make)
        if known.error is not None:
            # Each its own: a raised one gathers the trace of everybody who raises it.
            raise copy.copy(known.error).with_traceback(None)
        assert known.value is not None
        return known.value

    async def close(self) -> None:
        """Ends what is under way; who waits for it hears Unavailable."""
        calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    async def _shared(
        self, key: Hashable, make: Callable[[], Coroutine[Any, Any, V]]
    ) -> _Outcome[V]:
        call = self._calls.get(key)
        if call is None:
            call = asyncio.create_task(self._call(key, make), name="registry call")
            self._calls[key] = call
            call.add_done_callback(lambda _: self._calls.pop(key, None))
        try:
            # Who gives up takes it from nobody else.
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if call.cancelled() and not (own and own.cancelling()):
                raise Unavailable("registries are not asked any more") from None
            raise

    async def _call(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, V]]) -> _Outcome[V]:
        try:
            value = await make()
            outcome: _Outcome[V] = _Outcome(self._clock() + self._fresh, value)
        except BridgeError as error:
            outcome = _Outcome(self._clock() + _ERRORS_LAST, error=error)
        self._known[key] = outcome
        self._known.move_to_end(key)
        while len(self._known) > _ANSWERS:
            self._known.popitem(last=False)
        return outcome
