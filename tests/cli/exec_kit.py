"""A provider of the contract's stream calls that runs commands of this machine, and found pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commands_kit import container, fake_run, pod

from bridge.cli.select import Found, RunState
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.rpc.v1 import stream_pb2 as streams

_CREDIT = 256 * 1024
_FRAME = 32 * 1024


def running(name: str = "web", **more: Any) -> dict[str, Any]:
    """A pod of one container that runs."""
    state = {"running": {"startedAt": "2026-01-02T03:04:05Z"}}
    return pod(name, containerStatuses=[container(**state)], **more)


def found(one: dict[str, Any], run: str = "words") -> Found:
    """A pod in a run."""
    state = RunState(fake_run(run), None)
    state.pods[one["metadata"]["uid"]] = one
    return Found(state, one)


@dataclass
class Machine:
    """Runs each command in `folder`, with nothing but `path` to find programs on."""

    folder: Path
    path: str = "/usr/bin:/bin"
    refuse: str = ""
    """Why no command starts."""
    abilities: tuple[str, ...] = ("dial", "exec", "stats")
    commands: list[list[str]] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    stats: list[pb.GetStatsResponse] = field(default_factory=list)
    """Answers to come; the last one again and again."""

    async def watch_node(self, request: pb.WatchNodeRequest) -> AsyncIterator[pb.WatchNodeResponse]:
        offer = pb.WatchNodeResponse()
        offer.backends.add(name="process", type="process", abilities=self.abilities)
        yield offer

    async def get_stats(self, request: pb.GetStatsRequest) -> pb.GetStatsResponse:
        return self.stats.pop(0) if len(self.stats) > 1 else self.stats[0]

    async def exec(
        self, requests: AsyncIterator[streams.ExecRequest]
    ) -> AsyncGenerator[streams.ExecResponse, None]:
        start = (await anext(requests)).start
        self.commands.append(list(start.command))
        if self.refuse:
            yield streams.ExecResponse(exit=streams.Exit(error=self.refuse))
            return
        try:
            process = await asyncio.create_subprocess_exec(
                *start.command,
                cwd=self.folder,
                env={"PATH": self.path},
                stdin=asyncio.subprocess.PIPE if start.stdin else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except FileNotFoundError:
            yield streams.ExecResponse(exit=streams.Exit(error="no such program"))
            return
        session = _Session(self, process)
        hearing = asyncio.gather(session.hear(requests), session.feed())
        try:
            async for response in session.responses():
                yield response
        finally:
            hearing.cancel()
            if process.returncode is None:
                process.kill()
            # It is over for asyncio only once nothing of its output is left unread.
            await process.communicate()
            await asyncio.gather(hearing, return_exceptions=True)


class _Session:
    """One command, with the credits that the contract asks for."""

    def __init__(self, machine: Machine, process: asyncio.subprocess.Process) -> None:
        self._machine = machine
        self._process = process
        self._credit = {streams.STREAM_STDOUT: _CREDIT, streams.STREAM_STDERR: _CREDIT}
        self._news = asyncio.Event()
        self._in: asyncio.Queue[bytes] = asyncio.Queue()
        self._out: asyncio.Queue[streams.ExecResponse | None] = asyncio.Queue(4)

    async def hear(self, requests: AsyncIterator[streams.ExecRequest]) -> None:
        async for request in requests:
            match request.WhichOneof("message"):
                case "data":
                    assert len(request.data.content) <= _FRAME
                    self._in.put_nowait(request.data.content)
                case "credit":
                    self._credit[request.credit.stream] += request.credit.bytes
                    self._news.set()
                case "resize":
                    self._machine.sizes.append((request.resize.width, request.resize.height))
                case "close_stdin":
                    self._in.put_nowait(b"")

    async def feed(self) -> None:
        """Its stdin, apart from all else: what it does not read must hold up no credit."""
        stdin = self._process.stdin
        while data := await self._in.get():
            assert stdin is not None
            with suppress(BrokenPipeError, ConnectionResetError):
                stdin.write(data)
                await stdin.drain()
            grant = streams.Credit(stream=streams.STREAM_STDIN, bytes=len(data))
            await self._out.put(streams.ExecResponse(credit=grant))
        if stdin is not None:
            stdin.close()

    async def responses(self) -> AsyncIterator[streams.ExecResponse]:
        out, err = self._process.stdout, self._process.stderr
        assert out is not None
        assert err is not None
        whole = asyncio.gather(
            self._send(out, streams.STREAM_STDOUT), self._send(err, streams.STREAM_STDERR)
        )
        whole.add_done_callback(lambda _: self._ended.set())
        self._ended = asyncio.Event()
        ending = asyncio.create_task(self._end())
        try:
            while (response := await self._out.get()) is not None:
                yield response
            code = await self._process.wait()
            yield streams.ExecResponse(exit=streams.Exit(code=code if code >= 0 else 128 - code))
        finally:
            ending.cancel()
            whole.cancel()
            await asyncio.gather(ending, whole, return_exceptions=True)

    async def _end(self) -> None:
        await self._ended.wait()
        await self._out.put(None)

    async def _send(self, source: asyncio.StreamReader, stream: Any) -> None:
        while data := await source.read(_FRAME):
            while self._credit[stream] < len(data):
                self._news.clear()
                await self._news.wait()
            self._credit[stream] -= len(data)
            message = streams.Data(stream=stream, content=data)
            await self._out.put(streams.ExecResponse(data=message))
