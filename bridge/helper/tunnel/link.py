"""One helper that is connected: what can be asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bridge.errors import Invalid, Unavailable
from bridge.helper.payload import Tree, tree_json
from bridge.helper.record import Record, parse
from bridge.helper.tunnel import messages
from bridge.helper.tunnel.channel import SessionChannel, joined
from bridge.helper.tunnel.http2 import Http2
from bridge.workload import Key

ANSWER = 30.0
"""Seconds that an answer may take: a helper on a starved core is slow, and a dead one is noticed
by then."""
_FILES = 120.0
"""Seconds that writing a pod's files may take, over a slow line."""


class Link:
    """A connection whose peer has shown a certificate for `pod`. Errors: of `bridge.errors`."""

    def __init__(self, http: Http2, pod: Key) -> None:
        self.http = http
        self.pod = pod
        self.who = messages.Introduction("", "", False)

    async def introduce(self) -> None:
        """Asks who it is. Unavailable."""
        self.who = messages.introduction(await self._call("GET", "/introduction"))

    async def exec(self, command: Sequence[str], *, stdin: bool, tty: bool) -> SessionChannel:
        """Starts a command. NotFound, Invalid, Unavailable."""
        asked: dict[str, object] = {"command": list(command), "stdin": stdin, "tty": tty}
        async with _limited(ANSWER):
            return await joined(self.http, "/exec", asked)

    async def attach(self, *, stdin: bool) -> SessionChannel:
        """Joins the container's process. NotFound, Unavailable."""
        async with _limited(ANSWER):
            return await joined(self.http, "/attach", {"stdin": stdin})

    async def dial(self, port: int, *, inside: bool) -> SessionChannel:
        """Connects to a port. NotFound, Unavailable."""
        asked: dict[str, object] = {"port": port, "inside": inside}
        async with _limited(ANSWER):
            return await joined(self.http, "/dial", asked, connection=True)

    async def usage(self) -> tuple[int | None, int | None]:
        """(cpu nanoseconds, memory bytes). NotFound, Unavailable."""
        return messages.usage(await self._call("GET", "/usage"))

    async def stop(self, grace: float) -> None:
        """Begins the end of its container, or of the whole pod. Unavailable."""
        await self._call("POST", "/stop", {"grace": grace})

    async def update_files(self, trees: Sequence[Tree]) -> None:
        """Replaces them, each at once. Invalid where one cannot be written; Unavailable."""
        await self._call("PUT", "/files", {"trees": [tree_json(one) for one in trees]}, _FILES)

    async def states(self) -> AsyncIterator[Record]:
        """What it tells of its pod, at once and as that changes, until the pod is over.

        Unavailable where the tunnel breaks, or it says what makes no sense.
        """
        stream = self.http.request("GET", "/states")
        kept = bytearray()
        try:
            while piece := await stream.read():
                kept += piece
                *lines, rest = kept.split(b"\n")
                kept = bytearray(rest)
                if len(kept) > messages.LONGEST_LINE:
                    raise Unavailable("the helper's states are too long")
                for line in lines:
                    yield _record(bytes(line), self.pod)
        finally:
            stream.abandon()

    async def _call(
        self, method: str, path: str, asked: dict[str, object] | None = None, limit: float = ANSWER
    ) -> bytes:
        async with _limited(limit):
            status, text = await self.http.call(method, path, asked)
        if status != 200:
            raise messages.refusal(status, text)
        return text


def _record(line: bytes, pod: Key) -> Record:
    try:
        record = parse(line, pod)
    except Invalid as error:
        raise Unavailable(error.message) from None
    if record is None:
        raise Unavailable("the helper tells the states of another pod")
    return record


@asynccontextmanager
async def _limited(seconds: float) -> AsyncIterator[None]:
    """`asyncio.timeout`, as Unavailable."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Unavailable("the helper does not answer") from None
