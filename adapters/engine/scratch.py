"""A small volume of each pod for what is ours in it: /etc/hosts, messages, failed starts, the end.

The pause container has it; containers get single files of it, as mounts, so that none of them can
put anything else in their place. Where its folder is ours to use it is written and read as it is;
else through the engine's archive calls, which take some 50 ms each on Podman, but work where the
engine is on another machine.

    hosts
    messages/<container>.<restart>      what the container wrote to its terminationMessagePath
    failed/<container>.<restart>        JSON: that this run could not be started, when and why
    released                            empty: its work is over, and the pause container was ended
"""

from __future__ import annotations

import asyncio
import io
import os
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import orjson

from adapters.engine import names
from adapters.engine.client import Engine, part
from bridge.errors import NotFound, Unavailable
from bridge.workload import Exit, Identity, Workload

PLACE = "/podbridge"
"""Where it is mounted in the pause container."""
_END = 1024 * 1024
"""Bytes: more than any file here is, but for a message that nobody meant as one."""
_ARCHIVE = 8 * 1024 * 1024
"""Bytes of the longest archive that is read."""
_CHUNK = 64 * 1024
_ONLY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
LONGEST_MESSAGE = 4096
"""Bytes: the last ones of the file (MaxContainerTerminationMessageLength)."""


def volume(identity: Identity) -> str:
    """The volume's name; no volume of a pod can have an underscore."""
    return names.volume(identity, "_pod")


