"""Containers' logs in CloudWatch Logs: each line once, in order, to the last.

The awslogs driver sends lines, with a time in milliseconds, and no mark of their stream: which was
stdout is not known, nor whether the last line had an end. It leaves out empty lines.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from adapters.fargate.clients import Clients
from adapters.fargate.names import Json
from bridge.adapter import LogOptions
from bridge.errors import NotFound

PIECE = 32 * 1024
"""Bytes that are given at a time."""
_CUT = 256 * 1024 - 26
"""Bytes of an event, at most: of longer lines the driver makes several (CloudWatch counts 26 bytes
besides)."""
_AGAIN = 1.0
"""Seconds between looks at a log that is followed."""
_PAGE = 10_000
"""Events that one call gives, at most."""

Event = Mapping[str, Any]


class Logs:
    """One log group."""

    def __init__(self, clients: Clients, group: str) -> None:
        self._clients = clients
        self._group = group

    async def tail(self, stream: str, size: int) -> bytes:
        """The end of a stream, at least `size` bytes where there are as many; empty where there is
        no stream yet."""
        kept = b""
        try:
            async with aclosing(self._backward(stream)) as pages:
                async for page in pages:
                    kept = b"".join(_line(event) for event in page) + kept
                    if len(kept) >= size:
                        break
        except NotFound:
            return b""
        return kept[-size:]

    async def read(
        self, stream: str, options: LogOptions, over: Callable[[], Awaitable[float | None]]
    ) -> AsyncGenerator[bytes, None]:
        """A stream, as the options say. `over`: for how many seconds more what was written by now
        may come; None: something may still be written, for which only who follows waits."""
        left = options.limit_bytes
        async with aclosing(self._events(stream, options, over)) as events:
            joins = False
            async for event in events:
                line = _shown(event, options, joins=joins)
                joins = _is_cut(event)
                line = line if left is None else line[:left]
                for at in range(0, len(line), PIECE):
                    yield line[at : at + PIECE]
                if left is not None:
                    left -= len(line)
                    if left <= 0:
                        return

    async def _events(
        self, stream: str, options: LogOptions, over: Callable[[], Awaitable[float | None]]
    ) -> AsyncGenerator[Event, None]:
        token = ""
        if options.tail_lines is not None:
            if not options.follow:
                await asyncio.sleep(max(0.0, await over() or 0.0))
            last, token = await self._last(stream, options.tail_lines, options.since)
            for event in last:
                yield event
            if not options.follow:
                return
        async with aclosing(self._forward(stream, token, options, over)) as pages:
            async for page in pages:
                for event in page:
                    yield event

    async def _forward(
        self,
        stream: str,
        token: str,
        options: LogOptions,
        over: Callable[[], Awaitable[float | None]],
    ) -> AsyncGenerator[list[Event], None]:
        """Pages from there on. The end is a token that does not change; pages may be empty."""
        given: Json = {"startFromHead": True}
        if options.since is not None:
            given["startTime"] = int(options.since * 1000)
        while True:
            # Asked before the read: what was written by then is read.
            quiet = await over()
            if quiet is None and not options.follow:
                quiet = 0.0
            more = {"nextToken": token} if token else {}
            try:
                answer = await self._page(stream, given | more)
            except NotFound:
                # It is made with the first line.
                if quiet is not None and quiet <= 0:
                    return
                await asyncio.sleep(_AGAIN if quiet is None else min(quiet, _AGAIN))
                continue
            if page := _since(answer["events"], options.since):
                yield page
            is_end = answer["nextForwardToken"] == token
            token = answer["nextForwardToken"]
            if is_end and quiet is not None:
                if quiet <= 0:
                    return
                await asyncio.sleep(min(quiet, _AGAIN))
            elif is_end:
                await asyncio.sleep(_AGAIN)

    async def _last(self, stream: str, count: int, since: float | None) -> tuple[list[Event], str]:
        """The last lines, and where a reader goes on behind them."""
        kept: list[Event] = []
        told: list[str] = []
        token, lines = "", 0
        async with aclosing(self._backward(stream, since, told)) as pages:
            async for page in pages:
                token = token or told[0]
                kept = [*_since(page, since), *kept]
                lines = sum(not _is_cut(event) for event in kept)
                if lines > count:
                    break
        # A line that was cut is one.
        while kept and lines > count:
            lines -= not _is_cut(kept.pop(0))
        if count == 0:
            kept = []
        return kept, token

    async def _backward(
        self, stream: str, since: float | None = None, told: list[str] | None = None
    ) -> AsyncGenerator[list[Event], None]:
        """Pages from the end. `told`: gets the token behind the end."""
        given: Json = {"startFromHead": False}
        if since is not None:
            given["startTime"] = int(since * 1000)
        token = ""
        while True:
            answer = await self._page(stream, given | ({"nextToken": token} if token else {}))
            if told is not None and not told:
                told.append(answer["nextForwardToken"])
            yield answer["events"]
            if answer["nextBackwardToken"] == token:
                return
            token = answer["nextBackwardToken"]

    async def _page(self, stream: str, given: Json) -> Json:
        return await self._clients.call(
            "logs",
            "get_log_events",
            logGroupName=self._group,
            logStreamName=stream,
            limit=_PAGE,
            **given,
        )


def _since(events: list[Event], since: float | None) -> list[Event]:
    if since is None:
        return events
    return [one for one in events if one["timestamp"] >= int(since * 1000)]


def _is_cut(event: Event) -> bool:
    """Whether the line goes on in the next event."""
    return len(str(event["message"]).encode()) >= _CUT


def _line(event: Event) -> bytes:
    return str(event["message"]).encode() + (b"" if _is_cut(event) else b"\n")


def _shown(event: Event, options: LogOptions, *, joins: bool) -> bytes:
    line = _line(event)
    if not options.timestamps or joins:
        return line
    return f"{_stamp(int(event['timestamp']))} ".encode() + line


def _stamp(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{rest:03d}000000Z"
