"""Exec, attach and port-forward as a client holds them: messages, credits, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from bridge.conformance.kit import FRAME, STDERR, STDOUT, Kit
from bridge.conformance.model import Broken, expect
from bridge.conformance.pods import Pod
from bridge.conformance.wire import Refusal, refusal
from bridge.rpc import channel
from bridge.rpc.v1 import stream_pb2 as sp

FIRST_CREDIT = 256 * 1024
"""Bytes that each direction of each stream may carry before the other side grants more."""

Made = Callable[..., Any]


@dataclass(slots=True)
class Held:
    """What a session has brought so far."""

    output: dict[int, bytearray] = field(default_factory=dict)
    exit: sp.Exit | None = None
    after: list[str] = field(default_factory=list)
    """Messages behind the exit."""
    refused: Refusal | None = None
    """The status with which the call failed."""
    over: bool = False

    def of(self, stream: int) -> bytes:
        """What that stream has brought."""
        return bytes(self.output.get(stream, b""))


class Session:
    """One exec or attach. It grants credit for what it reads, unless told to hold it back."""

    def __init__(self, kit: Kit, call: Any, request: Made, *, grants: bool = True) -> None:
        self._kit = kit
        self._call = call
        self._request = request
        self._grants = grants
        self._stdin = FIRST_CREDIT
        self._writing = asyncio.Lock()
        """gRPC takes one write at a time."""
        self.held = Held()
        self.changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read(), name="read a session")

    async def write(self, **message: Any) -> None:
        """Sends one message; what the provider has ended already takes none."""
        try:
            async with self._writing:
                await self._call.write(self._request(**message))
        except (grpc.RpcError, asyncio.InvalidStateError):
            return

    async def stdin(self, data: bytes) -> None:
        """Sends bytes to stdin within the provider's credit, and closes it. It waits for credit for
        a whole frame, and the first byte goes alone: frames never end where the credit does."""
        with self._kit.waiting("credit for more stdin before less than a frame's is left"):
            for start in (0, *range(1, len(data), FRAME)):
                piece = data[start : start + FRAME] if start else data[:1]
                while self._stdin < len(piece) and not self.held.over:
                    await self._next()
                self._stdin -= len(piece)
                await self.write(data=sp.Data(stream=sp.STREAM_STDIN, content=piece))
        await self.write(close_stdin=True)

    async def grant(self, stream: sp.Stream.ValueType, size: int) -> None:
        """Grants credit for a stream of output, and from now on for all that comes."""
        self._grants = True
        await self.write(credit=sp.Credit(stream=stream, bytes=size))

    async def until(self, true: Callable[[Held], object], expected: str) -> Held:
        """Waits until that is true of what has come."""
        with self._kit.waiting(expected):
            while not true(self.held):
                if self.held.over:
                    raise Broken(expected, self.words())
                await self._next()
        return self.held

    async def end(self) -> Held:
        """All of it, once the provider has ended the stream."""
        with self._kit.waiting("the exit, and the end of the stream"):
            while not self.held.over:
                await self._next()
        expect(not self.held.after, "nothing after the exit", ", ".join(self.held.after))
        return self.held

    def words(self) -> str:
        """What has come, in words."""
        sizes = {
            name: len(self.held.of(stream))
            for name, stream in (("stdout", STDOUT), ("stderr", STDERR))
        }
        end = str(self.held.exit).strip() if self.held.exit is not None else "no exit"
        return f"{sizes}, {end}, {self.held.refused or 'no error'}"

    async def close(self) -> None:
        """Lets go."""
        self._call.cancel()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _next(self) -> None:
        await self.changed.wait()

    async def _read(self) -> None:
        try:
            async for message in self._call:
                await self._take(message)
                self._tell()
        except grpc.RpcError as error:
            self.held.refused = refusal(error)
        finally:
            self.held.over = True
            self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def _take(self, message: Any) -> None:
        kind = message.WhichOneof("message")
        if self.held.exit is not None:
            self.held.after.append(str(kind))
        if kind == "data":
            stream, content = message.data.stream, message.data.content
            expect(len(content) <= FRAME, f"at most {FRAME} bytes a frame", f"{len(content)}")
            self.held.output.setdefault(stream, bytearray()).extend(content)
            if self._grants:
                await self.write(credit=sp.Credit(stream=stream, bytes=len(content)))
        elif kind == "credit":
            if message.credit.stream == sp.STREAM_STDIN:
                self._stdin += message.credit.bytes
        elif kind == "exit":
            self.held.exit = message.exit


async def start_exec(
    kit: Kit,
    pod: Pod,
    *command: str,
    container: str = "main",
    grants: bool = True,
    wants: sp.ExecStart | None = None,
) -> Session:
    """Opens an exec. `wants` says which streams, and whether a terminal: stdout and stderr, and
    none, where it is not given."""
    call = kit.wire.bytes_stub.Exec(metadata=channel.CONTRACT_METADATA)
    session = Session(kit, call, sp.ExecRequest, grants=grants)
    start = sp.ExecStart(pod=pod.identity, container=container, command=command)
    start.MergeFrom(wants or sp.ExecStart(stdout=True, stderr=True))
    await session.write(start=start)
    return session


async def execute(
    kit: Kit, pod: Pod, script: str, stdin: bytes | None = None, *, stderr: bool = True
) -> Held:
    """Runs a script in the container to its end."""
    wants = sp.ExecStart(stdin=stdin is not None, stdout=True, stderr=stderr)
    session = await start_exec(kit, pod, "sh", "-c", script, wants=wants)
    try:
        if stdin is None:
            return await session.end()
        sending = asyncio.create_task(session.stdin(stdin), name="send stdin")
        held = await session.end()
        await sending
        return held
    finally:
        await session.close()


def exit_code(held: Held) -> int | None:
    """The exit code; None where none was told."""
    if held.exit is None or not held.exit.HasField("code"):
        return None
    return held.exit.code
