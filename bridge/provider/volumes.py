"""A pod's volumes as the contract carries them, made into the neutral model's. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from bridge import quantity
from bridge.errors import Violation
from bridge.pods import Manifest
from bridge.rpc.v1 import pod_pb2
from bridge.workload import Claim, EmptyDir, File, Files, HostPath, Volume

_FILLED = ("configMap", "secret", "downwardAPI", "projected")


def volumes(
    spec: Manifest,
    contents: Iterable[pod_pb2.VolumeContent],
    violations: list[Violation],
) -> tuple[Volume, ...]:
    """The volumes that the model knows, in order. Others have no counterpart: the backends' tables
    refuse them by name."""
    given = spec.get("volumes")
    if not given:
        return ()
    content = {one.volume: one for one in contents}
    out: list[Volume] = []
    for index, volume in enumerate(given):
        name, where = volume["name"], f"spec.volumes[{index}]"
        if name in content:
            out.append(_files(content[name], where, violations))
        elif any(kind in volume for kind in _FILLED):
            words = f'the request carries no content for volume "{name}"'
            violations.append(Violation(where, words))
        elif host := volume.get("hostPath"):
            out.append(HostPath(name, host["path"], host.get("type") or ""))
        elif claim := volume.get("persistentVolumeClaim"):
            read_only = bool(claim.get("readOnly"))
            out.append(Claim(name, claim["claimName"], read_only=read_only))
        elif "emptyDir" in volume or len(volume) == 1:
            out.append(_empty_dir(name, volume.get("emptyDir") or {}, where, violations))
    return tuple(out)


def _empty_dir(name: str, given: Manifest, where: str, violations: list[Violation]) -> EmptyDir:
    limit = given.get("sizeLimit")
    size = None
    if limit is not None:
        try:
            # A limit of 0 is the API's word for none.
            size = quantity.as_int(limit) or None
        except ValueError as error:
            violations.append(Violation(f"{where}.emptyDir.sizeLimit", f"bad quantity: {error}"))
    return EmptyDir(name, memory=given.get("medium") == "Memory", size_limit=size)


def _files(content: pod_pb2.VolumeContent, where: str, violations: list[Violation]) -> Files:
    files = []
    for file in content.files:
        parts = file.path.split("/")
        if not file.path or "\0" in file.path or any(part in ("", ".", "..") for part in parts):
            words = f"found {file.path!r} as a file's path; allowed: a path below the volume"
            violations.append(Violation(where, words))
            continue
        mode = file.mode if file.HasField("mode") else 0o644
        files.append(File(file.path, file.content, mode, file.secret))
    return Files(content.volume, tuple(files), content.revision)
