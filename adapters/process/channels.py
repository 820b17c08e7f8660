"""The provider's end of a channel into a container (see `keeper.guests`).

The keeper hands over the pipes, or the terminal, themselves. They are read and written here without
a copy in between: who does not read leaves the pipe full, and the kernel holds the writer back.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
import termios
from collections.abc import Sequence

from adapters.process.keeper import files
from adapters.process.keeper.spec import Request
from adapters.process.readiness import Readiness
from adapters.process.runs import Run
from bridge.adapter import Size
from bridge.errors import Invalid, NotFound, Unavailable
from bridge.workload import Running

_PIECE = 32 * 1024
_ANSWER = 60.0
"""Seconds for a command to be started; it takes 0.005 where the disk is not stuck."""
_LEFT = 2 * 1024 * 1024
"""Bytes that are still read when the command has ended: no two pipes hold more. What it wrote is
among them; what it has left in the background may write for ever."""
_BUSY = 0.01
"""Seconds between tries where the keeper has no room for a request just now."""
_SETTLES = 50
"""Looks, `_BUSY` apart, at whether a container that did not answer has ended."""


class ProcessChannel:
    """The streams of a command, or of the container's own process."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        """The keeper: it says how it ended, and closing it ends a command."""
        self._input = -1
        self._terminal = -1
        self._outputs: dict[int, str] = {}
        self._ready = Readiness()
        self._code: int | None = None
        self._error = ""
        self._started = False
        self._left = _LEFT
        self._read_all = False
        self._closed = False
        self._told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()

    async def start(self) -> bool:
        """Waits for the keeper's first word; False where there is none. Invalid, Unavailable."""
        asyncio.get_running_loop().add_reader(self._peer.fileno(), self._hear)
        try:
            async with asyncio.timeout(_ANSWER):
                await self._told
        except TimeoutError:
            raise Unavailable("the container's keeper does not answer") from None
        if self._started:
            return True
        if self._error:
            raise Invalid(self._error)
        return False

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                message, descriptors = _receive(self._peer)
                if not message:
                    asyncio.get_running_loop().remove_reader(self._peer.fileno())
                    if self._started and self._code is None:
                        self._error = self._error or "the container's keeper is gone"
                    break
                self._take(json.loads(message), descriptors)
        if not self._told.done():
            self._told.set_result(None)
        self._ready.wake()

    def _take(self, said: files.Json, descriptors: Sequence[int]) -> None:
        if "exit" in said:
            self._code = int(said["exit"])
        elif "error" in said:
            self._error = str(said["error"])
        else:
            self._adopt(said["names"], descriptors, said.get("input", True))

    def _adopt(self, names: Sequence[str], descriptors: Sequence[int], has_input: bool) -> None:
        if len(descriptors) != len(names):
            # This process may open no more files: the kernel has dropped some.
            for descriptor in descriptors:
                os.close(descriptor)
            return
        self._started = True
        named = dict(zip(names, descriptors, strict=True))
        for descriptor in named.values():
            os.set_blocking(descriptor, False)
        self._terminal = named.pop("terminal", -1)
        self._input = named.pop("stdin", self._terminal if has_input else -1)
        self._outputs = {descriptor: name for name, descriptor in named.items()}
        if not self._outputs:
            self._outputs = {self._terminal: "stdout"}

    async def read(self) -> tuple[str, bytes]:
        """The next bytes. Unavailable."""
        # A reader that always finds something must not keep all other tasks waiting.
        await asyncio.sleep(0)
        while not self._read_all:
            self._require_open()
            # Before the look at the pipes: what was written before the end is there by then.
            over = self._code is not None or bool(self._error)
            if (found := self._next()) is not None:
                return found
            if over:
                break
            await self._ready.wait(readable=self._outputs)
        self._read_all = True
        self._ended.set()
        if self._code is None:
            raise Unavailable(self._error)
        return "", b""

    def _next(self) -> tuple[str, bytes] | None:
        for descriptor, name in list(self._outputs.items()):
            try:
                data = os.read(descriptor, _PIECE)
            except BlockingIOError:
                continue
            except OSError:
                # EIO: nobody has the terminal open any more.
                data = b""
            # The other one comes first the next time, so that neither waits for ever.
            del self._outputs[descriptor]
            if not data:
                if descriptor != self._terminal:
                    os.close(descriptor)
                continue
            self._outputs[descriptor] = name
            if self._code is not None:
                self._left -= len(data)
                if self._left < 0:
                    return None
            return name, data
        return None

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable("the channel was closed")

    async def write(self, data: bytes) -> None:
        """Bytes for stdin; dropped where nobody reads them any more. Unavailable."""
        view = memoryview(data)
        while view:
            self._require_open()
            if self._error and self._code is None:
                raise Unavailable(self._error)
            if self._input < 0 or self._code is not None:
                return
            try:
                view = view[os.write(self._input, view) :]
            except BlockingIOError:
                await self._ready.wait(writable=[self._input])
            except OSError:
                # EPIPE, or EIO of a terminal.
                await self.close_input()

    async def close_input(self) -> None:
        """No more stdin. A terminal has no end: it stays as it is, as with container engines."""
        if self._input < 0:
            return
        descriptor, self._input = self._input, -1
        if descriptor != self._terminal:
            self._ready.wake()
            os.close(descriptor)
        with contextlib.suppress(OSError):
            self._peer.send(b".")

    async def resize(self, size: Size) -> None:
        """The terminal's size has changed; nothing to do where there is none."""
        if self._terminal >= 0:
            packed = struct.pack("4H", min(size.height, 65535), min(size.width, 65535), 0, 0)
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, packed)

    async def wait(self) -> int:
        """The exit code, once `read` has come to the end. Unavailable."""
        await self._ended.wait()
        if self._code is None:
            raise Unavailable(self._error or "the channel was closed")
        return self._code

    async def close(self) -> None:
        """Lets go: the keeper ends a command that still runs."""
        self.abandon()

    def abandon(self) -> None:
        """The same, without a loop's help."""
        if self._closed:
            return
        self._closed = True
        if self._peer.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._peer.fileno())
        self._ready.wake()
        self._ended.set()
        for descriptor in {*self._outputs, self._input, self._terminal} - {-1}:
            os.close(descriptor)
        self._outputs, self._input, self._terminal = {}, -1, -1
        self._peer.close()


