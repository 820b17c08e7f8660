"""A backend whose containers only pipe: channels held by hand, or ones that pour and swallow bytes.

Run as a program it serves one pod at an address, in a process of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from bridge.adapter import Channel, Size, Usage
from bridge.errors import BridgeError, NotFound
from bridge.provider.backend import Backend
from bridge.provider.facts import identity_to_wire
from bridge.provider.server import Server
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker
from bridge.workload import ContainerState, Identity, Observed, Running
from support.paper import Cloud, PaperAdapter

CLUSTER = str(uuid.UUID(int=7))
POD = Identity(CLUSTER, "n", "default", "pipes", str(uuid.UUID(int=8)))
WIRE = identity_to_wire(POD)
PIECE = 32 * 1024
BLOCK = random.Random(4).randbytes(1024 * 1024)
PIECES = [BLOCK[at : at + PIECE] for at in range(0, len(BLOCK), PIECE)]


def digest(size: int) -> str:
    """Of `size` bytes of the pattern: the block, again and again."""
    hashed = hashlib.sha256()
    for _ in range(size // len(BLOCK)):
        hashed.update(BLOCK)
    hashed.update(BLOCK[: size % len(BLOCK)])
    return hashed.hexdigest()


class Hand:
    """A channel that does what its test says."""

    def __init__(self) -> None:
        self.out: asyncio.Queue[tuple[str, bytes] | BridgeError] = asyncio.Queue()
        self.written: list[bytes] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.sizes: list[Size] = []
        self.reads = 0
        self.input_closed = asyncio.Event()
        self.resized = asyncio.Event()
        self.closed = asyncio.Event()
        self.broken: BridgeError | None = None
        self.code = 0

    def says(self, stream: str, *pieces: bytes) -> None:
        for piece in pieces:
            self.out.put_nowait((stream, piece))

    def ends(self, code: int = 0) -> None:
        self.code = code
        self.out.put_nowait(("", b""))

    async def read(self) -> tuple[str, bytes]:
        item = await self.out.get()
        self.reads += 1
        if isinstance(item, BridgeError):
            raise item
        return item

    async def write(self, data: bytes) -> None:
        await self.takes.wait()
        if self.broken is not None:
            raise self.broken
        self.written.append(data)

    async def close_input(self) -> None:
        self.input_closed.set()

    async def resize(self, size: Size) -> None:
        self.sizes.append(size)
        self.resized.set()

    async def wait(self) -> int:
        return self.code

    async def close(self) -> None:
        self.closed.set()


class Pump(Hand):
    """Pours so many bytes of the pattern, swallows its input, and last says the input's digest."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._left = size
        self._next = 0
        self._hashed = hashlib.sha256()
        self._told = False

    async def read(self) -> tuple[str, bytes]:
        if self._left:
            piece = PIECES[self._next % len(PIECES)][: self._left]
            self._next += 1
            self._left -= len(piece)
            await asyncio.sleep(0)
            return "stdout", piece
        await self.input_closed.wait()
        if self._told:
            return "", b""
        self._told = True
        return "stdout", self._hashed.hexdigest().encode()

    async def write(self, data: bytes) -> None:
        self._hashed.update(data)


class PipesAdapter(PaperAdapter):
    """Has one pod with one container, `c`, whose channels come from `given`, else are pumps."""

    def __init__(self) -> None:
        cloud = Cloud(time.time)
        state = ContainerState("c", Running(time.time()))
        cloud.pods[POD.key] = Observed(POD, containers=(state,), accepted_at=time.time())
        super().__init__(cloud, "pipes")
        self.given: list[Channel | BridgeError] = []
        self.asked: list[tuple[object, ...]] = []
        self.usage: Mapping[str, Sequence[Usage]] = {}

    def _channel(self, size: int) -> Channel:
        if not self.given:
            return Pump(size)
        made = self.given.pop(0)
        if isinstance(made, BridgeError):
            raise made
        return made

    async def exec(
        self, identity: Identity, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> Channel:
        if container != "c":
            raise NotFound(f"container {container} does not run")
        self.asked.append((identity, container, tuple(command), stdin, tty))
        return self._channel(int(command[-1]) if command[-1].isdigit() else 0)

    async def attach(self, identity: Identity, container: str, *, stdin: bool) -> Channel:
        self.asked.append((identity, container, stdin))
        return self._channel(0)

    async def dial(self, identity: Identity, port: int, *, inside: bool) -> Channel:
        self.asked.append((identity, port, inside))
        return self._channel(port * len(BLOCK))

    async def stats(self, identities: Sequence[Identity]) -> Mapping[str, Sequence[Usage]]:
        self.asked.append(tuple(identities))
        if self.given and isinstance(error := self.given.pop(0), BridgeError):
            raise error
        return self.usage


async def _serve(address: str) -> None:
    provider = Provider(Tracker([Backend(PipesAdapter(), {"pods": 1})]))
    server = Server(provider, address)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(provider.run())
        await provider.settled()
        await server.start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await server.wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
