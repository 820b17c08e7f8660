"""What an adapter can do because its pods have helpers: the same for every cloud."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing

from bridge.adapter import Channel, LogOptions, Usage
from bridge.helper.hosting import Hosting
from bridge.workload import Identity


class Hosted:
    """Logs, Exec, Attach, Dial and Stats of `bridge.adapter`, by the helpers that are hosted."""

    _hosting: Hosting

    async def logs(
        self, identity: Identity, container: str, options: LogOptions
    ) -> AsyncIterator[bytes]:
        """The log of the latest run, or of the one before it. NotFound, Unavailable."""
        async with aclosing(self._hosting.logs(identity, container, options)) as pieces:
            async for piece in pieces:
                yield piece

    async def exec(
        self, identity: Identity, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> Channel:
        """Starts a command. NotFound, Invalid, Unavailable: no helper is connected."""
        return await self._hosting.exec(identity, container, command, stdin=stdin, tty=tty)

    async def attach(self, identity: Identity, container: str, *, stdin: bool) -> Channel:
        """Joins the container's process. NotFound, Unavailable."""
        return await self._hosting.attach(identity, container, stdin=stdin)

    async def dial(self, identity: Identity, port: int, *, inside: bool) -> Channel:
        """One TCP connection to the pod. NotFound, Unavailable."""
        return await self._hosting.dial(identity, port, inside=inside)

    async def stats(self, identities: Sequence[Identity]) -> Mapping[str, Sequence[Usage]]:
        """By pod UID, of the pods whose helpers are connected."""
        return await self._hosting.stats(identities)
