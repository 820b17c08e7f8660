"""Commands in containers through a cloud's own sessions, for pods that no tunnel reaches."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from bridge.adapter import Size
from bridge.errors import BridgeError, Invalid, Unavailable
from bridge.groups import wrapper
from bridge.groups.bell import Bell

_log = logging.getLogger(__name__)

_BEGINS = 60.0
"""Seconds in which a command has to begin."""
_LEAVES = 5.0
"""Seconds in which a session whose command is over has to end by itself."""
_PIECE, _ROOM = 32 * 1024, 64 * 1024
"""Bytes that are given out at once, and kept for whoever reads."""
_NO_SHELL = re.compile(r"executable file not found|no such file or directory", re.I)
_WORDS = 512
_LACKS_SHELL = "the image has no sh, which exec without a tunnel takes"


class Session(Protocol):
    """One terminal in a container, with what `wrapper.wrapped` runs at its other end."""

    @property
    def words(self) -> str:
        """What the other side said as it ended the session."""

    async def read(self) -> bytes:
        """The next bytes of the terminal; b"": the other side has ended the session. Unavailable:
        it broke; Unsupported: it wants what we cannot do."""

    async def write(self, data: bytes) -> None:
        """What is typed at the terminal; returns when all of it is on its way. Errors as of `read`;
        ended: dropped."""

    async def resize(self, size: Size) -> None:
        """The terminal's size. Errors as of `write`."""

    async def ended(self, seconds: float) -> bool:
        """Whether the other side ends the session within that time; its output is dropped."""

    async def close(self) -> None:
        """Lets go of the connection. May be repeated."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A session, and what has the cloud end it with all that runs in it."""

    session: Session
    terminate: Callable[[], Awaitable[None]]


Join = Callable[[Callable[[], None]], Awaitable[Joined]]
"""Has the cloud make a session, and joins it. It is given what raises Unavailable once nobody wants
it any more; a session that nobody joins is its own to end."""


