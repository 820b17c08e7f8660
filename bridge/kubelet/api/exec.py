"""Commands in containers, and their own processes: streams between a client and the provider.

What can be refused is refused before the upgrade, with a status code. From then on the error stream
tells how it ended: a v1.Status, behind the last byte. A client that leaves takes its command along.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

from aiohttp import web

from bridge.agent.provider import ProviderClient
from bridge.errors import BridgeError
from bridge.kubelet.api.answers import SUCCESS, exited, internal_error
from bridge.kubelet.api.pods import Pods, asked_for, is_running, quoted, spec_of
from bridge.kubelet.api.tasks import end
from bridge.kubelet.streams import RemoteCommand, Wanted
from bridge.kubelet.streams.upgrade import command
from bridge.pods import Manifest
from bridge.rpc.streams import Remote, open_attach, open_exec
from bridge.rpc.v1 import stream_pb2


@dataclass(frozen=True, slots=True)
class _Size:
    width: int
    height: int


class Commands:
    """Answers `/exec` and `/attach`."""

    def __init__(self, pods: Pods, provider: ProviderClient) -> None:
        self._pods = pods
        self._provider = provider

    async def exec(self, request: web.Request) -> web.StreamResponse:
        """GET or POST /exec/{namespace}/{pod}[/{uid}]/{container}?command=…&input=1…

        HTTPBadRequest: no command, no stream. HTTPNotFound: no such container runs.
        """
        wanted = wanted_of(request)
        words = request.query.getall("command", [])
        if not words:
            raise web.HTTPBadRequest(text="you must specify a command")
        pod, _ = self._running(request)
        start = stream_pb2.ExecStart(
            pod=self._pods.identity(pod),
            container=request.match_info["container"],
            command=words,
            stdin=wanted.stdin,
            stdout=wanted.stdout,
            stderr=wanted.stderr,
            tty=wanted.tty,
        )
        streams = await command(request, wanted)
        if isinstance(streams, web.StreamResponse):
            return streams
        remote = await open_exec(self._provider, start)
        await carry(streams, remote, start.stdin, exited, "error executing command in container")
        return streams.response

    async def attach(self, request: web.Request) -> web.StreamResponse:
        """GET or POST /attach/{namespace}/{pod}[/{uid}]/{container}?input=1…

        Whether there is a terminal, and a stdin, is the container's own matter. HTTPBadRequest and
        HTTPNotFound as at `exec`.
        """
        wanted = wanted_of(request)
        pod, spec = self._running(request)
        tty = bool(spec.get("tty"))
        start = stream_pb2.AttachStart(
            pod=self._pods.identity(pod),
            container=request.match_info["container"],
            stdin=wanted.stdin and bool(spec.get("stdin")),
            stdout=wanted.stdout,
            stderr=wanted.stderr and not tty,
            tty=tty,
        )
        streams = await command(request, wanted)
        if isinstance(streams, web.StreamResponse):
            return streams
        remote = await open_attach(self._provider, start)
        # How the process ended is in the pod's status: attaching to it has succeeded.
        await carry(streams, remote, start.stdin, lambda _: SUCCESS, "error attaching to container")
        return streams.response

    def _running(self, request: web.Request) -> tuple[Manifest, Manifest]:
        pod = asked_for(self._pods, request)
        container = request.match_info["container"]
        spec = spec_of(pod, container)
        if spec is None or not is_running(pod, container):
            raise web.HTTPNotFound(text=f"container not found ({quoted(container)})")
        return pod, spec


def wanted_of(request: web.Request) -> Wanted:
    """The streams that a request asks for. HTTPBadRequest: none."""
    stdin, stdout, stderr, tty = (
        request.query.get(name) == "1" for name in ("input", "output", "error", "tty")
    )
    if not (stdin or stdout or (stderr and not tty)):
        raise web.HTTPBadRequest(text="you must specify at least 1 of stdin, stdout, stderr")
    # A terminal has one output: as in the kubelet, stderr is left out and not refused.
    return Wanted(stdin, stdout, stderr and not tty, tty)


async def carry(
    streams: RemoteCommand,
    remote: Remote,
    stdin: bool,
    ended: Callable[[int], dict[str, Any]],
    failed: str,
) -> None:
    """Bytes both ways until the process has ended or the client has gone; then lets go of both.
    `ended` makes a v1.Status of the exit code, `failed` are the words for what could not run."""
    output = asyncio.create_task(_output(streams, remote, ended, failed), name="output")
    gone = asyncio.create_task(streams.gone(), name="gone")
    others = [
        asyncio.create_task(_input(streams, remote if stdin else None), name="input"),
        asyncio.create_task(_sizes(streams, remote), name="sizes"),
    ]
    try:
        await asyncio.wait({output, gone}, return_when=asyncio.FIRST_COMPLETED)
        with contextlib.suppress(ConnectionError):
            if output.done():
                await streams.finish(output.result())
    finally:
        try:
            await end(output, gone, *others)
        finally:
            await remote.close()


async def _output(
    streams: RemoteCommand, remote: Remote, ended: Callable[[int], dict[str, Any]], failed: str
) -> dict[str, Any]:
    try:
        while (piece := await remote.read())[0]:
            await streams.write(cast(Literal["stdout", "stderr"], piece[0]), piece[1])
        return ended(await remote.wait())
    except BridgeError as error:
        return internal_error(f"{failed}: {error.message}")


async def _input(streams: RemoteCommand, remote: Remote | None) -> None:
    # What is wrong with either end is told where its output is read or written.
    with contextlib.suppress(ConnectionError, BridgeError):
        while content := await streams.read_stdin():
            if remote is not None:
                await remote.write(content)
        if remote is not None:
            await remote.close_input()


async def _sizes(streams: RemoteCommand, remote: Remote) -> None:
    with contextlib.suppress(ConnectionError):
        while (size := await streams.read_resize()) is not None:
            await remote.resize(_Size(*size))
