"""Service account tokens where nothing can renew them in a pod: only for pods that ask. Pure.

The API server mounts one into nearly every pod (admission's ServiceAccount plugin), asked for or
not. Without a tunnel it would lie in the group as it was, in a payload as well, for as long as the
pod runs. A `projected` volume that the pod names itself is asked for.
"""

from __future__ import annotations

from dataclasses import replace

from bridge.workload import Files, Workload

ANNOTATION = "podbridge.io/service-account-token"
MOUNT = "mount"
_AUTOMATIC = "kube-api-access-"
_FILE = "token"
LEFT_OUT = (
    "its service account's token is not mounted: without a tunnel nothing renews it"
    f" ({ANNOTATION}: {MOUNT} mounts it all the same)"
)


def asked_for(workload: Workload, *, has_tunnel: bool) -> Workload:
    """The pod, without a token that it has only because every pod has one and that nobody could
    renew."""
    if has_tunnel or workload.annotations.get(ANNOTATION) == MOUNT:
        return workload
    volumes = tuple(
        replace(one, files=tuple(each for each in one.files if each.path != _FILE))
        if isinstance(one, Files) and one.name.startswith(_AUTOMATIC)
        else one
        for one in workload.volumes
    )
    return workload if volumes == workload.volumes else replace(workload, volumes=volumes)
