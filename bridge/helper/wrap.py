"""A pod as containers that any cloud can run: the helper around each of them, all else left out.

The result is a workload that asks for nothing but containers with an environment, folders that
they share, one container that runs before all others, and one that ends last. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from posixpath import normpath

from bridge.errors import Invalid, Violation
from bridge.helper.payload import (
    FOLDER,
    PROGRAM_FOLDER,
    Settings,
    Tree,
    encode,
    install_payload,
    run_payload,
    tree,
    watch_payload,
)
from bridge.workload import (
    Container,
    EmptyDir,
    EnvVar,
    Files,
    Mount,
    RestartPolicy,
    Role,
    Security,
    Workload,
)

INSTALL = "podbridge-install"
"""The container that runs before all others, to its end."""
WATCH = "podbridge-watch"
"""The essential one: with it the pod is over."""
OURS = "podbridge-"
"""How the names of containers and volumes begin that the helper adds."""
BINARY = "podbridge-helper"
"""The volume that has the program; only `install` writes to it."""
BOARD = "podbridge-board"
"""The volume by which the helpers of a pod tell one another; each of them writes to it."""
VOLUMES = "/podbridge-volumes"
"""Where `install` and `watch` have the pod's volumes, each by its name."""
PROGRAM = "/helper"
"""Where the helper's own image has it."""


