"""A session of a helper as `bridge.adapter.Channel`: each of its streams is one of HTTP/2."""

from __future__ import annotations

import asyncio

from bridge.adapter import Size
from bridge.errors import NotFound, Unavailable
from bridge.helper.tunnel import messages
from bridge.helper.tunnel.http2 import PIECE, Http2, Stream, send


class SessionChannel:
    """A command, the container's own process, or a connection to a port."""

    def __init__(
        self,
        http: Http2,
        held: Stream,
        session: messages.Session,
        *,
        connection: bool,
        wants_input: bool,
    ) -> None:
        self._http = http
        self._held = held
        """The request that made it, and tells its end. Letting go of it ends the session."""
        self._path = f"/sessions/{session.name}"
        self._connection = connection
        self._changed = asyncio.Event()
        self._outputs = {
            name: http.request("GET", f"{self._path}/outputs/{name}", changed=self._changed)
            for name in session.outputs
        }
        self._input: Stream | None = None
        if session.has_input and wants_input:
            self._input = http.request("PUT", f"{self._path}/input", streams=True)
        self._resizing = asyncio.Lock()
        self._ended = asyncio.Event()
        self._code: int | None = None
        self._closed = False

    async def read(self) -> tuple[str, bytes]:
        """The next bytes. Unavailable."""
        # A reader that always finds something must not keep all other tasks waiting.
        await asyncio.sleep(0)
        try:
            while not self._ended.is_set():
                self._require_open()
                if found := self._next():
                    return found
                if not self._outputs:
                    self._code = 0 if self._connection else await self._exit()
                    self._ended.set()
                else:
                    self._changed.clear()
                    await self._changed.wait()
        except Unavailable:
            self._ended.set()
            raise
        if self._code is None:
            raise Unavailable("the channel was closed, or broke")
        return "", b""

    def _next(self) -> tuple[str, bytes] | None:
        for name, stream in list(self._outputs.items()):
            # The other one comes first the next time, so that neither waits for ever.
            del self._outputs[name]
            if stream.has_data:
                self._outputs[name] = stream
                return name, stream.take()
            if stream.was_cut and self._held.has_data:
                # The exit comes behind the last byte, even where the streams' ends are lost.
                continue
            if not stream.at_end:
                self._outputs[name] = stream
            elif stream.status != 200:
                raise Unavailable("the helper does not give this output")
        return None

    async def _exit(self) -> int:
        text = b""
        while not text.endswith(b"\n"):
            piece = await self._held.read()
            text += piece
            if not piece or len(text) > PIECE:
                raise Unavailable("the helper does not say how it ended")
        return messages.exit_code(text)

    async def write(self, data: bytes) -> None:
        """Bytes for stdin; dropped where nobody reads them any more. Unavailable."""
        self._require_open()
        if self._input is not None:
            await self._input.write(data)
        self._require_open()

    async def close_input(self) -> None:
        """No more stdin."""
        if self._input is not None:
            self._input.end()

    async def resize(self, size: Size) -> None:
        """The terminal's size has changed; nothing to do where there is none. Unavailable."""
        asked: dict[str, object] = {
            "width": max(0, min(size.width, 65535)),
            "height": max(0, min(size.height, 65535)),
        }
        async with self._resizing:
            status, text = await self._http.call("PUT", f"{self._path}/size", asked)
        error = None if status == 200 else messages.refusal(status, text)
        if error is not None and not isinstance(error, NotFound):
            raise error

    async def wait(self) -> int:
        """The exit code, once `read` has come to the end. Unavailable."""
        await self._ended.wait()
        if self._code is None:
            raise Unavailable("the channel was closed, or broke")
        return self._code

    async def close(self) -> None:
        """Lets go: the helper ends a command that still runs."""
        self._closed = True
        for one in (self._held, self._input, *self._outputs.values()):
            if one is not None:
                one.abandon()
        self._ended.set()
        self._changed.set()

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable("the channel was closed")


async def joined(
    http: Http2,
    path: str,
    asked: dict[str, object],
    *,
    connection: bool = False,
    wants_input: bool = True,
) -> SessionChannel:
    """Has a session begun. NotFound, Invalid, Unavailable."""
    held = http.request("POST", path, asked)
    try:
        await send(held, asked)
        status, text = await held.answered(), b""
        while not text.endswith(b"\n"):
            piece = await held.read()
            text += piece
            if not piece or len(text) > PIECE:
                break
        if status != 200:
            raise messages.refusal(status, text)
        # What has ended at once has said so as well.
        first, _, rest = text.partition(b"\n")
        held.give_back(rest)
        return SessionChannel(
            http, held, messages.session(first), connection=connection, wants_input=wants_input
        )
    except BaseException:
        # Whoever asked may have been cancelled: nobody would close what the helper has begun.
        held.abandon()
        raise
