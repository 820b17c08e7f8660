"""Whether a pod needs the helper where a backend does so much by itself. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from enum import StrEnum

from bridge.errors import Violation
from bridge.workload import (
    LATE,
    Container,
    EmptyDir,
    Files,
    HelperUse,
    RestartPolicy,
    Role,
    Workload,
)

ANNOTATION = "podbridge.io/helper"
_PLACE = f"metadata.annotations[{ANNOTATION}]"


class Gift(StrEnum):
    """What the helper gives, and a backend may have of its own."""

    FILES = "files of ConfigMaps, Secrets and the downward API"
    ORDER = "init containers before the others"
    SIDECARS = "sidecars"
    RESTARTS = "restarts of a container"
    PROBES = "probes"
    HOOKS = "lifecycle hooks"
    CODES = "an end of its own for each of several containers"
    MESSAGES = "termination messages"
    STREAMS = "stdin and terminals"
    ADDRESSES = "the pod's own addresses in its environment"
    DEADLINE = "an end at a deadline"
    FOLDERS = "emptyDir volumes that others than root may write to"


def needs(workload: Workload, own: Set[Gift] = frozenset()) -> Sequence[tuple[str, Gift]]:
    """The fields of the pod that take the helper where the backend has `own`: (path, why).

    The termination message at its default path is none of them, since every pod has that field:
    without the helper it stays empty. Nor are exec, attach and port-forward, which no field asks
    for.
    """
    return [one for one in _all(workload) if one[1] not in own]


def wraps(workload: Workload, configured: HelperUse, own: Set[Gift] = frozenset()) -> bool:
    """Whether the helper is to be in it: as the pod says, else as the backend's configuration does,
    else where the pod needs it."""
    use = configured if workload.helper is HelperUse.AUTO else workload.helper
    return use is HelperUse.ALWAYS or (use is HelperUse.AUTO and bool(needs(workload, own)))


def lost(workload: Workload, own: Set[Gift] = frozenset()) -> Sequence[Violation]:
    """What a pod asks for that it cannot have without the helper, which it will not have."""
    why = f"it takes the helper, which {_PLACE} rules out"
    return [Violation(path, f"{gift}: {why}") for path, gift in needs(workload, own)]


def _all(workload: Workload) -> Iterator[tuple[str, Gift]]:
    if workload.deadline is not None:
        yield "spec.activeDeadlineSeconds", Gift.DEADLINE
    for number, volume in enumerate(workload.volumes):
        if isinstance(volume, Files):
            yield f"spec.volumes[{number}]", Gift.FILES
    folders = {one.name for one in workload.volumes if isinstance(one, EmptyDir)}
    mains = [one for one in workload.containers if one.role is Role.MAIN]
    for path, one in workload.paths():
        if one.role is Role.INIT:
            yield path, Gift.ORDER
        if one.role is Role.SIDECAR:
            yield path, Gift.SIDECARS
        if one.role is Role.MAIN and len(mains) > 1:
            yield path, Gift.CODES
        yield from _of(one, path)
        yield from _shared(one, path, folders)


def _shared(one: Container, path: str, folders: Set[str]) -> Iterator[tuple[str, Gift]]:
    """Of a container that says it is not root; what its image says is not known here."""
    own = one.security
    if own.run_as_user or own.run_as_non_root or own.fs_group is not None:
        for number, mount in enumerate(one.mounts):
            if mount.volume in folders and not mount.read_only:
                yield f"{path}.volumeMounts[{number}]", Gift.FOLDERS


def _of(one: Container, path: str) -> Iterator[tuple[str, Gift]]:
    for field, words in (("command", one.command), ("args", one.args)):
        if any(_is_late(word) for word in words):
            yield f"{path}.{field}", Gift.ADDRESSES
    for variable in one.env:
        if _is_late(variable.value):
            yield f"{path}.env[{variable.name}]", Gift.ADDRESSES
    if one.restart_policy is not RestartPolicy.NEVER or one.restart_rules:
        own = one.role is Role.SIDECAR or bool(one.restart_rules)
        yield f"{path}.restartPolicy" if own else "spec.restartPolicy", Gift.RESTARTS
    for probe in ("startup", "liveness", "readiness"):
        if getattr(one, f"{probe}_probe") is not None:
            yield f"{path}.{probe}Probe", Gift.PROBES
    if one.post_start is not None:
        yield f"{path}.lifecycle.postStart", Gift.HOOKS
    if one.pre_stop is not None:
        yield f"{path}.lifecycle.preStop", Gift.HOOKS
    if one.logs_as_message:
        yield f"{path}.terminationMessagePolicy", Gift.MESSAGES
    elif one.termination_message_path not in ("", "/dev/termination-log"):
        yield f"{path}.terminationMessagePath", Gift.MESSAGES
    if one.stdin or one.tty:
        yield f"{path}.{'stdin' if one.stdin else 'tty'}", Gift.STREAMS


def _is_late(text: str) -> bool:
    return any(marker in text for marker in LATE.values())
