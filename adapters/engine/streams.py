"""Exec and attach: a process's streams over a connection that was HTTP and is raw now.

Without a terminal the engine sends frames: one byte of stream, three of nothing, four of length,
then the bytes. With one it sends bytes alone.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from adapters.engine import duplex, processes
from adapters.engine.check import LONGEST_PATH, TOO_LONG
from adapters.engine.client import Conflict, Engine, part
from adapters.engine.duplex import Duplex
from bridge.adapter import Size
from bridge.errors import BridgeError, Invalid, NotFound, Unavailable

_PIECE = 32 * 1024
"""Bytes of the longest piece that is given out."""
_HEADER = 8
_NAMES = {0: "stdout", 1: "stdout", 2: "stderr"}
"""Frames of stream 0 echo stdin's; no engine sends them, and a log may hold them."""
_LOOK = 0.02
"""Seconds between looks at whether a command has started: far below what an engine takes."""
_FIRST_LOOK, _LONGEST_LOOK = 0.005, 0.5
"""Seconds between looks at whether one has ended, whose output has."""
_LONGEST_WORDS = 64 * 1024
"""Bytes: an engine's explanation is never longer."""
_NO_KEYS = "ctrl-@,ctrl-^,ctrl-_,ctrl-],ctrl-@,ctrl-^,ctrl-_,ctrl-]"
"""Docker lets go of a terminal at some keys, by default ctrl-p ctrl-q, and cannot be told not to:
these are none that a person or a program sends in a row."""
_REFUSED = re.compile(
    r"^(OCI runtime exec failed|Error: .*(OCI |exec failed|executable file))", re.DOTALL
)
"""How the engines begin to say in the stream itself that nothing was started."""
_AFTERWORD = re.compile(
    rb"Error: (read|write) unixpacket .*/attach: (read|write): "
    rb"(connection reset by peer|broken pipe)\n"
)
"""Podman's own last words on stderr where a process has ended with stdin unread."""
_REFUSED_CODES = (-1, 125, 126, 127, 255)


class Frames:
    """Takes the frames of a connection apart. Keeps nothing but one frame's header."""

    def __init__(self, source: Duplex, *, raw: bool) -> None:
        self._source = source
        self._raw = raw
        self._name = "stdout"
        self._header = b""
        self._left = 0

    async def read(self) -> tuple[str, bytes]:
        """The next bytes and their stream; ("", b"") at the end. A cancelled read loses nothing.

        Unavailable: it breaks in the middle of a frame, or is none.
        """
        while not self._raw and not self._left:
            more = await self._bytes(_HEADER - len(self._header))
            if not more:
                if self._header:
                    raise Unavailable("the engine's stream broke off")
                return "", b""
            self._header += more
            if len(self._header) == _HEADER:
                self._begin(self._header)
        data = await self._bytes(_PIECE if self._raw else min(self._left, _PIECE))
        if data:
            self._left -= 0 if self._raw else len(data)
            return self._name, data
        if self._left:
            raise Unavailable("the engine's stream broke off")
        return "", b""

    def _begin(self, header: bytes) -> None:
        if header[0] not in _NAMES or header[1:4] != b"\0\0\0":
            raise Unavailable("the engine's stream has no frames where there must be some")
        self._name = _NAMES[header[0]]
        self._left = int.from_bytes(header[4:], "big")
        self._header = b""

    async def _bytes(self, most: int) -> bytes:
        try:
            return await self._source.read(most)
        except ConnectionError:
            # How an engine closes that has not read all of stdin. Whether it died instead is for
            # its next answer to tell.
            return b""
        except OSError as error:
            raise Unavailable(f"the engine's stream broke: {error.strerror or error}") from None


