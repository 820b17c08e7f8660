"""A place for `process` adapters, and looks at what they leave on the host."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree

from contract import Bench, container, workload

from adapters.process import Adapter, Options
from bridge.workload import Container, Identity, Workload

ECHO = """
import socket, sys, threading

def answer(peer):
    while data := peer.recv(65536):
        peer.sendall(data)
    peer.close()

server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()
"""
"""Not every host has a nc that can do this."""


class ProcessBench(Bench):
    """Adapters under one root. Closing it ends what they run, and makes sure of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made: list[Adapter] = []

    async def adapter(self) -> Adapter:
        made = Adapter("process", Options(root=self.root))
        self._made.append(made)
        await made.open()
        return made

    async def vanish(self, adapter: object, who: Identity) -> None:
        # Moved first: what still writes there must not stand in the way.
        away = self.folder(who).rename(self.root.parent / f"vanished-{who.uid}")
        rmtree(away, ignore_errors=True)

    def endless(self) -> Workload:
        return workload(container("sleep", "1000"))

    def brief(self, code: int = 0) -> Workload:
        return workload(container("sh", "-c", f"exit {code}"))

    def port(self) -> int:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            number: int = one.getsockname()[1]
        return number

    def echo(self, port: int) -> Container:
        return container(sys.executable, "-c", ECHO, str(port))

    def folder(self, who: Identity) -> Path:
        """Where that pod is."""
        return self.root / who.cluster / f"{who.uid}.{who.attempt}"

    def zygote(self, adapter: Adapter) -> int:
        """The process that starts this adapter's keepers."""
        marker = f"/proc/{os.getpid()}/task"
        children = [
            int(pid)
            for thread in Path(marker).iterdir()
            for pid in (thread / "children").read_text().split()
        ]
        found = [one for one in children if b"keeper.zygote" in _command(one)]
        return found[-1]

    async def leftovers(self, who: Identity) -> Sequence[str]:
        files = [str(path) for path in self.root.glob(f"*/*{who.uid}*")]
        return files + [str(pid) for pid in processes_of(self.root, who)]

    async def close(self) -> None:
        """Ends everything."""
        for one in await self._made[0].list() if self._made else ():
            await self._made[0].delete(one.identity)
        for adapter in self._made:
            await adapter.close()
        deadline = time.monotonic() + 20
        while left := processes_below(self.root):
            assert time.monotonic() < deadline, left
            await asyncio.sleep(0.01)
        assert str(self.root) not in text("/proc/mounts")
        notify = self.root / "notify"
        assert not notify.exists() or not list(notify.iterdir())


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _uses(pid: int, place: str) -> bool:
    """Whether a process holds open, or sees mounted, something below that place."""
    try:
        opened = [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir()]
        mounted = Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return False
    return any(one.startswith(place) for one in opened) or place in mounted


def processes_below(root: Path) -> list[int]:
    """The processes, other than this one, that have to do with pods below that root."""
    place = f"{root}/"
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if pid != os.getpid() and _uses(pid, place)]


def processes_of(root: Path, who: Identity) -> list[int]:
    """The processes of one pod, its keepers included."""
    place = f"/{who.cluster}/{who.uid}.{who.attempt}/"
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    found = []
    for pid in pids:
        if pid != os.getpid() and _uses(pid, str(root) + place):
            found.append(pid)
    return found


def keeper_of(root: Path, who: Identity, name: str = "main", restart: int = 0) -> int:
    """The keeper of a run."""
    folder = root / who.cluster / f"{who.uid}.{who.attempt}" / "containers" / f"{name}.{restart}"
    return int(json.loads((folder / "started").read_text())["keeper"])


def snapshot(*folders: str) -> dict[str, list[str]]:
    """The names in those directories of the host."""
    return {folder: sorted(os.listdir(folder)) for folder in folders}


# Looks at the host's files, which take no time that a test could use otherwise.


def text(path: str | Path) -> str:
    """A file's content."""
    return Path(path).read_text()


def touch(path: str | Path) -> None:
    """Makes an empty file."""
    Path(path).touch()


def exists(path: str | Path) -> bool:
    """Whether there is something."""
    return Path(path).exists()


def limit_files(pid: int, size: int) -> None:
    """Limits the size of the files that a process may write, and its children after it."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, size))
