"""Connections to the ports of a pod.

To the pod's own localhost there is one way that needs nothing inside of the pod: a socket that is
made in the pod's network namespace belongs to it for good, whoever uses it. That takes root on the
engine's own host; elsewhere the pod's address has to do.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading

from adapters.engine.duplex import Duplex, Socket
from bridge.adapter import Size
from bridge.errors import Unavailable

_PIECE = 32 * 1024
"""Bytes of the longest piece that is given out."""
_CONNECT = 10.0
"""Seconds until a connection counts as not answered."""
_NEW_NET = 0x40000000
"""CLONE_NEWNET."""


class Connection:
    """One TCP connection as a Channel."""

    def __init__(self, connection: Duplex) -> None:
        self._connection = connection
        self._over = asyncio.Event()

    async def read(self) -> tuple[str, bytes]:
        """The next bytes from the other side."""
        try:
            data = await self._connection.read(_PIECE)
        except OSError as error:
            self._over.set()
            raise Unavailable(f"the connection broke: {_words(error)}") from None
        if not data:
            self._over.set()
            return "", b""
        return "stdout", data

    async def write(self, data: bytes) -> None:
        """Sends bytes; returns when the kernel has taken them."""
        try:
            await self._connection.write(data)
        except OSError as error:
            raise Unavailable(f"the connection broke: {_words(error)}") from None

    async def close_input(self) -> None:
        """Closes our half."""
        self._connection.close_output()

    async def resize(self, size: Size) -> None:
        """A connection has no terminal."""

    async def wait(self) -> int:
        """0, once the other side has closed."""
        await self._over.wait()
        return 0

    async def close(self) -> None:
        """Closes both halves."""
        self._over.set()
        await self._connection.close()


async def dial(*, pid: int | None, pod_ip: str, port: int, inside: bool) -> Connection:
    """One TCP connection to a pod.

    `inside`: to the pod's localhost, IPv4 first, where `pid` (a process of the pod on this very
    host; None: there is none) and our rights allow that; otherwise to `pod_ip`. Unavailable:
    nothing answers there.
    """
    tried: list[str] = []
    if inside and pid is not None:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            try:
                made = await _socket_of(pid, family)
            except OSError as error:
                tried.append(f"localhost of the pod: {_words(error)}")
                break
            try:
                return await _connect(made, address, port)
            except OSError as error:
                tried.append(f"localhost of the pod ({address}): {_words(error)}")
        else:
            raise Unavailable(f"port {port}: {'; '.join(tried)}")
    if not pod_ip:
        raise Unavailable(f"port {port}: {'; '.join([*tried, 'the pod has no address'])}")
    family = socket.AF_INET6 if ":" in pod_ip else socket.AF_INET
    try:
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        return await _connect(made, pod_ip, port)
    except OSError as error:
        raise Unavailable(
            f"port {port}: {'; '.join([*tried, f'{pod_ip}: {_words(error)}'])}"
        ) from None


async def _connect(made: socket.socket, address: str, port: int) -> Connection:
    try:
        async with asyncio.timeout(_CONNECT):
            await asyncio.get_running_loop().sock_connect(made, (address, port))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except TimeoutError:
        made.close()
        raise OSError(f"no answer within {_CONNECT:.0f} s") from None
    except BaseException:
        made.close()
        raise
    return Connection(Socket(made))


async def _socket_of(pid: int, family: int) -> socket.socket:
    """A socket in that process's network namespace. OSError: it is gone, or we may not."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[socket.socket] = loop.create_future()

    def hand_over(made: socket.socket | None, error: OSError | None) -> None:
        if result.done():
            if made is not None:
                made.close()
        elif made is not None:
            result.set_result(made)
        else:
            result.set_exception(error or OSError("no socket"))

    def work() -> None:
        try:
            outcome = (_make(pid, family), None)
        except OSError as error:
            loop.call_soon_threadsafe(hand_over, None, error)
            return
        loop.call_soon_threadsafe(hand_over, *outcome)

    # A thread of its own that ends: one that had entered the pod must never do other work.
    threading.Thread(target=work, name="podbridge-enter", daemon=True).start()
    return await result


def _make(pid: int, family: int) -> socket.socket:
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(namespace, _NEW_NET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(namespace)
    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


def _words(error: BaseException) -> str:
    # asyncio writes the address into the message once more.
    code = getattr(error, "errno", None)
    return os.strerror(code).lower() if code else str(error)
