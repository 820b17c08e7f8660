"""Who is connected, and what an adapter asks of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from bridge.adapter import Channel, Usage
from bridge.errors import BridgeError, NotFound, Unavailable
from bridge.helper import payload
from bridge.helper.keys import SERVER_NAME, Authority, pod_of
from bridge.helper.payload import Tree
from bridge.helper.record import Record
from bridge.helper.tunnel.http2 import Http2
from bridge.helper.tunnel.link import Link
from bridge.tls import show
from bridge.workload import Identity, Key, Running

_log = logging.getLogger(__name__)

HANDSHAKE = 10.0
"""Seconds for a handshake, and then for a helper to say who it is."""
HANDSHAKES, OF_ONE_ADDRESS = 256, 16
"""Handshakes at once, and those with one address: nobody alone keeps the others out. Whoever comes
then tries again, after a wait of its own."""
CONNECTIONS = 4096
"""Helpers at once, far more than one provider has pods for."""
_POD = 64
"""Connections of one pod at once."""
_OWN = timedelta(days=30)
"""How long the provider's certificate is good; a new one is made when half of that is over."""
_SAY = 60.0
"""Seconds between lines of log about those who were turned away."""
_MANY = 100
"""Of those who were turned away in that time, from which on it is a warning."""
_EVENTS = 65536
"""Events that a reader may be behind; then the oldest are gone."""
_STATS = 5.0
"""Seconds that a helper may take to tell what its container uses."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A helper is there: `run` of a container, or `watch` with no container."""

    key: Key
    container: str


@dataclass(frozen=True, slots=True)
class Lost:
    """It is there no more. Its container may well run on."""

    key: Key
    container: str


@dataclass(frozen=True, slots=True)
class Reported:
    """How a pod's containers are now, as its helper says."""

    key: Key
    record: Record


Event = Connected | Lost | Reported


@dataclass(frozen=True, slots=True)
class Pod:
    """What is known of a pod that has helpers here."""

    containers: frozenset[str]
    """Whose `run` is connected."""
    watched: bool
    """Its `watch` is."""
    record: Record | None
    """What was reported last; None: nothing yet."""


class NotConnected(Unavailable):
    """No helper that could do it is connected now."""


class _Member:
    """A pod's connections, by container; "" is its `watch`."""

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self.record: Record | None = None


