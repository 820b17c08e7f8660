"""A container's mounts, as the Docker API has them."""

from __future__ import annotations

import asyncio
import hashlib
import posixpath
from typing import Any

from adapters.engine import contents, holder, hostpaths, names, subpaths
from adapters.engine.client import Engine, part
from bridge.errors import Invalid, Unsupported, Violation
from bridge.workload import (
    Container,
    EmptyDir,
    Files,
    HostPath,
    Identity,
    Mount,
    Volume,
    Workload,
)

_SUBPATHS = (1, 45)
"""The Docker API that mounts a part of a volume safely by itself."""
_PROPAGATION = {"HostToContainer": "rslave", "Bidirectional": "rshared"}
_NO_SUB_PATH = (
    "what containers can write to could lead out of the volume: to keep it from that takes Docker "
    "26 (API 1.45), or an engine on this machine and root's rights"
)

MountPoint = dict[str, Any]
"""A `Mount` of the Docker API."""


def named(source: str, target: str, *, read_only: bool = False) -> MountPoint:
    """A mount of one of the engine's volumes."""
    return {
        "Type": "volume",
        "Source": source,
        "Target": target,
        "ReadOnly": read_only,
        # Kubernetes' volumes start empty, whatever the image has at that place.
        "VolumeOptions": {"NoCopy": True},
    }


def problems(engine: Engine, workload: Workload) -> list[Violation]:
    """What of a pod's volumes this engine cannot do; fields as in the manifest."""
    found = []
    for index, volume in enumerate(workload.volumes):
        if isinstance(volume, HostPath) and engine.local and (words := hostpaths.problem(volume)):
            found.append(Violation(f"spec.volumes[{index}].hostPath", words))
    for path, container in workload.paths():
        for index, mount in enumerate(container.mounts):
            if mount.sub_path and not _fits(engine, volume_of(workload, mount)):
                field = f"{path}.volumeMounts[{index}].subPath"
                found.append(Violation(field, _NO_SUB_PATH))
    return found


def _fits(engine: Engine, volume: Volume) -> bool:
    """Whether a part of such a volume can be mounted safely."""
    if isinstance(volume, Files) or (isinstance(volume, EmptyDir) and _native(engine)):
        return True
    return engine.local and subpaths.allowed() and not _rootless(engine)


def _native(engine: Engine) -> bool:
    return not engine.podman and engine.api >= _SUBPATHS


def _rootless(engine: Engine) -> bool:
    """A rootless engine mounts in a namespace of its own, where we see nothing."""
    return any("rootless" in str(one) for one in engine.info.get("SecurityOptions") or ())


def volume_of(workload: Workload, mount: Mount) -> Volume:
    """The volume that is mounted. Invalid: the pod has none of that name."""
    for volume in workload.volumes:
        if volume.name == mount.volume:
            return volume
    raise Invalid(f'a container mounts "{mount.volume}", which is no volume of the pod')


def group_of(workload: Workload) -> int | None:
    """The pod's fsGroup."""
    groups = (one.security.fs_group for one in workload.containers)
    return next((one for one in groups if one is not None), None)


async def mounts(engine: Engine, workload: Workload, container: Container) -> list[MountPoint]:
    """A container's mounts, outer ones first. Asked for at each start: parts of volumes are then
    what they are at that time. The pause container runs.

    Unsupported: a subPath that cannot be made safe here. Invalid: one leads out of its volume.
    Unavailable: it cannot be mounted. NotFound: the pod is gone.
    """
    made = []
    for index, mount in enumerate(container.mounts):
        volume = volume_of(workload, mount)
        if mount.sub_path:
            parts = _Parts(engine, workload, mount)
            made.append(await parts.make(volume, _name(container, index)))
        else:
            made.append(_whole(engine, workload, volume, mount))
    return sorted(made, key=lambda one: (one["Target"].rstrip("/").count("/"), one["Target"]))


async def stand(engine: Engine, workload: Workload, container: Container) -> bool:
    """Whether all that was mounted for a container that was made, and not started, is still
    mounted: it ends with the machine's run, and with the mount namespace of who mounted it."""
    wanted = [
        _name(container, index)
        for index, mount in enumerate(container.mounts)
        if mount.sub_path and _is_held(engine, volume_of(workload, mount))
    ]
    pod = held_of(engine, workload.identity)
    return not wanted or await asyncio.to_thread(subpaths.are_held, pod, wanted)


def held_of(engine: Engine, identity: Identity) -> str:
    """The name of the folder that has a pod's mounts (`subpaths`)."""
    return f"{held_by(engine)}{names.digest(identity)}"


