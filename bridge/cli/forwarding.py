"""Local ports whose connections go into a pod: what was typed, listening, and carrying bytes."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bridge.cli.output import plain
from bridge.cli.piping import PIECE
from bridge.errors import BridgeError, Invalid, Violation

if TYPE_CHECKING:
    from bridge.pods import Manifest
    from bridge.rpc.streams import Remote

_ALLOWED = "allowed: [LOCAL:]REMOTE, each 1 to 65535; REMOTE may be a port's name, LOCAL empty"
_NAME = re.compile(r"[a-z0-9-]*[a-z][a-z0-9-]*")
"""A port's name (IANA_SVC_NAME, but for its length and hyphens)."""
_BACKLOG = 128
_BUFFER = 1 << 20
"""Bytes that the kernel may hold of a local connection, so that a piece seldom waits for it."""


# What was typed.


@dataclass(frozen=True, slots=True)
class Port:
    """One forwarded port."""

    local: int
    """0: any that is free."""
    remote: int


def looks_like_port(word: str) -> bool:
    """Whether a word can be nothing but a port: it has a colon, or is a number."""
    return ":" in word or word.isdecimal()


def parse_ports(words: Sequence[str], pod: Manifest | None) -> list[Port]:
    """The ports that `[LOCAL:]REMOTE` words mean for a pod. Invalid, all that is wrong at once.

    Without a pod, before it is looked for, those that are numbers are judged alone.
    """
    ports, wrong = [], []
    for word in words:
        local, _, remote = word.rpartition(":")
        if pod is None and _NAME.fullmatch(remote) and not local.strip("0123456789"):
            continue
        try:
            ports.append(_port(word, _declared(pod) if pod else []))
        except ValueError as error:
            wrong.append(Violation("PORT", str(error)))
    if wrong:
        raise Invalid(violations=wrong)
    return ports


def _port(word: str, known: Sequence[tuple[str, int, str]]) -> Port:
    parts = word.split(":")
    if len(parts) > 2 or not parts[-1]:
        raise ValueError(f'found "{word}"; {_ALLOWED}')
    remote = _number(parts[-1])
    if remote is None:
        numbers = [number for name, number, _ in known if name == parts[-1]]
        if not numbers:
            names = ", ".join(name for name, _, _ in known if name) or "none"
            raise ValueError(f'found "{word}": the pod names no such port; it names: {names}')
        remote = numbers[0]
    protocols = {protocol for _, number, protocol in known if number == remote}
    if protocols and "TCP" not in protocols:
        raise ValueError(
            f'found "{word}": {protocols.pop()} protocol is not supported for {remote}'
        )
    local = _local(parts[0], remote) if len(parts) == 2 else remote
    if local is None or not 0 <= local < 65536 or not 0 < remote < 65536:
        raise ValueError(f'found "{word}"; {_ALLOWED}')
    return Port(local, remote)


def _local(text: str, remote: int) -> int | None:
    return 0 if not text else _number(text)


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _declared(pod: Manifest) -> list[tuple[str, int, str]]:
    """(name, number, protocol) of the ports that a pod's containers declare."""
    spec = pod["spec"]
    return [
        (port.get("name", ""), port["containerPort"], port.get("protocol", "TCP"))
        for one in [*spec["containers"], *(spec.get("initContainers") or ())]
        for port in one.get("ports") or ()
    ]


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. `optional`: one of localhost's two, of which one is enough."""

    ip: str
    optional: bool


def parse_addresses(texts: Sequence[str]) -> list[Address]:
    """`--address`: IP addresses or localhost, with commas or several times. Invalid."""
    found: dict[str, Address] = {}
    for text in [part.strip() for one in texts for part in one.split(",")]:
        if text == "localhost":
            for ip in ("127.0.0.1", "::1"):
                found.setdefault(ip, Address(ip, optional=True))
            continue
        try:
            ip = str(ipaddress.ip_address(text))
        except ValueError:
            words = f'found "{text}"; allowed: IP addresses or localhost, with commas'
            raise Invalid(violations=[Violation("--address", words)]) from None
        found[ip] = Address(ip, optional=False)
    return [found[ip] for ip in sorted(found)]


# Listening.


@dataclass(slots=True)
class Listener:
    """One local port that listens."""

    socket: socket.socket
    local: int
    remote: int

    @property
    def words(self) -> str:
        """What kubectl says of it."""
        host = self.socket.getsockname()[0]
        shown = f"[{host}]" if ":" in host else host
        return f"Forwarding from {shown}:{self.local} -> {self.remote}"


