"""A pod's volumes: volumes of the engine, which the pause container holds and fills.

Everything goes through the engine's API, so that it works as well where the engine is on another
machine: the pause container has each volume at `/v/<name>`, and what belongs into them is unpacked
there, for all volumes of a pod in one call. Files that Kubernetes fills live in memory, as it
keeps secrets; they last as long as the pause container has them mounted, whoever else comes and
goes. Their revisions are switched by one rename, which the pause image's program does.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Awaitable
from typing import Any

from adapters.engine import contents, holder, hostpaths, names
from adapters.engine.client import Engine
from adapters.engine.mounts import MountPoint, group_of, named
from bridge.workload import EmptyDir, Files, HostPath, Workload

_PAGE = 4096


def pause_mounts(workload: Workload) -> list[MountPoint]:
    """The pause container's mounts: all volumes but those of the host."""
    return [
        named(names.volume(workload.identity, volume.name), f"{holder.PLACE}/{volume.name}")
        for volume in workload.volumes
        if not isinstance(volume, HostPath)
    ]


async def make(engine: Engine, workload: Workload) -> None:
    """Makes the volumes, empty; those that are there stay. Unavailable: a hostPath does not fit."""
    work: list[Awaitable[None]] = []
    for volume in workload.volumes:
        if isinstance(volume, EmptyDir | Files):
            work.append(_make(engine, workload, volume))
        elif isinstance(volume, HostPath) and engine.local:
            work.append(asyncio.to_thread(hostpaths.make, volume))
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if outcome is not None:
            raise outcome


async def _make(engine: Engine, workload: Workload, volume: EmptyDir | Files) -> None:
    body: dict[str, Any] = {
        "Name": names.volume(workload.identity, volume.name),
        "Driver": "local",
        "Labels": names.labels(workload.identity, engine.owner, volume=volume.name),
    }
    if isinstance(volume, Files):
        # Without a limit: containers cannot write there, so it takes what its files do.
        body["DriverOpts"] = _memory(engine, None)
    elif volume.memory:
        body["DriverOpts"] = _memory(engine, _memory_limit(workload, volume))
    await engine.call("POST", "volumes/create", body=body)


def _memory(engine: Engine, limit: int | None) -> dict[str, str]:
    options = ["mode=0777", "nosuid", "nodev"]
    if limit is not None:
        # Podman takes `size` for a quota of its own disk.
        pages = -(-limit // _PAGE)
        options.append(f"nr_blocks={pages}" if engine.podman else f"size={limit}")
    return {"type": "tmpfs", "device": "tmpfs", "o": ",".join(options)}


def _memory_limit(workload: Workload, volume: EmptyDir) -> int | None:
    """The smaller of its own limit and what the pod's containers may use at most
    (calculateEmptyDirMemorySize in pkg/volume/emptydir). None: neither."""
    limits = [one.resources.limits.get("memory", 0) for one in workload.containers]
    whole = sum(limits) if all(limits) else 0
    return min(filter(None, (volume.size_limit, whole)), default=None)


def are_filled(workload: Workload) -> bool:
    """Whether `fill` has anything to do."""
    return any(not isinstance(volume, HostPath) for volume in workload.volumes)


async def fill(engine: Engine, workload: Workload) -> None:
    """Puts everything into the volumes, by one call; none where there are none. The pause
    container must run. To be repeated only as long as no container was started. NotFound."""
    if not are_filled(workload):
        return
    archive = contents.Archive(group_of(workload))
    for volume in workload.volumes:
        if isinstance(volume, Files):
            contents.first(archive, volume, _nested(workload, volume.name))
        elif isinstance(volume, EmptyDir):
            contents.empty(archive, volume)
    await holder.put(engine, workload.identity, archive.done())


def _nested(workload: Workload, volume: str) -> set[str]:
    """Where in this volume other volumes are mounted; it is read-only by then."""
    return {
        posixpath.relpath(inner.path, outer.path)
        for container in workload.containers
        for outer in container.mounts
        if outer.volume == volume and not outer.sub_path
        for inner in container.mounts
        if inner is not outer and inner.path.startswith(outer.path.rstrip("/") + "/")
    }
