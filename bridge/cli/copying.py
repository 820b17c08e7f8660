"""What `cp` does: a tar here and a tar in the container, joined by an exec's streams.

tar works on blocking files, so that it runs in a thread; each of its reads and writes waits for the
stream, which is how a slow end holds up the other one. Of contents memory holds a few blocks; from
a pod one member's headers come to it (archive.HEADERS at most), to a pod the names of what is sent.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import posixpath
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bridge.cli import archive
from bridge.cli.execution import start_of
from bridge.cli.output import plain
from bridge.cli.piping import PIECE
from bridge.cli.select import PATIENCE
from bridge.errors import BridgeError, Invalid, NotFound, Unavailable, Violation

if TYPE_CHECKING:
    from bridge.cli.onlooker import Onlooker
    from bridge.cli.select import Found
    from bridge.rpc.streams import Remote

FAILED = 1
"""The exit code where a tar fails."""
_NOT_FOUND = (126, 127)
"""Exit codes of what looks for a command and does not find one that it can run."""
_SHOW_AFTER, _SHOW_EACH = 1.0, 0.5
"""Seconds: a short copy shows no progress."""

_T = TypeVar("_T")


# What was typed.


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that were typed."""

    words: Sequence[str]
    """Run and pod as other commands take them; empty: a path here."""
    path: str


def side_of(text: str) -> Side:
    """What `[RUN/]POD:PATH` or a local path means. Invalid."""
    who, colon, path = text.partition(":")
    if not colon or text.startswith(("/", "./", "../", "~")):
        return Side((), text)
    words = _words(who)
    if not all(words) or len(words) > 2 or not path:
        allowed = "allowed: [RUN/]POD:PATH, or a path here"
        raise Invalid(violations=[Violation("PATH", f'found "{text}"; {allowed}')])
    return Side(words, path)


def _words(who: str) -> Sequence[str]:
    from bridge.cli.select import KINDS

    first, _, rest = who.partition("/")
    if first in KINDS and rest and "/" not in rest:
        return (who,)
    return (first, rest) if "/" in who else (who,)


def check(source: Side, destination: Side) -> None:
    """Invalid unless exactly one of both is in a pod."""
    if source.words and destination.words:
        raise Invalid("found two paths in pods; allowed: one of them, the other one here")
    if not source.words and not destination.words:
        found = f'found two paths here: "{source.path}" and "{destination.path}"'
        raise Invalid(f"{found}; allowed: one of them as [RUN/]POD:PATH")
    if not source.path or not destination.path:
        raise Invalid("filepath can not be empty")


async def pod_of(side: Side, namespace: str | None) -> Found:
    """The pod of a side; X/POD is kubectl's NAMESPACE/POD where no run is named X."""
    from bridge.cli.targets import one_pod
    from bridge.local.runs import Runs

    if len(side.words) == 2 and namespace is None and Runs().find(side.words[0]) is None:
        try:
            return await one_pod(side.words[1:], namespace=side.words[0])
        except NotFound:
            # Said of the run, which is what we mean by it.
            pass
    return await one_pod(side.words, namespace=namespace)


def container_of(found: Found, container: str) -> str:
    """The container to copy to or from. NotFound, Invalid: as exec."""
    return str(start_of(found, container, ["tar"]).container)


# Copying.


