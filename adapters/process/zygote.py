"""The provider's end of the zygote (see `keeper.zygote`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from adapters.process.keeper.spec import RunSpec
from bridge.errors import Ambiguous, Unavailable

_CODE = "import sys; sys.path.append(sys.argv[1]); from keeper.zygote import main; main()"
_AT_ONCE = 16
"""Starts in flight: enough to keep every core busy with a start of a few milliseconds."""
_HELLO = 30.0
"""Seconds for a Python to start; it takes 0.03 on an idle machine."""
_ANSWER = 60.0
"""Seconds for a keeper to write its mark; it takes 0.005 where the disk is not stuck."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """What this machine lets a container have, and who may run in it."""

    namespaces: str
    """How a mount namespace is made: "mount" as root, "user" in one for users, "": not at all."""
    why: str
    """Why there is none."""
    user: int
    group: int
    groups: frozenset[int]

    @property
    def any_user(self) -> bool:
        """Whether containers can run as somebody else."""
        return self.user == 0 and self.namespaces != "user"


class Zygote:
    """Starts keepers. The process is started anew when it has died."""

    def __init__(self, errors: Path) -> None:
        self._errors = errors
        """Where keepers write why they broke."""
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._opening = asyncio.Lock()
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def open(self) -> Isolation:
        """Starts the process and asks what the machine allows. Unavailable."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._control = ours
        try:
            self._process = self._launch(theirs)
        except OSError as error:
            raise Unavailable(f"cannot start a process: {error.strerror}") from error
        finally:
            theirs.close()
        hello = b""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(_HELLO):
                hello = await asyncio.get_running_loop().sock_recv(ours, 65536)
        if not hello:
            await self.close()
            raise Unavailable(f"the process that starts containers broke: see {self._errors}")
        said = json.loads(hello)
        return Isolation(
            namespaces=said["namespaces"],
            why=said["why"],
            user=os.geteuid(),
            group=os.getegid(),
            groups=frozenset((*os.getgroups(), os.getegid())),
        )

    def _launch(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        errors = os.open(self._errors, flags, 0o600)
        folder = str(Path(__file__).parent)
        options = ["-I", "-S", "-X", "utf8"]
        number = theirs.fileno()
        try:
            return subprocess.Popen(
                [sys.executable, *options, "-c", _CODE, folder, str(number)],
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=(number,),
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(errors)

    async def start(self, spec: RunSpec) -> str:
        """What the keeper says: "started", "exists" or "gone". Unavailable, Ambiguous."""
        data = json.dumps(spec).encode()
        # No answer means that the zygote died over it, or the keeper. Asking again is safe: the
        # run's own mark decides whether anything is still to be started.
        answer = await self._ask(data) or await self._ask(data)
        if not answer:
            raise Ambiguous(f"the container's keeper broke: see {self._errors}")
        if answer.startswith("error: "):
            raise Unavailable(f"cannot start a container: {answer[7:]}")
        return answer

    async def _ask(self, data: bytes) -> str:
        loop = asyncio.get_running_loop()
        async with self._room:
            ours, theirs = socket.socketpair()
            with ours:
                ours.setblocking(False)
                await self._pass(theirs)
                try:
                    async with asyncio.timeout(_ANSWER):
                        await loop.sock_sendall(ours, struct.pack("!I", len(data)) + data)
                        return (await loop.sock_recv(ours, 4096)).decode("utf-8", "replace")
                except TimeoutError:
                    raise Ambiguous("the container's keeper has not answered") from None
                except OSError:
                    return ""

    async def _pass(self, theirs: socket.socket) -> None:
        with theirs:
            for again in (True, False):
                try:
                    await self._send(theirs)
                except OSError as error:
                    if not again:
                        raise Unavailable(f"cannot start a container: {error.strerror}") from error
                    await self._reopen()
                else:
                    return

    async def _send(self, theirs: socket.socket) -> None:
        control = self._control
        if control is None:
            raise BrokenPipeError(32, "the process that starts containers is gone")
        while True:
            try:
                socket.send_fds(control, [b"."], [theirs.fileno()])
            except BlockingIOError:
                await asyncio.sleep(0.001)
            else:
                return

    async def _reopen(self) -> None:
        broken = self._control
        async with self._opening:
            if self._control is broken:
                await self.close()
                await self.open()

    async def close(self) -> None:
        """Ends the process; keepers go on."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            process, self._process = self._process, None
            await asyncio.to_thread(process.wait)
