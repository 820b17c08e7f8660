"""What of a workload this host cannot do: looked up by field, before anything is made."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from adapters.process import hostpaths
from adapters.process.environment import environment
from adapters.process.zygote import Isolation
from bridge.errors import Violation
from bridge.workload import Container, Files, HostPath, Mount, Workload

_KERNEL = ("/proc", "/sys")
"""Where nothing can be made, because the kernel itself fills them."""
_IN_THE_OPEN = (
    "holds a Secret's value, and the process list shows it to every user of this host:"
    " pass it by env or a file"
)


def check(workload: Workload, isolation: Isolation, path: str) -> list[Violation]:
    """Everything that cannot be done here, each with its field."""
    found: list[Violation] = []
    for at, container in workload.paths():
        found.extend(_Check(workload, container, isolation, at, path).all())
    found.extend(_groups(workload, isolation))
    found.extend(_host_paths(workload))
    return found


def _host_paths(workload: Workload) -> Iterator[Violation]:
    for index, volume in enumerate(workload.volumes):
        if isinstance(volume, HostPath) and (words := hostpaths.problem(volume)):
            yield Violation(f"spec.volumes[{index}].hostPath.path", words)


def _groups(workload: Workload, isolation: Isolation) -> Iterator[Violation]:
    if isolation.any_user or not workload.containers:
        return
    security = workload.containers[0].security
    if security.fs_group is not None and security.fs_group not in isolation.groups:
        words = f"{security.fs_group}: only root can give files to that group"
        yield Violation("spec.securityContext.fsGroup", words)
    strange = sorted(set(security.supplemental_groups) - isolation.groups)
    if strange:
        words = f"{', '.join(map(str, strange))}: only root can join other groups than its own"
        yield Violation("spec.securityContext.supplementalGroups", words)


class _Check:
    """The checks of one container."""

    def __init__(
        self, workload: Workload, container: Container, isolation: Isolation, at: str, path: str
    ) -> None:
        self._workload = workload
        self._container = container
        self._isolation = isolation
        self._at = at
        self._default_path = path

    def all(self) -> Iterator[Violation]:
        """Everything that is wrong with it."""
        yield from self._mounts()
        yield from self._directory()
        yield from self._command()
        yield from self._user()
        yield from self._privileges()

    def _wrong(self, field: str, message: str) -> Violation:
        return Violation(f"{self._at}.{field}", message)

    def _in_mount(self, path: str) -> bool:
        path = os.path.normpath(path)
        return any(
            _inside(path, os.path.normpath(one.path))
            or _inside(os.path.realpath(path), os.path.realpath(one.path))
            for one in self._container.mounts
        )

    def _mounts(self) -> Iterator[Violation]:
        for index, mount in enumerate(self._container.mounts):
            words = self._mount(mount)
            if words:
                yield self._wrong(f"volumeMounts[{index}].mountPath", words)

    def _mount(self, mount: Mount) -> str:
        host = self._host_path(mount)
        if not self._isolation.namespaces:
            if host is not None and self._is_there_anyway(mount, host):
                return ""
            return f"this host allows no mount namespaces ({self._isolation.why}): drop the mount"
        if not mount.path.startswith("/"):
            return f"{mount.path!r} is not absolute"
        place = os.path.realpath(mount.path)
        if place == "/":
            return "the root itself cannot be a volume"
        if any(_inside(place, one) for one in _KERNEL) and not os.path.exists(place):
            return f"nothing can be made in {place}"
        if mount.sub_path or not os.path.lexists(place):
            return ""
        if host is not None and hostpaths.is_file(host):
            if os.path.isdir(place):
                return f"{place} is a directory on this host: the file {host.path} needs a file"
        elif not os.path.isdir(place):
            return f"{place} is a file on this host: a volume needs a directory"
        return ""

    def _host_path(self, mount: Mount) -> HostPath | None:
        for volume in self._workload.volumes:
            if isinstance(volume, HostPath) and volume.name == mount.volume:
                return volume
        return None

    def _is_there_anyway(self, mount: Mount, host: HostPath) -> bool:
        """Whether the container sees the host's path where it wants it without any mount."""
        same = os.path.normpath(mount.path) == os.path.normpath(host.path)
        return same and not mount.read_only and not mount.sub_path

    def _directory(self) -> Iterator[Violation]:
        place = self._container.working_dir
        if not place or self._in_mount(place) or os.path.isdir(place):
            return
        if os.path.lexists(place):
            yield self._wrong("workingDir", f"{place} is no directory on this host")
        elif not self._isolation.namespaces:
            words = f"{place} does not exist on this host, and it allows no mount namespaces"
            yield self._wrong("workingDir", words)
        elif any(_inside(os.path.realpath(place), one) for one in _KERNEL):
            yield self._wrong("workingDir", f"nothing can be made in {place}")

    def _command(self) -> Iterator[Violation]:
        if not self._container.command:
            yield self._wrong("command", f"process runs no images: give {self._at}.command")
            return
        for word in self._container.secret_words:
            yield self._wrong(word, _IN_THE_OPEN)
        if "command[0]" in self._container.secret_words:
            return
        name = self._container.command[0]
        if "/" in name:
            place = os.path.join(self._container.working_dir or "/", name)
            if not self._in_mount(place):
                yield from self._program(name, place)
            return
        path = environment(self._workload, self._container, self._default_path).get("PATH", "")
        folders = [folder for folder in path.split(":") if folder]
        if any(self._in_mount(folder) for folder in folders):
            return
        if not any(_runs(os.path.join(folder, name)) for folder in folders):
            shown = "a value from a Secret" if self._has_secret_path() else path
            words = f"{name!r} is not on this host's PATH ({shown}), and process runs no images"
            yield self._wrong("command", words)

    def _has_secret_path(self) -> bool:
        return any(one.secret for one in self._container.env if one.name == "PATH")

    def _program(self, name: str, place: str) -> Iterator[Violation]:
        if not os.path.exists(place):
            words = f"{name!r} does not exist on this host, and process runs no images"
            yield self._wrong("command", words)
        elif not _runs(place):
            yield self._wrong("command", f"{name!r} is not executable on this host")

    def _user(self) -> Iterator[Violation]:
        security, isolation = self._container.security, self._isolation
        user = security.run_as_user
        if not isolation.any_user:
            if user not in (None, isolation.user):
                words = f"{user}: only root can run as others, and this is user {isolation.user}"
                yield self._wrong("securityContext.runAsUser", words)
            if security.run_as_group not in (None, isolation.group):
                words = f"{security.run_as_group}: only root can run as others"
                yield self._wrong("securityContext.runAsGroup", words)
        if security.run_as_non_root and (isolation.user if user is None else user) == 0:
            yield self._wrong("securityContext.runAsNonRoot", self._as_root(user))

    def _as_root(self, user: int | None) -> str:
        # The kubelet's words, which people search for.
        who = self._workload.identity
        where = f'(pod: "{who.name}_{who.namespace}({who.uid})", container: {self._container.name})'
        if user is None:
            return f"container has runAsNonRoot and image will run as root {where}"
        return f"container's runAsUser breaks non-root policy {where}"

    def _privileges(self) -> Iterator[Violation]:
        security = self._container.security
        user = self._isolation.user if security.run_as_user is None else security.run_as_user
        if security.add_capabilities and user != 0:
            words = f"{', '.join(security.add_capabilities)}: only root has capabilities"
            yield self._wrong("securityContext.capabilities.add", words)
        if security.read_only_root and not self._isolation.namespaces:
            words = f"this host allows no mount namespaces ({self._isolation.why})"
            yield self._wrong("securityContext.readOnlyRootFilesystem", words)
        unknown = [one for one in security.drop_capabilities if not _is_known(one)]
        if unknown:
            words = f"unknown: {', '.join(unknown)}"
            yield self._wrong("securityContext.capabilities.drop", words)


def _is_known(capability: str) -> bool:
    return bool(numbers([capability]))


def numbers(capabilities: Sequence[str]) -> list[int]:
    """The kernel's numbers of capabilities, with or without CAP_; ALL means all."""
    names = {one.upper().removeprefix("CAP_") for one in capabilities}
    if "ALL" in names:
        return list(range(len(_CAPABILITIES)))
    return [number for number, name in enumerate(_CAPABILITIES) if name in names]


_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
    "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
    "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
_CAPABILITIES = _NAMES.split()
"""In the order of linux/capability.h."""


def _inside(path: str, base: str) -> bool:
    return path == base or path.startswith(base.rstrip("/") + "/")


def _runs(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def is_read_only(workload: Workload, mount: Mount) -> bool:
    """Whether the container may only read there: asked for, or files that Kubernetes fills."""
    files = {one.name for one in workload.volumes if isinstance(one, Files)}
    return mount.read_only or mount.volume in files