class Stream:
    """The streams of one process as a Channel."""

    def __init__(
        self,
        connection: Duplex,
        *,
        tty: bool,
        code: Callable[[], Awaitable[int]],
        resize: Callable[[Size], Awaitable[None]],
        end: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`code` gives the exit code once the process has ended; `end` ends it."""
        self._connection = connection
        self._frames = Frames(connection, raw=tty)
        self._unwanted = False
        self._ahead: deque[tuple[str, bytes]] = deque()
        self._held: tuple[str, bytes] | None = None
        self._over = asyncio.Event()
        self._code = code
        self._resize = resize
        self._end = end
        self._closed = False

    async def ahead(self) -> tuple[str, bytes]:
        """The next bytes, which `read` will give once more."""
        found = await self._frames.read()
        self._ahead.append(found)
        return found

    async def read(self) -> tuple[str, bytes]:
        """The next bytes of either stream."""
        try:
            found = await self._next()
        except Unavailable:
            self._over.set()
            raise
        if not found[0]:
            self._over.set()
        return found

    async def _next(self) -> tuple[str, bytes]:
        if self._held is None:
            found = await self._take()
            if found[0] != "stderr" or not _AFTERWORD.fullmatch(found[1]):
                return found
            # It is Podman's only where nothing follows. Kept, so that a cancelled read loses
            # nothing.
            self._held = found
        following = await self._take()
        held, self._held = self._held, None
        if not following[0]:
            return following
        self._ahead.appendleft(following)
        return held

    async def _take(self) -> tuple[str, bytes]:
        return self._ahead.popleft() if self._ahead else await self._frames.read()

    async def write(self, data: bytes) -> None:
        """Sends bytes to stdin; returns when the engine has taken them, or never will."""
        if self._closed or self._unwanted:
            return
        try:
            await self._connection.write(data)
        except OSError:
            # The connection ends with the process: what it left unread is what nobody wants.
            self._unwanted = True

    async def close_input(self) -> None:
        """Half-closes the connection; over TLS, which cannot, stdin stays open."""
        if not self._closed:
            self._connection.close_output()

    async def resize(self, size: Size) -> None:
        """Tells the engine by a call of its own."""
        await self._resize(size)

    async def wait(self) -> int:
        """The exit code, after the last byte was read."""
        await self._over.wait()
        return await self._code()

    async def close(self) -> None:
        """Closes the connection, and ends a command that still runs."""
        if self._closed:
            return
        self._closed = True
        self._over.set()
        await self._connection.close()
        if self._end is not None:
            with suppress(BridgeError):
                await self._end()


async def exec_in(
    engine: Engine, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool
) -> Stream:
    """Starts a command in a container, as the container's own user.

    NotFound: it does not run. Invalid: the command cannot be started, with the runtime's words.
    Closing the channel kills the command with its process group, where the engine is on this host
    and we may; elsewhere the API has no way: the command loses its streams and goes on.
    """
    if command and len(command[0].encode(errors="surrogateescape")) > LONGEST_PATH:
        raise Invalid(f"the command cannot be started: {TOO_LONG}")
    body = {
        "AttachStdin": stdin,
        "AttachStdout": True,
        "AttachStderr": True,
        "DetachKeys": _NO_KEYS,
        "Tty": tty,
        "Cmd": list(command),
    }
    try:
        made = await engine.call("POST", f"containers/{part(container_id)}/exec", body=body)
        session = f"exec/{part(made['Id'])}"
        start = {"Detach": False, "Tty": tty}
        connection = await duplex.of(*await engine.hijack(f"{session}/start", start))
    except Conflict as error:
        raise NotFound(error.message) from None

    async def resize(size: Size) -> None:
        await _resize(engine, session, size)
        if engine.local:
            processes.resize(await _exec_pid(engine, session), container_id, size)

    stream = Stream(
        connection,
        tty=tty,
        code=lambda: _exec_code(engine, session),
        resize=resize,
        end=lambda: _kill(engine, session, container_id),
    )
    try:
        await _started(engine, session, stream)
    except BaseException:
        await stream.close()
        raise
    if not stdin:
        await stream.close_input()
    return stream


async def _started(engine: Engine, session: str, stream: Stream) -> None:
    """Waits until the command runs, or has said something, or has ended. Invalid: it never ran."""
    first = asyncio.create_task(stream.ahead(), name="engine-exec-first")
    try:
        while not (await asyncio.wait({first}, timeout=_LOOK))[0]:
            if await _runs(engine, session):
                return
        name, data = first.result()
        words = data
        if not name or not _REFUSED.match(words.decode(errors="replace")):
            return
        if await _runs(engine, session):
            return
        while name and len(words) < _LONGEST_WORDS:
            name, data = await stream.ahead()
            words += data
        if not name and await _exec_code(engine, session) in _REFUSED_CODES:
            raise Invalid(_reason(words.decode(errors="replace")))
    finally:
        if not first.done():
            first.cancel()
            await asyncio.wait({first})


async def _runs(engine: Engine, session: str) -> bool:
    found = await engine.call("GET", f"{session}/json")
    return bool(found.get("Running") and found.get("Pid"))


def _reason(words: str) -> str:
    """The engine's words, without those of its own that follow from them (Podman)."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return lines[0].removeprefix("Error: ") if lines else "the command cannot be started"


async def _exec_code(engine: Engine, session: str) -> int:
    """The exit code of a command whose output has ended: it follows at once, or its streams were
    closed before it."""
    look = _FIRST_LOOK
    while True:
        found = await engine.call("GET", f"{session}/json")
        code = found.get("ExitCode")
        if not found.get("Running") and code is not None:
            return int(code)
        await asyncio.sleep(look)
        look = min(look * 2, _LONGEST_LOOK)


async def _resize(engine: Engine, path: str, size: Size) -> None:
    # A terminal whose process has just ended or not yet begun has no size to change.
    with suppress(NotFound, Conflict, Unavailable):
        await engine.call("POST", f"{path}/resize", params={"h": size.height, "w": size.width})


async def _exec_pid(engine: Engine, session: str) -> int:
    """The command's process on the engine's host; 0 where it does not run."""
    found = await engine.call("GET", f"{session}/json")
    return int(found.get("Pid") or 0) if found.get("Running") else 0


async def _kill(engine: Engine, session: str, container_id: str) -> None:
    if engine.local:
        processes.kill(await _exec_pid(engine, session), container_id)


async def attach(engine: Engine, container_id: str, *, stdin: bool) -> Stream:
    """Joins what a container's own process writes from now on. NotFound: it does not run.

    Podman ends the container's stdin with the first connection that had it and leaves, whatever
    the container was made with (stdinOnce); one without stdin leaves without a trace.
    """
    path = f"containers/{part(container_id)}"
    found = await engine.call("GET", f"{path}/json")
    if not found["State"].get("Running"):
        raise NotFound(f"container {container_id} does not run")
    tty = bool(found["Config"].get("Tty"))
    wanted: dict[str, Any] = {
        "stream": True,
        "stdin": stdin,
        "stdout": True,
        "stderr": True,
        "detachKeys": _NO_KEYS,
    }
    try:
        connection = await duplex.of(*await engine.hijack(f"{path}/attach", params=wanted))
    except Conflict as error:
        raise NotFound(error.message) from None

    async def resize(size: Size) -> None:
        await _resize(engine, path, size)
        if engine.local:
            state = (await engine.call("GET", f"{path}/json"))["State"]
            processes.resize(int(state.get("Pid") or 0), str(found["Id"]), size)

    return Stream(connection, tty=tty, code=lambda: _code(engine, path), resize=resize)


async def _code(engine: Engine, path: str) -> int:
    """The exit code of a container whose output has ended."""
    look = _FIRST_LOOK
    while True:
        state = (await engine.call("GET", f"{path}/json"))["State"]
        # Podman stops and says so before it has the code: "exited" is when it has.
        if not state.get("Running") and state.get("Status") not in ("running", "stopping"):
            return int(state["ExitCode"])
        await asyncio.sleep(look)
        look = min(look * 2, _LONGEST_LOOK)


async def run(engine: Engine, container_id: str, command: Sequence[str]) -> tuple[int, str]:
    """Runs a short command to its end: its code, and what it wrote (at most 64 KiB).

    Errors as of `exec_in`.
    """
    stream = await exec_in(engine, container_id, command, stdin=False, tty=False)
    said = b""
    try:
        while (found := await stream.read())[0]:
            said = (said + found[1])[:_LONGEST_WORDS]
        return await stream.wait(), said.decode(errors="replace")
    finally:
        await stream.close()
