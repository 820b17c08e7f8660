"""What carries exec, attach and port-forward between the API server and this node.

Two protocols, SPDY/3.1 and WebSocket, with one face: whoever answers the request sees a
`RemoteCommand` or a `Forwarding`, and never which of them carries it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from aiohttp import web

FRAME = 32 * 1024
"""Bytes that one read gives, and one frame holds, at most."""


class Malformed(Exception):
    """What the other end sent breaks its protocol, or is more than is allowed. The connection must
    be closed: where the next frame begins is lost."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The streams that a request for exec or attach asks for (its query parameters)."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False


class RemoteCommand(Protocol):
    """This node's end of an exec or attach. Every call but `gone` raises ConnectionError once the
    other end has gone."""

    response: web.StreamResponse
    """What the request's handler must return in the end, finished or not: aiohttp then closes what
    is still open."""

    async def read_stdin(self) -> bytes:
        """The next bytes for stdin, at most 32 KiB; empty at its end."""

    async def read_resize(self) -> tuple[int, int] | None:
        """The next size of the terminal (width, height in characters); None: no more will come."""

    async def write(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        """Sends output. Waits while the other end takes none; what waits is bounded."""

    async def finish(self, status: dict[str, Any]) -> None:
        """Sends how it ended (a v1.Status) behind the last byte, and closes the connection."""

    async def gone(self) -> None:
        """Returns once the other end has closed the connection."""


class Forwarded(Protocol):
    """One connection of a port-forward."""

    port: int
    """The port inside of the pod: 1 to 65535."""

    async def read(self) -> bytes:
        """The next bytes toward the port, at most 32 KiB; empty at their end."""

    async def write(self, data: bytes) -> None:
        """Sends bytes from the port. Waits while the other end takes none."""

    async def finish(self, error: str = "") -> None:
        """Ends it: in order, or with why it could not go on."""


class Forwarding(Protocol):
    """This node's end of a port-forward: connections as the other end opens them."""

    response: web.StreamResponse
    """As `RemoteCommand.response`."""

    def connections(self) -> AsyncIterator[Forwarded]:
        """Each new connection; ends once the other end has gone."""

    async def close(self) -> None:
        """Ends everything."""
