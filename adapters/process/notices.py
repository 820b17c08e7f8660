"""Hints that something has changed: a datagram from a keeper for each start and each exit."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from bridge.errors import Unavailable

_numbers = itertools.count()


class Notices:
    """Where keepers tell this provider which pods have changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = f"{os.getpid()}-{next(_numbers)}.sock"
        self._socket: socket.socket | None = None
        self._directory = -1
        self._listeners: set[Listener] = set()

    def open(self) -> None:
        """Listens. Unavailable."""
        try:
            self._directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._sweep()
            receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._socket = receiver
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._directory)
            receiver.bind(self._address(self._name))
        except OSError as error:
            raise Unavailable(f"{self._folder}: {error.strerror}") from error
        asyncio.get_running_loop().add_reader(receiver.fileno(), self._receive)

    def _address(self, name: str) -> str:
        # A socket's path may have 107 bytes; this one is short whatever the root is.
        return f"/proc/self/fd/{self._directory}/{name}"

    def _sweep(self) -> None:
        for name in os.listdir(self._directory):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                try:
                    probe.connect(self._address(name))
                except ConnectionRefusedError:
                    # Its provider was killed.
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=self._directory)
                except OSError:
                    # Gone meanwhile, or no socket of ours.
                    continue

    def _receive(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(BlockingIOError):
            while True:
                pod = self._socket.recv(4096).decode("utf-8", "replace")
                for listener in self._listeners:
                    listener.put(pod)

    @contextlib.contextmanager
    def listen(self, only: str = "") -> Iterator[Listener]:
        """Hears of changes from now on: of all pods, or of one."""
        listener = Listener(only)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """Stops listening; who waits is told that nothing more comes."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
            with contextlib.suppress(OSError):
                os.unlink(self._name, dir_fd=self._directory)
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1
        for listener in self._listeners:
            listener.end()


class Listener:
    """The pods that have changed since they were last taken, each once."""

    def __init__(self, only: str) -> None:
        self._only = only
        self._pods: dict[str, None] = {}
        self._changed = asyncio.Event()
        self._ended = False

    def put(self, pod: str) -> None:
        """That pod has changed."""
        if pod == self._only or not self._only:
            self._pods[pod] = None
            self._changed.set()

    def end(self) -> None:
        """Nothing more will change."""
        self._ended = True
        self._changed.set()

    async def take(self) -> list[str]:
        """Waits for changes: `<cluster>/<uid>.<attempt>` each; empty at the end."""
        await self._changed.wait()
        pods = list(self._pods)
        self._pods.clear()
        if not self._ended:
            self._changed.clear()
        return pods