class Tunnels:
    """The listener for helpers, and all that are connected."""

    def __init__(self, secret: bytes) -> None:
        self._authority = Authority(secret)
        self._pods: dict[Key, _Member] = {}
        self._server: asyncio.Server | None = None
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._renew_at = 0.0
        self._tasks: dict[asyncio.Task[None], asyncio.Transport] = {}
        self._closed = False
        self._shaking: Counter[str] = Counter()
        """Those that have not said who they are yet, by their addresses."""
        self._turned_away = 0
        self._said_at = -_SAY
        self._readers: set[_Events] = set()

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listens; port 0 is any. Where it does. OSError."""
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_verify_locations(cadata=self._authority.certificate.decode())
        self._context.set_alpn_protocols(["h2"])
        self._context.num_tickets = 0
        self._renew()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Door(self._come), host, port)
        where = self._server.sockets[0].getsockname()
        return str(where[0]), int(where[1])

    async def close(self) -> None:
        """Lets all go; the helpers try to come back."""
        # Who has been accepted by then may come a moment later.
        self._closed = True
        if self._server is not None:
            self._server.close()
        tasks = dict(self._tasks)
        for one, transport in tasks.items():
            one.cancel()
            # One that has not begun has nothing to clean up by itself.
            transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        for reader in self._readers:
            reader.end()

    def settings(self, identity: Identity, address: str, lifetime: timedelta) -> payload.Tunnel:
        """What a pod's payloads have, to reach this provider at `address`. ValueError."""
        pair = self._authority.client(identity.key, datetime.now(UTC), lifetime)
        return payload.Tunnel(
            address,
            SERVER_NAME,
            self._authority.certificate.decode(),
            pair.certificate.decode(),
            pair.key.decode(),
        )

    def pod(self, key: Key) -> Pod | None:
        """What is connected of a pod; None: nothing."""
        if (member := self._pods.get(key)) is None:
            return None
        names = frozenset(name for name in member.links if name)
        return Pod(names, "" in member.links, member.record)

    async def events(self) -> AsyncGenerator[Event, None]:
        """What is now, then what changes; of several changes of one thing the newest. Ends when the
        tunnels are closed."""
        reader = _Events()
        self._readers.add(reader)
        for key, member in self._pods.items():
            for name in member.links:
                reader.add(Connected(key, name))
            if member.record is not None:
                reader.add(Reported(key, member.record))
        try:
            while (event := await reader.next()) is not None:
                yield event
        finally:
            self._readers.discard(reader)

    async def arrival(self, identity: Identity, container: str, seconds: float) -> bool:
        """Returns when that container's helper is connected ("": any container's); False where it
        does not come within so many seconds."""
        reader = _Events()
        self._readers.add(reader)
        try:
            async with asyncio.timeout(seconds):
                while not self._is_there(identity.key, container):
                    if await reader.next() is None:
                        return False
        except TimeoutError:
            return False
        finally:
            self._readers.discard(reader)
        return True

    def _is_there(self, key: Key, container: str) -> bool:
        pod = self.pod(key)
        if pod is None:
            return False
        return container in pod.containers if container else bool(pod.containers)

    async def exec(
        self, identity: Identity, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> Channel:
        """Starts a command. NotFound, Invalid, NotConnected, Unavailable."""
        return await self._run(identity, container).exec(command, stdin=stdin, tty=tty)

    async def attach(self, identity: Identity, container: str, *, stdin: bool) -> Channel:
        """Joins what the container's process writes from now on. NotFound, Unavailable."""
        return await self._run(identity, container).attach(stdin=stdin)

    async def dial(self, identity: Identity, port: int, *, inside: bool) -> Channel:
        """Connects to a port of the pod. NotFound, Unavailable."""
        refused: BridgeError = NotConnected("no helper of the pod is connected")
        for link in self._runs(identity.key):
            try:
                return await link.dial(port, inside=inside)
            except NotFound as error:
                # One container of it has ended; the others share the pod's address.
                refused = error
        raise refused

    async def stats(self, identities: Sequence[Identity]) -> Mapping[str, Sequence[Usage]]:
        """By pod UID; what is not known is left out."""
        asked = [(one.uid, link) for one in identities for link in self._runs(one.key)]
        found = await asyncio.gather(*(_usage(link) for _, link in asked))
        made: dict[str, list[Usage]] = {}
        for (uid, _), usage in zip(asked, found, strict=True):
            if usage is not None:
                made.setdefault(uid, []).append(usage)
        return made

    async def update_files(
        self, identity: Identity, trees: Sequence[Tree], container: str = ""
    ) -> None:
        """Replaces volumes, as they are mounted where that container's helper runs ("": `watch`).
        Invalid where one cannot be written; NotFound, Unavailable."""
        await self._run(identity, container).update_files(trees)

    async def stop(self, identity: Identity, grace: float) -> bool:
        """Begins the end of a pod: stop signal, `grace` seconds, kill. False where no helper of it
        has taken the order."""
        member = self._pods.get(identity.key)
        if member is None:
            return False
        watch = member.links.get("")
        links = [watch] if watch is not None else self._runs(identity.key)
        done = await asyncio.gather(*(one.stop(grace) for one in links), return_exceptions=True)
        for one in done:
            if isinstance(one, BaseException) and not isinstance(one, BridgeError):
                raise one
        return any(one is None for one in done)

    def _runs(self, key: Key) -> Sequence[Link]:
        member = self._pods.get(key)
        return [] if member is None else [link for name, link in member.links.items() if name]

    def _run(self, identity: Identity, container: str) -> Link:
        """The helper of a container. NotFound where its pod has reported that it does not run."""
        member = self._pods.get(identity.key)
        if member is not None and (link := member.links.get(container)) is not None:
            return link
        if member is not None and member.record is not None and container:
            states = {one.name: one.state for one in member.record.containers}
            if not isinstance(states.get(container), Running):
                raise NotFound(f"the container {container} does not run")
        raise NotConnected("its helper is not connected")

    def _come(self, transport: asyncio.Transport) -> None:
        """Somebody has connected."""
        if self._closed:
            transport.abort()
            return
        address = str((transport.get_extra_info("peername") or ("",))[0])
        if (
            self._shaking.total() >= HANDSHAKES
            or self._shaking[address] >= OF_ONE_ADDRESS
            or len(self._tasks) >= CONNECTIONS
        ):
            self._turn_away()
            transport.abort()
            return
        self._shaking[address] += 1
        task = asyncio.create_task(self._serve(transport, address), name="tunnel")
        self._tasks[task] = transport
        task.add_done_callback(self._tasks.pop)

    async def _serve(self, transport: asyncio.Transport, address: str) -> None:
        """One connection, from its first byte to its end."""
        http = Http2()
        try:
            try:
                link = await self._greet(transport, http)
            finally:
                self._shaking[address] -= 1
                if not self._shaking[address]:
                    del self._shaking[address]
            with contextlib.suppress(Unavailable):
                await self._keep(link)
        except (OSError, ValueError, BridgeError):
            # Whoever it is, it gets no answer, and no line of log of its own.
            self._turn_away()
        finally:
            http.abort()
            transport.abort()

    async def _greet(self, raw: asyncio.Transport, http: Http2) -> Link:
        """The handshake, who is there, and what it is. OSError, ValueError, Unavailable."""
        self._renew()
        async with asyncio.timeout(2 * HANDSHAKE):
            transport = await asyncio.get_running_loop().start_tls(
                raw, http, self._context, server_side=True, ssl_handshake_timeout=HANDSHAKE
            )
            if transport is None:
                raise ConnectionError("it went")
            shown = cast(ssl.SSLObject, transport.get_extra_info("ssl_object"))
            if shown.selected_alpn_protocol() != "h2":
                raise ValueError("it does not speak HTTP/2")
            link = Link(http, pod_of(shown.getpeercert(binary_form=True) or b""))
            http.connection_made(transport)
            await link.introduce()
        return link

    async def _keep(self, link: Link) -> None:
        """While it is connected. A helper that comes again takes its old connection's place."""
        name = link.who.container
        member = self._pods.setdefault(link.pod, _Member())
        if name not in member.links and len(member.links) >= _POD:
            raise Unavailable("the pod has too many connections")
        if (old := member.links.get(name)) is not None:
            old.http.abort()
        member.links[name] = link
        self._tell(Connected(link.pod, name))
        try:
            leaving = link.http.request("GET", "/end")
            if link.who.states:
                async for record in link.states():
                    member.record = record
                    self._tell(Reported(link.pod, record))
            await leaving.read()
        finally:
            if member.links.get(name) is link:
                del member.links[name]
                self._tell(Lost(link.pod, name))
            if not member.links and self._pods.get(link.pod) is member:
                del self._pods[link.pod]

    def _tell(self, event: Event) -> None:
        for one in self._readers:
            one.add(event)

    def _turn_away(self) -> None:
        self._turned_away += 1
        if time.monotonic() - self._said_at > _SAY:
            # A few are helpers whose container ended just then.
            level = logging.WARNING if self._turned_away >= _MANY else logging.DEBUG
            _log.log(level, "%d connections for tunnels came to nothing", self._turned_away)
            self._said_at, self._turned_away = time.monotonic(), 0

    def _renew(self) -> None:
        """A new certificate, where the old one has lived half of its life."""
        now = datetime.now(UTC)
        if now.timestamp() >= self._renew_at:
            pair = self._authority.server(now, _OWN)
            show(self._context, pair.certificate, pair.key)
            self._renew_at = (now + _OWN / 2).timestamp()


async def _usage(link: Link) -> Usage | None:
    with contextlib.suppress(BridgeError, TimeoutError):
        async with asyncio.timeout(_STATS):
            cpu, memory = await link.usage()
            return Usage(link.who.container, time.time(), cpu, memory)
    return None


class _Door(asyncio.Protocol):
    """A connection before its handshake: nothing is read of it until there is room for one."""

    def __init__(self, come: Callable[[asyncio.Transport], None]) -> None:
        self._come = come

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        opened = cast(asyncio.Transport, transport)
        opened.pause_reading()
        self._come(opened)


class _Events:
    """What one reader has not heard yet, each thing once."""

    def __init__(self) -> None:
        self._waiting: dict[object, Event] = {}
        self._news = asyncio.Event()
        self._over = False

    def add(self, event: Event) -> None:
        about = (event.key, None if isinstance(event, Reported) else event.container)
        # What is new comes last, as it came.
        self._waiting.pop(about, None)
        self._waiting[about] = event
        if len(self._waiting) > _EVENTS:
            del self._waiting[next(iter(self._waiting))]
        self._news.set()

    def end(self) -> None:
        self._over = True
        self._news.set()

    async def next(self) -> Event | None:
        while not self._waiting:
            if self._over:
                return None
            self._news.clear()
            await self._news.wait()
        return self._waiting.pop(next(iter(self._waiting)))
