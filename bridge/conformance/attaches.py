"""Attach and port-forward."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import grpc

from bridge.conformance.kit import STDERR, STDOUT, Kit, of
from bridge.conformance.model import Broken, Skipped, expect
from bridge.conformance.pods import Pod
from bridge.conformance.register import check
from bridge.conformance.sessions import FIRST_CREDIT, Session, exit_code
from bridge.conformance.wire import refusal
from bridge.rpc import channel
from bridge.rpc.v1 import stream_pb2 as sp

_SECTION = "Streams"
_NO_HELPER = 97
"""Exit code of a pod whose image has nothing that listens on a port."""


@check(
    "attach.output",
    "joins the streams of a container's own process",
    section=_SECTION,
    rule="Attach joins what the container writes from then on; exit comes when it has ended.",
    needs="attach",
)
async def output(kit: Kit) -> None:
    """Both streams, then the exit."""
    pod = kit.pod("trap 'exit 8' TERM; while :; do echo out; echo err >&2; sleep 0.1; done")
    await kit.create(pod)
    await kit.running(pod)
    call = kit.wire.bytes_stub.Attach(metadata=channel.CONTRACT_METADATA)
    session = Session(kit, call, sp.AttachRequest)
    start = sp.AttachStart(pod=pod.identity, container="main", stdout=True, stderr=True)
    await session.write(start=start)
    try:
        await session.until(
            lambda held: b"out\n" in held.of(STDOUT) and b"err\n" in held.of(STDERR),
            "lines of both streams",
        )
        mixed = b"err" in session.held.of(STDOUT) or b"out" in session.held.of(STDERR)
        expect(not mixed, "each stream's own bytes", "both in one")
        await kit.delete(pod, grace=10)
        held = await session.end()
    finally:
        await session.close()
    expect(exit_code(held) == 8, "exit code 8 when the container has ended", session.words())


class Connection:
    """One forwarded connection, which grants credit for what it reads."""

    def __init__(self, kit: Kit, pod: Pod, port: int) -> None:
        self._call: Any = kit.wire.bytes_stub.PortForward(metadata=channel.CONTRACT_METADATA)
        self._start = sp.PortForwardStart(pod=pod.identity, port=port)
        self._credit = FIRST_CREDIT
        self.got = bytearray()
        self.closed: str | None = None

    async def exchange(self, data: bytes, size: int) -> None:
        """Sends bytes, reads so many, closes, and reads to the end."""
        try:
            await self._call.write(sp.PortForwardRequest(start=self._start))
            for start in range(0, len(data), 32 * 1024):
                piece = data[start : start + 32 * 1024]
                while self._credit < len(piece) and self.closed is None:
                    await self._take()
                self._credit -= len(piece)
                await self._call.write(sp.PortForwardRequest(data=piece))
            while len(self.got) < size and self.closed is None:
                await self._take()
            if self.closed is None:
                await self._call.write(sp.PortForwardRequest(close=True))
            while self.closed is None:
                await self._take()
        except grpc.RpcError as error:
            self.closed = str(refusal(error))
        except asyncio.InvalidStateError:
            self.closed = "the provider ended the stream"
        finally:
            self._call.cancel()

    async def _take(self) -> None:
        message = await self._call.read()
        if not isinstance(message, sp.PortForwardResponse):
            raise Broken("`closed` as the last message", "the end of the stream")
        match message.WhichOneof("message"):
            case "data":
                self.got += message.data
                await self._call.write(sp.PortForwardRequest(credit=len(message.data)))
            case "credit":
                self._credit += message.credit
            case "closed":
                self.closed = message.closed


def _listener(port: int) -> str:
    """A script that says back what comes to a port, by whatever the image has."""
    python = (
        "import socketserver\n"
        "class H(socketserver.BaseRequestHandler):\n"
        "    def handle(self):\n"
        "        while d := self.request.recv(65536): self.request.sendall(d)\n"
        "socketserver.TCPServer.allow_reuse_address = True\n"
        f'socketserver.TCPServer(("127.0.0.1", {port}), H).serve_forever()\n'
    )
    return (
        "nc=nc; command -v nc >/dev/null || nc='busybox nc'\n"
        "if $nc -h 2>&1 | grep -q -- '-e PROG'; then\n"
        f"  echo ready; while :; do $nc -l -p {port} -e cat || sleep 0.2; done\n"
        "elif command -v python3 >/dev/null; then\n"
        f"  echo ready; exec python3 -c '{python}'\n"
        f"fi\nexit {_NO_HELPER}"
    )


@check(
    "port-forward.echo",
    "forwards a connection to a port of the pod, both ways",
    section=_SECTION,
    rule="PortForward is one connection to a port of the pod; `closed` is empty where it was closed"
    " in order.",
    needs="dial",
)
async def echo(kit: Kit) -> None:
    """A megabyte there and back."""
    # Below the range from which systems take ports by themselves.
    port = random.randrange(20_000, 32_000)  # noqa: S311 - not a secret
    pod = kit.pod(_listener(port))
    await kit.create(pod)
    facts = await kit.running(pod)
    sent = bytes(range(256)) * 4096
    while True:
        connection = Connection(kit, pod, port)
        with kit.waiting(f"{len(sent)} bytes back from the pod's port"):
            await connection.exchange(sent, len(sent))
        if connection.got or not connection.closed:
            break
        facts = kit.watch().facts(pod.uid) or facts
        if of(facts).terminated.exit_code == _NO_HELPER:
            raise Skipped("the image has no nc with -e and no python3")
        # It does not listen yet.
        await asyncio.sleep(0.2)
    same = bytes(connection.got) == sent
    expect(same, f"{len(sent)} bytes back", f"{len(connection.got)} bytes; {connection.closed}")
    expect(connection.closed == "", "closed in order", connection.closed)


@check(
    "port-forward.refused",
    "says that nothing listens on a port",
    section=_SECTION,
    rule="Where nothing listens, the connection ends with the reason.",
    needs="dial",
)
async def refused(kit: Kit) -> None:
    """A port of the pod that nobody has."""
    pod = kit.pod("trap 'exit 0' TERM; while :; do sleep 0.1; done")
    await kit.create(pod)
    await kit.running(pod)
    connection = Connection(kit, pod, 1)
    with kit.waiting("the end of a connection to a port where nothing listens"):
        await connection.exchange(b"", 1)
    expect(connection.closed, "a reason", repr(connection.closed))