class Copy:
    """One copy to or from a container."""

    def __init__(self, provider: Onlooker, found: Found, container: str, preserve: bool) -> None:
        self._provider = provider
        self._found = found
        self._container = container
        self._preserve = preserve
        self._progress = _Progress()

    async def to_pod(self, source: str, destination: str) -> int:
        """Copies a file or folder of here; into the destination where that is a folder."""
        path, name = _source(source)
        target = posixpath.normpath(destination)
        if destination.endswith("/") or await self._is_folder(target):
            target = posixpath.join(target, name)
        folder, inside = posixpath.split(target)
        command = ["tar", "-xmf", "-", "-C", folder or "."]
        if not self._preserve:
            command[1:1] = ["--no-same-permissions", "--no-same-owner"]
        remote = await self._open(command, stdin=True)
        joint = _Joint(remote, self._progress)

        def work() -> None:
            archive.pack(path, inside, joint, self._warn)

        return await self._run(remote, joint, work, sends=True)

    async def from_pod(self, source: str, destination: str) -> int:
        """Copies a file or what is in a folder of the container."""
        path = posixpath.normpath(source)
        absolute = path.startswith("/")
        if path == ".." or path.startswith("../"):
            raise Invalid(f'found "{source}"; allowed: a path without a leading ".."')
        # Without its first "/", which tar would take away with a warning.
        inside = path.lstrip("/") or "."
        member = f"./{inside}" if inside.startswith("-") else inside
        command = ["tar", "cf", "-", *(["-C", "/"] if absolute else []), member]
        unpacker = archive.Unpacker(inside, _target(destination), self._preserve, self._warn)
        remote = await self._open(command)
        joint = _Joint(remote, self._progress)

        def work() -> None:
            unpacker.unpack(joint)

        return await self._run(remote, joint, work, sends=False)

    async def _run(
        self, remote: Remote, joint: _Joint, work: Callable[[], None], *, sends: bool
    ) -> int:
        working = asyncio.create_task(asyncio.to_thread(work), name="tar")
        draining = asyncio.create_task(joint.drain(), name="output") if sends else None
        try:
            failure = await self._moved(working, joint, sends)
            if sends and not failure:
                await remote.close_input()
            await self._rest(draining, joint, failure)
            code = await self._end(remote)
        finally:
            joint.close()
            if draining is not None:
                draining.cancel()
            await asyncio.gather(working, return_exceptions=True)
            self._progress.close()
            await remote.close()
        words = self._failed(code) if code else failure
        if words:
            print(f"error: {plain(words)}", file=sys.stderr)
        return FAILED if words else 0

    @staticmethod
    async def _moved(working: asyncio.Task[None], joint: _Joint, sends: bool) -> str:
        """Why the other end's exit code is wanted though not all went over; empty where all did."""
        try:
            await working
        except archive.Corrupted as error:
            return str(error)
        except (BridgeError, _Closed):
            # A tar that has gone takes nothing more: why is told by how it ended.
            if not sends or not joint.ended:
                raise
            return "the tar in the container ended before all was sent"
        return ""

    @staticmethod
    async def _rest(draining: asyncio.Task[None] | None, joint: _Joint, failure: str) -> None:
        """Takes the rest of the output; of one that is no archive only what comes soon."""
        try:
            async with asyncio.timeout(PATIENCE if failure else None):
                await (draining or joint.drain())
        except TimeoutError:
            raise Unavailable(failure) from None

    def _failed(self, code: int) -> str:
        pod = self._found.name
        if code in _NOT_FOUND:
            return (
                f'there is no tar in container "{self._container}" of pod "{pod}"; '
                "cp needs one there, as kubectl's does"
            )
        return f'tar in container "{self._container}" of pod "{pod}" ended with exit code {code}'

    async def _end(self, remote: Remote) -> int:
        try:
            return await remote.wait()
        except Invalid as error:
            # It was not started: there is no exit code.
            raise Invalid(f"{self._failed(_NOT_FOUND[1])} ({error.message})") from None

    async def _is_folder(self, path: str) -> bool:
        remote = await self._open(["test", "-d", path])
        try:
            while (await remote.read())[0]:
                pass
            return await remote.wait() == 0
        except Invalid:
            # Where there is no `test` it may be a folder or not: the path is taken as it stands.
            return False
        finally:
            await remote.close()

    async def _open(self, command: Sequence[str], *, stdin: bool = False) -> Remote:
        from bridge.rpc.streams import open_exec

        start = start_of(self._found, self._container, command, stdin=stdin)
        return await open_exec(self._provider, start)

    def _warn(self, words: str) -> None:
        self._progress.wipe()
        print(plain(words), file=sys.stderr)


def _source(text: str) -> tuple[Path, str]:
    """(what to copy, its name)."""
    path = Path(text)
    if not path.exists() and not path.is_symlink():
        raise NotFound(f"{text} doesn't exist in local filesystem")
    # "." and ".." have no name of their own.
    return path, path.name if path.name not in ("", "..") else path.resolve().name


def _target(text: str) -> Path:
    path = Path(text)
    if text.endswith("/") and not path.is_dir():
        raise NotFound(f"{text} is no folder in the local filesystem")
    return path


class _Closed(Exception):
    """The copy was given up meanwhile, or the other end has gone."""


class _Joint:
    """A remote process's streams as a blocking file, for another thread."""

    def __init__(self, remote: Remote, progress: _Progress) -> None:
        self._remote = remote
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._pending: concurrent.futures.Future[Any] | None = None
        self._closed = False
        self.ended = False
        """Whether the remote process has written its last byte."""

    # In tar's thread.

    def write(self, data: bytes, /) -> int:
        """Returns once all of it was taken."""
        self._wait(self._send(bytes(data)))
        return len(data)

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most one piece; none at the end."""
        return self._wait(self._receive())

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self._closed:
            work.close()
            raise _Closed("the copy was given up")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._pending = future
        if self._closed:
            future.cancel()
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise _Closed("the copy was given up") from None

    # In the loop.

    def close(self) -> None:
        """Whoever waits in the other thread is told that nothing more comes."""
        self._closed = True
        if self._pending is not None:
            self._pending.cancel()

    async def drain(self) -> None:
        """Reads on to the end of the output, which nobody wants any more."""
        while not self.ended:
            await self._receive()

    async def _send(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE):
            if self.ended:
                raise _Closed("the other end has gone")
            await self._remote.write(data[start : start + PIECE])
        self._progress.add(len(data))

    async def _receive(self) -> bytes:
        while not self.ended:
            stream, data = await self._remote.read()
            if stream == "stdout":
                self._progress.add(len(data))
                return data
            if stream:
                self._progress.wipe()
                sys.stderr.write(plain(data.decode(errors="replace")))
                sys.stderr.flush()
            else:
                self.ended = True
        return b""


class _Progress:
    """How far a long copy is, in one line of a terminal that goes away at its end."""

    def __init__(self) -> None:
        self._shown = False
        self._on = sys.stderr.isatty()
        self._bytes = 0
        self._start = self._last = time.monotonic()

    def add(self, count: int) -> None:
        """So many bytes more have gone over."""
        self._bytes += count
        now = time.monotonic()
        if self._on and now - self._start > _SHOW_AFTER and now - self._last > _SHOW_EACH:
            self._last, self._shown = now, True
            each = self._bytes / (now - self._start) / 2**20
            sys.stderr.write(f"\r\x1b[K{self._bytes / 2**20:.0f} MiB, {each:.0f} MiB/s")
            sys.stderr.flush()

    def wipe(self) -> None:
        """Makes room for a line of words."""
        if self._shown:
            self._shown = False
            sys.stderr.write("\r\x1b[K")

    def close(self) -> None:
        """The end."""
        self.wipe()
        sys.stderr.flush()