class Commands:
    """Those of one backend."""

    def __init__(self) -> None:
        self._open: set[Command] = set()
        self._joining: set[asyncio.Task[Command]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    async def close(self) -> None:
        """Ends those that still run, and those on their way. No more are started."""
        self._closed = True
        while tasks := self._unfinished():
            await asyncio.wait(tasks)

    def _unfinished(self) -> set[asyncio.Task[Any]]:
        ending = [one.ending() for one in list(self._open)]
        return {one for one in (*ending, *self._joining, *self._leaving) if not one.done()}

    async def begun(self, join: Join, name: str, word: str, *, stdin: bool, tty: bool) -> Command:
        """The command in that session, once it runs. `name`: its program; `word`: the random one
        that it was wrapped with. Invalid: it cannot be started; errors of `join`."""
        if self._closed:
            raise _closed()
        gone = asyncio.Event()

        def require_wanted() -> None:
            if self._closed or gone.is_set():
                raise _closed()

        async def joined() -> Command:
            found = await join(require_wanted)
            made = Command(
                found.session,
                (wrapper.Terminal if tty else wrapper.Pipes)(wrapper.marked(word, stdin=stdin)),
                found.terminate,
                self._open.discard,
                name=name,
                stdin=stdin,
                tty=tty,
            )
            self._open.add(made)
            return made

        # What the cloud was asked for comes, whether or not its caller is still there.
        joining = asyncio.create_task(joined(), name="session of a command on its way")
        self._joining.add(joining)
        joining.add_done_callback(self._joining.discard)
        try:
            made = await asyncio.shield(joining)
            await made.begin()
        except asyncio.CancelledError:
            gone.set()
            leaving = asyncio.create_task(_leave(joining), name="leaving a session of a command")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
            raise
        except BaseException:
            await _leave(joining)
            raise
        return made


async def _leave(joining: asyncio.Task[Command]) -> None:
    """Ends what nobody waits for any more."""
    try:
        made = await joining
    except Exception:  # noqa: BLE001 - there is none; whoever waited for it was told why
        return
    await made.close()


class Command:
    """A command as `bridge.adapter.Channel`."""

    def __init__(
        self,
        opened: Session,
        parser: wrapper.Terminal | wrapper.Pipes,
        terminate: Callable[[], Awaitable[None]],
        closed: Callable[[Command], None],
        *,
        name: str,
        stdin: bool,
        tty: bool,
    ) -> None:
        self._session = opened
        self._parser = parser
        self._terminate = terminate
        self._tell_closed = closed
        self._name = name
        self._tty = tty
        self._bell = Bell()
        self._output: deque[tuple[str, bytes]] = deque()
        self._waiting = 0
        self._begun = False
        self._code: int | None = None
        self._over = False
        """Its last byte has come, and its exit code."""
        self._failure: BridgeError | None = None
        self._ended = asyncio.Event()
        """`read` gives nothing more."""
        self._typing = asyncio.Lock()
        self._untaken = 0
        """Lines of stdin on their way."""
        self._input_is_over = not stdin
        self._closed = False
        self._ending: asyncio.Task[None] | None = None
        self._tasks = [asyncio.create_task(self._pump(), name="command in a session")]

    async def begin(self) -> None:
        """Returns when the command runs. Invalid: it cannot be started; Unavailable."""
        try:
            async with asyncio.timeout(_BEGINS):
                await self._bell.until(lambda: self._begun or self._failure is not None)
        except TimeoutError:
            words = f"the command has not begun within {_BEGINS:.0f} seconds"
            raise Unavailable(words) from None
        if self._failure is not None and not self._begun:
            raise self._failure

    async def read(self) -> tuple[str, bytes]:
        """The next bytes. Unavailable."""
        await self._bell.until(
            lambda: bool(self._output or self._over or self._failure) or self._closed
        )
        if self._output and not self._closed:
            stream, data = self._output.popleft()
            if len(data) > _PIECE:
                self._output.appendleft((stream, data[_PIECE:]))
            self._waiting -= len(data[:_PIECE])
            self._bell.ring()
            return stream, data[:_PIECE]
        self._ended.set()
        if not self._over:
            raise self._failure or _closed()
        return "", b""

    async def _pump(self) -> None:
        """Takes what the session gives."""
        try:
            while not self._over:
                await self._bell.until(lambda: self._waiting < _ROOM)
                data = await self._session.read()
                if not data:
                    raise self._gone()
                for one in self._parser.feed(data):
                    self._take(one)
                self._bell.ring()
        except BridgeError as error:
            self._failure = error
        except Exception:  # noqa: BLE001 - whoever reads would wait for ever
            _log.exception("what came of a command in a session cannot be read")
            self._failure = Unavailable("what came of the command cannot be read")
        finally:
            self._bell.ring()

    def _take(self, one: wrapper.Word) -> None:
        match one:
            case wrapper.Output(stream, written):
                self._output.append((stream, written))
                self._waiting += len(written)
            case wrapper.Taken():
                self._untaken -= 1
            case wrapper.Begun():
                self._begun = True
            case wrapper.Lacks(what):
                raise Invalid(_lacks(what, self._name))
            case wrapper.Ended(code):
                self._code = code
                if not self._tty and not self._input_is_over:
                    self._tell(wrapper.INPUT_ENDS)
                self._input_is_over = True
            case wrapper.Over():
                self._over = True
                self._tell(wrapper.END)

    def _gone(self) -> BridgeError:
        """Why the session has ended before the command."""
        words = self._session.words or self._parser.noise.decode(errors="replace")
        words = " ".join(words.split())[:_WORDS]
        if not self._begun and _NO_SHELL.search(words):
            return Invalid(f"{_LACKS_SHELL}: {words}")
        return Unavailable("the session has ended before the command" + (words and f": {words}"))

    def _tell(self, line: bytes) -> None:
        """Types a line behind all that is being typed; whoever reads does not wait for it."""

        async def tell() -> None:
            with suppress(BridgeError):
                async with self._typing:
                    await self._session.write(line)

        self._tasks.append(asyncio.create_task(tell(), name="last words to a session"))

    async def write(self, data: bytes) -> None:
        """Bytes for stdin; dropped where nobody reads them any more. Unavailable."""
        self._require_open()
        async with self._typing:
            for one in [data] if self._tty else wrapper.input_lines(data):
                if not self._tty:
                    await self._bell.until(lambda: self._untaken < wrapper.LINES or self._is_deaf)
                if self._is_deaf:
                    break
                self._untaken += 1
                await self._session.write(one)
        self._require_open()

    @property
    def _is_deaf(self) -> bool:
        """Whether no more is typed."""
        return self._input_is_over or self._closed or self._failure is not None

    async def close_input(self) -> None:
        """No more stdin. A terminal has no such end: there it is a key, as people press it."""
        if self._tty or self._input_is_over:
            return
        async with self._typing:
            if not self._is_deaf:
                self._input_is_over = True
                await self._session.write(wrapper.INPUT_ENDS)

    async def resize(self, size: Size) -> None:
        """The terminal's size has changed; nothing to do where there is none. Unavailable."""
        if self._tty and not self._over:
            await self._session.resize(size)

    async def wait(self) -> int:
        """The exit code, once `read` has come to the end. Unavailable."""
        await self._ended.wait()
        if not self._over or self._code is None:
            raise self._failure or _closed()
        return self._code

    async def close(self) -> None:
        """Ends the session, and a command that still runs; goes on where the caller does not wait
        for it."""
        await asyncio.shield(self.ending())

    def ending(self) -> asyncio.Task[None]:
        """Begins to close, once."""
        if self._ending is None:
            self._closed = True
            self._ended.set()
            self._bell.ring()
            self._ending = asyncio.create_task(self._end(), name="end of a command")
        return self._ending

    async def _end(self) -> None:
        try:
            if not (self._over and await self._session.ended(_LEAVES)):
                await self._terminate()
        finally:
            for one in self._tasks:
                one.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            try:
                await self._session.close()
            finally:
                self._tell_closed(self)

    def _require_open(self) -> None:
        if self._closed or self._failure is not None:
            raise self._failure or _closed()


def _closed() -> Unavailable:
    return Unavailable("the channel was closed")


def _lacks(what: str, name: str) -> str:
    if what == "command":
        return f'the command cannot be started: there is no program "{name}" that can be run'
    return f"the image has no {what}, which exec without a tunnel takes where there is no terminal"