@dataclass(frozen=True, slots=True)
class Process:
    """What an image runs where the pod does not say it."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    stop_signal: str = ""
    """A name or a number; empty: SIGTERM."""


def command_of(container: Container, image: Process) -> tuple[str, ...]:
    """What the container is to run, whole (the kubelet's rules for command and args).

    Raises Invalid where neither the pod nor the image says it.
    """
    if container.command:
        return (*container.command, *container.args)
    words = (*image.entrypoint, *(container.args or image.cmd))
    if not words:
        words_ = f'neither the pod nor the image "{container.image}" has a command'
        raise Invalid(violations=[Violation(f"{container.name}.command", words_)])
    return words


def place_of(volume: Files, fs_group: int | None) -> Tree:
    """A volume's files, where `install` and `watch` write them."""
    return tree(volume, f"{VOLUMES}/{volume.name}", fs_group=fs_group)


def wrap(
    workload: Workload, images: Mapping[str, Process], settings: Settings, image: str
) -> Workload:
    """The pod with the helper around each container. `images` by the container's name; `image` is
    the helper's own. Raises Invalid for what the helper cannot run."""
    made = _Wrapping(workload, images, settings, image)
    return made.done()


def bare(workload: Workload) -> Workload:
    """The pod without the helper: what a cloud runs by itself, once, and reads nothing out of."""
    containers = (
        replace(one, restart_policy=RestartPolicy.NEVER, termination_message_path="")
        for one in workload.containers
    )
    return replace(workload, containers=tuple(containers), restart_policy=RestartPolicy.NEVER)


def is_wrapped(made: Workload) -> bool:
    """Whether the helper is in it."""
    return made.containers[-1].name == WATCH


def places(workload: Workload) -> Sequence[Violation]:
    """Mounts in the way of the helper's own: at its folders, below or above them."""
    own = (PROGRAM_FOLDER, FOLDER)
    words = f"allowed: any path but {own[0]} and {own[1]}, which are the helper's, and below them"
    return [
        Violation(f"{path}.volumeMounts[{index}].mountPath", f'found "{mount.path}"; {words}')
        for path, one in workload.paths()
        for index, mount in enumerate(one.mounts)
        if any(_overlap(mount.path, folder) for folder in own)
    ]


def _overlap(one: str, other: str) -> bool:
    """Whether one of two absolute paths is the other, or leads into it."""
    # Two slashes at the beginning mean nothing to Linux, and something to POSIX.
    mine, own = PurePosixPath(normpath(f"/{one.lstrip('/')}")), PurePosixPath(other)
    return mine.is_relative_to(own) or own.is_relative_to(mine)


class _Wrapping:
    def __init__(
        self, workload: Workload, images: Mapping[str, Process], settings: Settings, image: str
    ) -> None:
        self._workload = workload
        self._images = images
        self._settings = settings
        self._image = image
        self._files = {one.name: one for one in workload.volumes if isinstance(one, Files)}
        self._trees: dict[str, Tree] = {}
        """What `install` writes, by volume."""
        self._secret: set[str] = set()
        self._group = next(
            (
                one.security.fs_group
                for one in workload.containers
                if one.security.fs_group is not None
            ),
            None,
        )

    def done(self) -> Workload:
        for volume in self._files.values():
            self._add(volume.name, volume)
        wrapped = [self._run(one) for one in self._workload.containers]
        folders = [
            EmptyDir(name, memory=name in self._secret) for name in (*self._trees, BINARY, BOARD)
        ]
        kept = [one for one in self._workload.volumes if not isinstance(one, Files)]
        return replace(
            self._workload,
            containers=(
                self._own(INSTALL, Role.INIT, "install"),
                *wrapped,
                self._own(WATCH, Role.MAIN, "watch"),
            ),
            volumes=(*kept, *folders),
            restart_policy=RestartPolicy.NEVER,
        )

    def _add(self, name: str, volume: Files, sub_path: str = "") -> None:
        self._trees[name] = tree(volume, f"{VOLUMES}/{name}", sub_path, fs_group=self._group)
        if any(one.secret for one in volume.files):
            self._secret.add(name)

    def _own(self, name: str, role: Role, verb: str) -> Container:
        names = list(self._trees)
        if verb == "install":
            opened = self._opened()
            trees = [*self._trees.values(), *opened.values()]
            payload = install_payload(self._workload, self._settings, trees)
            names += opened
        else:
            payload = watch_payload(self._workload, self._settings)
        places = [Mount(one, f"{VOLUMES}/{one}") for one in names]
        if verb == "install":
            places.append(Mount(BINARY, self._settings.program))
        return Container(
            name=name,
            role=role,
            image=self._image,
            command=(PROGRAM, verb),
            env=_variables(payload),
            mounts=(*places, Mount(BOARD, self._settings.folder)),
            restart_policy=RestartPolicy.NEVER,
            security=Security(read_only_root=True, no_new_privileges=True),
            image_pull_policy="Never",
            termination_message_path="",
        )

    def _opened(self) -> dict[str, Tree]:
        """The pod's empty volumes, which every user may write to in Kubernetes, by their names."""
        mode = 0o777 if self._group is None else 0o2777
        return {
            one.name: Tree(f"{VOLUMES}/{one.name}", folder_mode=mode, group=self._group)
            for one in self._workload.volumes
            if isinstance(one, EmptyDir)
        }

    def _run(self, container: Container) -> Container:
        image = self._images.get(container.name, Process())
        mounts, trees = [], []
        for mount in container.mounts:
            volume = self._files.get(mount.volume)
            if volume is None:
                mounts.append(mount)
            elif not mount.sub_path:
                mounts.append(_only_read(mount, container))
            elif any(one.path == mount.sub_path for one in volume.files):
                trees.append(tree(volume, mount.path, mount.sub_path, fs_group=self._group))
            else:
                name = f"{OURS}part-{len(self._trees)}"
                self._add(name, volume, mount.sub_path)
                mounts.append(_only_read(replace(mount, volume=name, sub_path=""), container))
        whole = replace(
            container,
            command=command_of(container, image),
            args=(),
            stop_signal=container.stop_signal or _signal(image.stop_signal),
        )
        pod = replace(
            self._workload,
            containers=tuple(
                whole if one.name == container.name else one for one in self._workload.containers
            ),
        )
        payload = run_payload(pod, container.name, self._settings, trees)
        return Container(
            name=container.name,
            role=Role.MAIN,
            image=container.image,
            command=(f"{self._settings.program}{PROGRAM}", "run"),
            env=_variables(payload),
            mounts=(
                *mounts,
                Mount(BINARY, self._settings.program, read_only=True),
                Mount(BOARD, self._settings.folder),
            ),
            resources=container.resources,
            restart_policy=RestartPolicy.NEVER,
            security=container.security,
            ports=container.ports,
            image_pull_policy=container.image_pull_policy,
            termination_message_path="",
            stop_signal="SIGTERM",
        )


def _only_read(mount: Mount, container: Container) -> Mount:
    """A mount of a filled volume, which no container writes to in Kubernetes. Where another mount
    lies in it the engine has to make that one's place there."""
    inside = f"{mount.path.rstrip('/')}/"
    holds = any(one.path.startswith(inside) for one in container.mounts if one.path != mount.path)
    return replace(mount, read_only=mount.read_only or not holds)


def _variables(payload: dict[str, object]) -> tuple[EnvVar, ...]:
    return tuple(EnvVar(name, value, secret=True) for name, value in encode(payload).items())


def _signal(of_image: str) -> str:
    """An image may give its stop signal by number, and without SIG."""
    name = of_image.upper()
    if not name or name.isdigit():
        return _BY_NUMBER.get(name, "")
    return name if name.startswith("SIG") else f"SIG{name}"


_BY_NUMBER = {
    "1": "SIGHUP", "2": "SIGINT", "3": "SIGQUIT", "6": "SIGABRT", "9": "SIGKILL", "10": "SIGUSR1",
    "12": "SIGUSR2", "13": "SIGPIPE", "14": "SIGALRM", "15": "SIGTERM", "18": "SIGCONT",
    "28": "SIGWINCH",
}  # fmt: skip
