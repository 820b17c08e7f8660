"""How other processes reach the one that attends a run: JSON lines over a unix socket.

A client writes one request: `{"op": "watch"}`, `{"op": "delete", "grace": seconds or null}` or
`{"op": "provider"}`. A watch answers with a line for each change (`{"type", "kind", "object"}`)
until the run is over, and then with `{"over": true}`; a delete with `{"ok": true}` as soon as the
deletion is ordered; `provider` with `{"ok": true}` as soon as the run's provider listens at the
run's other socket, for whoever wants something of a pod that only this process can reach.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from bridge.errors import Unavailable
from bridge.local.session import Session
from bridge.local.store import Change, until

LINE_LIMIT = 16 * 1024 * 1024
"""Bytes in one line at the most: an object is at most a few MiB."""
LAST_WORDS = 5.0
"""Seconds that whoever watches a run has to read its end: one that has stopped holds up nobody."""
_GONE = "the process that attends the run has gone"


class ControlServer:
    """Listens for the attending process."""

    def __init__(self, session: Session, serve: Callable[[], Awaitable[None]]) -> None:
        """`serve` has the run's provider listen at `Run.provider`, unless it does."""
        self._session = session
        self._provide = serve
        self._server: asyncio.Server | None = None
        self._watched: set[asyncio.Task[None]] = set()
        """Those who watch the run."""
        self._folder: int | None = None

    async def start(self) -> None:
        """Listens on the run's control socket."""
        path = self._session.run.control
        path.unlink(missing_ok=True)
        self._folder, short = short_path(path)
        self._server = await asyncio.start_unix_server(self._serve, short, limit=LINE_LIMIT)
        os.chmod(path, 0o600)

    async def stop(self) -> None:
        """Stops listening. The run is over: watchers are told all of it, those that read."""
        if self._server is not None:
            self._server.close()
            if self._watched and self._session.over.is_set():
                await asyncio.wait(self._watched, timeout=LAST_WORDS)
            self._session.run.control.unlink(missing_ok=True)
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await reader.readline())
            if request.get("op") == "watch":
                watch = asyncio.create_task(self._watch(writer))
                self._watched.add(watch)
                watch.add_done_callback(self._watched.discard)
                await watch
            elif request.get("op") == "delete":
                self._session.delete(request.get("grace"))
                _write(writer, {"ok": True})
                await writer.drain()
            elif request.get("op") == "provider":
                await self._provide()
                _write(writer, {"ok": True})
                await writer.drain()
        except (OSError, ValueError):
            # The other side has gone or talks nonsense: its own affair.
            pass
        finally:
            writer.close()

    async def _watch(self, writer: asyncio.StreamWriter) -> None:
        session = self._session
        async with aclosing(until(session.store.changes(), session.over)) as changes:
            async for change in changes:
                said = {"type": change.type, "kind": change.kind, "object": change.object}
                _write(writer, said)
                await writer.drain()
        if session.over.is_set():
            _write(writer, {"over": True, "cut_short": session.cut_short})
            await writer.drain()


class ControlClient:
    """Reaches the process that attends a run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.cut_short = False
        """Once `changes` has ended: as `Session.cut_short`."""

    async def changes(self) -> AsyncGenerator[Change]:
        """As `Store.changes`, until the run is over. Unavailable where nobody attends it, or where
        who did has gone before all was told."""
        reader, writer = await self._open()
        try:
            _write(writer, {"op": "watch"})
            await writer.drain()
            while line := await reader.readline():
                said: dict[str, Any] = json.loads(line)
                if "over" in said:
                    self.cut_short = bool(said.get("cut_short"))
                    return
                yield Change(said["type"], said["kind"], said["object"])
        except (OSError, ValueError) as error:
            raise Unavailable(_GONE) from error
        finally:
            writer.close()
        raise Unavailable(_GONE)

    async def delete(self, grace: float | None = None) -> None:
        """Orders the run's deletion. Unavailable where nobody attends it."""
        await self._order({"op": "delete", "grace": grace})

    async def provide(self) -> None:
        """Has the run's provider listen. Unavailable where nobody attends it."""
        await self._order({"op": "provider"})

    async def _order(self, request: dict[str, Any]) -> None:
        reader, writer = await self._open()
        try:
            _write(writer, request)
            await writer.drain()
            if not await reader.readline():
                raise Unavailable(_GONE)
        except OSError as error:
            raise Unavailable(_GONE) from error
        finally:
            writer.close()

    async def listens(self) -> bool:
        """Whether somebody listens there (already)."""
        try:
            _, writer = await self._open()
        except Unavailable:
            return False
        writer.close()
        return True

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            folder, short = short_path(self._path)
            try:
                return await asyncio.open_unix_connection(short, limit=LINE_LIMIT)
            finally:
                os.close(folder)
        except OSError as error:
            raise Unavailable("nobody attends the run") from error


def short_path(path: Path) -> tuple[int, str]:
    """A socket's path may have 107 bytes at most: its folder is named by a descriptor instead,
    which is to be closed when the path is used no more."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return folder, f"/proc/self/fd/{folder}/{path.name}"


def _write(writer: asyncio.StreamWriter, said: dict[str, Any]) -> None:
    writer.write(json.dumps(said).encode() + b"\n")