def tar(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """An archive of (content, mode) by path, with the folders that they need."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        folders = {path.rpartition("/")[0] for path in files} - {""}
        for folder in sorted(folders):
            one = tarfile.TarInfo(folder)
            one.type, one.mode = tarfile.DIRTYPE, 0o755
            made.addfile(one)
        for path, (content, mode) in files.items():
            one = tarfile.TarInfo(path)
            one.size, one.mode = len(content), mode
            made.addfile(one, io.BytesIO(content))
    return buffer.getvalue()


async def bounded(answer: aiohttp.ClientResponse) -> bytes:
    """An archive; empty where it is longer than 8 MiB: a container may have made what is in it as
    long as the disk, or longer."""
    held = bytearray()
    async for chunk in answer.content.iter_chunked(_CHUNK):
        held += chunk
        if len(held) > _ARCHIVE:
            return b""
    return bytes(held)


def hosts(workload: Workload, address: str) -> bytes:
    """/etc/hosts as the kubelet writes it (managedHostsFileContent in kubelet_pods.go)."""
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
    ]
    # The subdomain comes whole, and with setHostnameAsFQDN the hostname has it in it.
    short = workload.hostname.removesuffix(f".{workload.subdomain}")
    own = [short] if short else []
    if own and workload.subdomain:
        own.insert(0, f"{short}.{workload.subdomain}")
    if own and address:
        lines.append("\t".join([address, *own]))
    if workload.host_aliases:
        lines += ["", "# Entries added by HostAliases."]
        lines += ["\t".join([to, *found]) for to, found in workload.host_aliases]
    return "".join(f"{line}\n" for line in lines).encode()


class Scratch:
    """Reads and writes these volumes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._mountpoints: dict[str, str] = {}

    async def make(self, identity: Identity) -> None:
        """Makes the volume; if it is there, nothing more."""
        name = volume(identity)
        labels = names.labels(identity, self._engine.owner)
        made = await self._engine.call(
            "POST", "volumes/create", body={"Name": name, "Labels": labels}
        )
        self._mountpoints[name] = str(made["Mountpoint"])

    async def mountpoint(self, identity: Identity) -> str:
        """Where it is on the engine's host. NotFound."""
        name = volume(identity)
        if name not in self._mountpoints:
            found = await self._engine.call("GET", f"volumes/{part(name)}")
            self._mountpoints[name] = str(found["Mountpoint"])
        return self._mountpoints[name]

    def forget(self, identity: Identity) -> None:
        """It was removed."""
        self._mountpoints.pop(volume(identity), None)

    async def _folder(self, identity: Identity) -> Path | None:
        """The volume as a folder of this machine; None where it is none."""
        if not self._engine.local:
            return None
        folder = Path(await self.mountpoint(identity))
        return folder if os.access(folder, os.R_OK | os.W_OK | os.X_OK) else None

    async def put(
        self, identity: Identity, pause: str, files: Mapping[str, tuple[bytes, int]]
    ) -> None:
        """Writes files of the volume of that pod, which that pause container has. NotFound."""
        if (folder := await self._folder(identity)) is not None:
            try:
                await asyncio.to_thread(_write, folder, files)
            except FileNotFoundError:
                raise NotFound(f"no pod {identity.uid}") from None
            except OSError as error:
                raise Unavailable(f"{error.filename}: {error.strerror}") from error
            return
        path = f"containers/{part(pause)}/archive"
        await self._engine.send("PUT", path, params={"path": PLACE}, data=tar(files))

    async def _get(self, identity: Identity, pause: str, name: str) -> bytes | None:
        try:
            folder = await self._folder(identity)
        except NotFound:
            return None
        if folder is not None:
            return _read(folder / name)
        path = f"containers/{part(pause)}/archive"
        try:
            async with self._engine.stream(
                "GET", path, params={"path": f"{PLACE}/{name}"}
            ) as answer:
                content = await bounded(answer)
        except NotFound:
            return None
        if not content:
            return None
        with tarfile.open(fileobj=io.BytesIO(content)) as found:
            for one in found:
                taken = found.extractfile(one)
                if taken is not None:
                    return taken.read()
        return None

    async def message(self, identity: Identity, pause: str, container: str, restart: int) -> str:
        """What that run left as its message; empty: nothing."""
        found = await self._get(identity, pause, f"messages/{container}.{restart}")
        return (found or b"")[-LONGEST_MESSAGE:].decode(errors="replace")

    async def release(self, identity: Identity, pause: str) -> None:
        """Records that the pod's work is over, before its pause container is ended."""
        await self.put(identity, pause, {"released": (b"", 0o600)})

    async def released(self, identity: Identity, pause: str) -> bool:
        """Whether that was recorded."""
        return await self._get(identity, pause, "released") is not None

    async def fail(
        self, identity: Identity, pause: str, container: str, restart: int, ended: Exit
    ) -> None:
        """Records that a run could not be started."""
        said = {"at": ended.finished_at, "message": ended.message, "code": ended.code}
        await self.put(
            identity, pause, {f"failed/{container}.{restart}": (orjson.dumps(said), 0o600)}
        )

    async def failed(
        self, identity: Identity, pause: str, container: str, restart: int
    ) -> Exit | None:
        """How that run failed to start; None: it was never tried, or is being tried."""
        found = await self._get(identity, pause, f"failed/{container}.{restart}")
        if not found:
            return None
        said = orjson.loads(found)
        return start_error(float(said["at"]), str(said["message"]))


def _write(folder: Path, files: Mapping[str, tuple[bytes, int]]) -> None:
    for path, (content, mode) in files.items():
        place = folder / path
        if place.parent != folder:
            place.parent.mkdir(0o755, exist_ok=True)
        if _read(place) == content:
            # In place, under the eyes of who reads it: not without need.
            continue
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _ONLY, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)


def _read(place: Path) -> bytes | None:
    """The end of that file: a container may have made it as long as the disk."""
    try:
        descriptor = os.open(place, os.O_RDONLY | _ONLY)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            return None
        file.seek(max(0, about.st_size - _END))
        return file.read(_END)


def start_error(at: float, message: str) -> Exit:
    """How a run ends whose command cannot be started, as containerd tells it."""
    return Exit(code=128, finished_at=at, started_at=at, reason="StartError", message=message)