def listen(ports: Sequence[Port], addresses: Sequence[Address]) -> tuple[list[Listener], list[str]]:
    """(listeners, why some ports have none). Invalid where no port has one."""
    listeners: list[Listener] = []
    problems: list[str] = []
    for port in ports:
        made, problem = _listen(port, addresses)
        listeners += made
        if problem:
            problems.append(problem)
    if not listeners:
        raise Invalid("; ".join(problems))
    return listeners, problems


def _listen(port: Port, addresses: Sequence[Address]) -> tuple[list[Listener], str]:
    made: list[Listener] = []
    errors: list[str] = []
    needed = False
    local = port.local
    for address in addresses:
        try:
            listening = _bind(address.ip, local)
        except OSError as error:
            shown = f"[{address.ip}]" if ":" in address.ip else address.ip
            errors.append(f"{shown}:{local or 'any'}: {os.strerror(error.errno or 0).lower()}")
            needed = needed or not address.optional
            continue
        # The second address of a port that was left open gets the number of the first.
        local = listening.getsockname()[1]
        made.append(Listener(listening, local, port.remote))
    if needed or not made:
        for one in made:
            one.socket.close()
        return [], f"unable to listen on port {port.local or local}: {', '.join(errors)}"
    return made, ""


def _bind(ip: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" alone, so that 0.0.0.0 can be listened on beside it.
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)
        made.bind((ip, port))
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    return made


# Carrying.


@dataclass(slots=True)
class Forwarder:
    """Takes connections and gives each a stream of its own."""

    listeners: Sequence[Listener]
    dial: Callable[[int], Awaitable[Remote]]
    """Opens a connection to a port of the pod."""
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Takes connections until cancelled; then all of them end."""
        try:
            async with asyncio.TaskGroup() as group:
                for one in self.listeners:
                    group.create_task(self._accept(one), name=f"port {one.local}")
        finally:
            for listener in self.listeners:
                listener.socket.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener.socket)
            except OSError as error:
                # No descriptor is free, or it was given up before it was taken: the next one.
                _say(f"error accepting connection on port {listener.local}: {error.strerror}")
                await asyncio.sleep(0.1)
                continue
            print(f"Handling connection for {listener.local}", flush=True)
            task = loop.create_task(self._handle(connection, listener), name="connection")
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _handle(self, connection: socket.socket, listener: Listener) -> None:
        with connection:
            try:
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                remote = await self.dial(listener.remote)
                try:
                    await carry(connection, remote)
                finally:
                    await remote.close()
            except* OSError:
                # Whoever had connected here has gone: that is theirs to do.
                pass
            except* BridgeError as errors:
                words = "; ".join(dict.fromkeys(_words(errors)))
                _say(f"an error occurred forwarding {listener.local} -> {listener.remote}: {words}")
                _reset(connection)


async def carry(connection: socket.socket, remote: Remote) -> None:
    """Bytes both ways until both have ended; the end of one way leaves the other one open.

    Raises, as a group, what either end raises.
    """
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        connection.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    async with asyncio.TaskGroup() as group:
        outward = group.create_task(_outward(connection, remote), name="outward")
        await _inward(connection, remote)
        # Nothing reads at the other end any more once it has said why it ended.
        await remote.wait()
        outward.cancel()


async def _outward(connection: socket.socket, remote: Remote) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(connection, PIECE):
        await remote.write(data)
    await remote.close_input()


async def _inward(connection: socket.socket, remote: Remote) -> None:
    loop = asyncio.get_running_loop()
    while (piece := await remote.read())[0]:
        await loop.sock_sendall(connection, piece[1])
    connection.shutdown(socket.SHUT_WR)


def _reset(connection: socket.socket) -> None:
    """Whoever is connected sees an error and not an end in order."""
    linger = (1).to_bytes(4, sys.byteorder) + (0).to_bytes(4, sys.byteorder)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    except OSError:
        # It has gone already.
        return


def _words(errors: BaseExceptionGroup[BaseException]) -> Iterator[str]:
    for one in errors.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _words(one)
        elif isinstance(one, BridgeError):
            yield one.message


def _say(words: str) -> None:
    print(f"error: {plain(words)}", file=sys.stderr, flush=True)