def _receive(peer: socket.socket) -> tuple[bytes, list[int]]:
    """A message and its descriptors; no message at the end."""
    room = socket.CMSG_SPACE(3 * struct.calcsize("i"))
    try:
        data, ancillary, _, _ = peer.recvmsg(256 * 1024, room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # The keeper has closed its end before it read our last word. The kernel says so once, and
        # first: what the keeper had said is still there.
        data, ancillary, _, _ = peer.recvmsg(256 * 1024, room, socket.MSG_CMSG_CLOEXEC)
    found: list[int] = []
    for _, _, content in ancillary:
        found += [one for (one,) in struct.iter_unpack("i", content)]
    return data, found


async def open_channel(run: Run, request: Request) -> ProcessChannel:
    """Asks a run's keeper for a channel. NotFound: it does not run; Invalid: the command cannot be
    started; Unavailable."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    channel = ProcessChannel(ours)
    try:
        with theirs:
            sent = await _send(run, theirs, request)
        if sent and await channel.start():
            return channel
        raise await _why_not(run)
    except OSError as error:
        channel.abandon()
        raise Unavailable(f"no channel into the container: {error.strerror}") from error
    except BaseException:
        channel.abandon()
        raise


async def _send(run: Run, theirs: socket.socket, request: Request) -> bool:
    # In memory: the command may hold what belongs in no file, and be longer than a datagram.
    content = os.memfd_create("request", os.MFD_CLOEXEC)
    try:
        data = memoryview(json.dumps(request).encode())
        while data:
            data = data[os.write(content, data) :]
        async with asyncio.timeout(_ANSWER):
            while True:
                sent = run.pass_on([theirs.fileno(), content])
                if sent is not None:
                    return sent
                await asyncio.sleep(_BUSY)
    except TimeoutError:
        raise Unavailable("the container's keeper does not answer") from None
    finally:
        os.close(content)


async def _why_not(run: Run) -> Exception:
    for _ in range(_SETTLES):
        if not isinstance(await asyncio.to_thread(run.state), Running):
            return not_running(run.container)
        # Its end may be about to be published.
        await asyncio.sleep(_BUSY)
    return Unavailable(f"the keeper of container {run.container} gives no channel into it")


def not_running(container: str) -> NotFound:
    """Nothing of that container can be reached."""
    return NotFound(f"container {container} does not run")