def held_by(engine: Engine) -> str:
    """What the names of all these folders of ours begin with: other owners and other engines on
    this machine have theirs beside them."""
    store = str(engine.info.get("DockerRootDir") or "")
    return f"{hashlib.sha256(f'{engine.owner}/{store}'.encode()).hexdigest()[:12]}-"


def _name(container: Container, index: int) -> str:
    return f"{container.name}.{index}"


def _is_held(engine: Engine, volume: Volume) -> bool:
    """Whether a part of such a volume is mounted by us first."""
    return isinstance(volume, HostPath) or (isinstance(volume, EmptyDir) and not _native(engine))


def _whole(engine: Engine, workload: Workload, volume: Volume, mount: Mount) -> MountPoint:
    if isinstance(volume, HostPath):
        made = _bind(volume.path, mount)
        if not engine.local and not engine.podman:
            made["BindOptions"]["CreateMountpoint"] = not volume.type
        return made
    read_only = mount.read_only or isinstance(volume, Files)
    return named(names.volume(workload.identity, volume.name), mount.path, read_only=read_only)


def _bind(source: str, mount: Mount, *, read_only: bool = False) -> MountPoint:
    return {
        "Type": "bind",
        "Source": source,
        "Target": mount.path,
        "ReadOnly": mount.read_only or read_only,
        "BindOptions": {"Propagation": _PROPAGATION.get(mount.propagation, "rprivate")},
    }


class _Parts:
    """One mount of a part of a volume."""

    def __init__(self, engine: Engine, workload: Workload, mount: Mount) -> None:
        self._engine = engine
        self._workload = workload
        self._identity = workload.identity
        self._mount = mount
        self._path = posixpath.normpath(mount.sub_path)

    async def make(self, volume: Volume, name: str) -> MountPoint:
        """The mount; `name` is for what may have to be made for it."""
        if self._path.startswith("/") or self._path.split("/")[0] == "..":
            raise Invalid(f'subPath "{self._mount.sub_path}" must lie within the volume')
        if not _fits(self._engine, volume):
            raise Unsupported(f'subPath "{self._mount.sub_path}": {_NO_SUB_PATH}')
        if isinstance(volume, Files):
            return await self._of_files(volume)
        if isinstance(volume, EmptyDir) and _native(self._engine):
            await self._make_folder(volume.name)
            return self._native(volume, self._path)
        if isinstance(volume, HostPath):
            base = volume.path
        else:
            base = await self._mountpoint(volume)
        pod = held_of(self._engine, self._identity)
        source = await asyncio.to_thread(subpaths.hold, pod, name, base, self._path)
        return _bind(source, self._mount)

    async def _of_files(self, volume: Files) -> MountPoint:
        """A part of the revision in force, which no container can change: its path is safe."""
        real = ""
        if found := await self._stat(f"{volume.name}/{contents.DATA}"):
            revision = posixpath.basename(str(found.get("linkTarget", "")))
            inner = f"{revision}/{self._path.removeprefix(f'{contents.DATA}/')}"
            if await self._stat(f"{volume.name}/{inner}"):
                real = inner
        if not real:
            await self._make_folder(volume.name)
        if _native(self._engine):
            return self._native(volume, real or self._path)
        base = await self._mountpoint(volume)
        return _bind(f"{base}/{real or self._path}", self._mount, read_only=True)

    def _native(self, volume: EmptyDir | Files, path: str) -> MountPoint:
        made = named(
            names.volume(self._identity, volume.name),
            self._mount.path,
            read_only=self._mount.read_only or isinstance(volume, Files),
        )
        made["VolumeOptions"]["Subpath"] = path
        return made

    async def _mountpoint(self, volume: Volume) -> str:
        name = names.volume(self._identity, volume.name)
        return str((await self._engine.call("GET", f"volumes/{part(name)}"))["Mountpoint"])

    async def _stat(self, path: str) -> dict[str, Any] | None:
        return await holder.stat(self._engine, self._identity, path)

    async def _make_folder(self, volume: str) -> None:
        """Makes what is missing of the path as folders; what is there stays as it is."""
        archive = contents.Archive(group_of(self._workload))
        missing, place = False, volume
        for name in self._path.split("/"):
            place = f"{place}/{name}"
            if missing or await self._stat(place) is None:
                missing = True
                archive.folder(place, 0o777, writable=True)
        if missing:
            await holder.put(self._engine, self._identity, archive.done())
