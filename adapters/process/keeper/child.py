"""The last steps of a new process before it becomes the container's command."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import stat
from typing import TYPE_CHECKING, NoReturn

from . import files, mounts, system, terminal

if TYPE_CHECKING:
    from .spec import MountSpec, Request, RunSpec

_WRITABLE_APART = ("/dev/shm", "/dev/mqueue")  # noqa: S108 - mounts of their own in any container


Streams = tuple[int, int, int]
"""What becomes standard input, output and error."""
Namespaces = tuple[tuple[int, int], ...]
"""Descriptors of namespaces, each with its kind."""


def become(spec: RunSpec, streams: Streams, status: int) -> NoReturn:
    """Becomes the command. What prevents it is written to `status`, as words for people."""
    try:
        _begin(streams, spec["tty"])
        if spec["namespaces"]:
            _build_view(spec)
        environment = spec["environment"]
        _end(spec, spec["argv"], terminal.environment(environment) if spec["tty"] else environment)
    except (OSError, ValueError) as error:
        _say(error, status)
    finally:
        os._exit(128)


def join(
    spec: RunSpec, namespaces: Namespaces, request: Request, streams: Streams, status: int
) -> NoReturn:
    """Becomes another command in the container: with its view of the host, as its user."""
    try:
        _begin(streams, request["tty"])
        for descriptor, kind in namespaces:
            system.set_namespace(descriptor, kind)
        environment = spec["environment"]
        if request["tty"]:
            environment = terminal.environment(environment)
        _end(spec, request["command"], environment)
    except (OSError, ValueError) as error:
        _say(error, status)
    finally:
        os._exit(128)


def _begin(streams: Streams, tty: bool) -> None:
    _isolate_signals()
    os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    if tty:
        terminal.control()
    os.umask(0o022)


def _end(spec: RunSpec, argv: list[str], environment: dict[str, str]) -> NoReturn:
    _enter(spec["cwd"])
    _drop(spec)
    # Last, because a change of user takes it back.
    system.die_with_parent(signal.SIGKILL)
    _execute(argv, environment)


def _say(error: OSError | ValueError, status: int) -> None:
    words = _words(error) if isinstance(error, OSError) else str(error)
    os.write(status, words.encode("utf-8", "replace"))


def _words(error: OSError) -> str:
    # The kubelet's users know these errors as Go prints them.
    text = (error.strerror or str(error)).lower()
    return f"{error.filename}: {text}" if error.filename else text


def _isolate_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _build_view(spec: RunSpec) -> None:
    message = f"{spec['run']}/{files.MESSAGE}"
    system.unshare(system.CLONE_NEWNS | system.CLONE_NEWUTS)
    system.mount(None, "/", None, system.MS_REC | system.MS_PRIVATE)
    if spec["hostname"]:
        socket.sethostname(spec["hostname"])
    view = mounts.View()
    wanted = [one["path"] for one in spec["mounts"]] + [spec["cwd"], spec["message_path"]]
    # The new root comes first: what is opened before it could not be mounted after it.
    if any(_top_is_missing(path) for path in wanted if path):
        view.cover("/")
    volumes = [_open(one["source"]) for one in spec["mounts"]]
    said = os.open(message, os.O_PATH | os.O_CLOEXEC)
    writable = []
    order = sorted(range(len(volumes)), key=lambda one: spec["mounts"][one]["path"].count("/"))
    for one in order:
        target = _mount(view, spec["mounts"][one], volumes[one])
        if not spec["mounts"][one]["read_only"]:
            writable.append(target)
    if spec["message_path"]:
        target = view.file(spec["message_path"])
        mounts.bind(f"/proc/self/fd/{said}", target)
        writable.append(target)
    if not os.path.isdir(spec["cwd"]):
        view.directory(spec["cwd"])
    if spec["read_only_root"]:
        _close_root(writable)


def _top_is_missing(path: str) -> bool:
    top = os.path.realpath(path).split("/")[1]
    return bool(top) and not os.path.lexists(f"/{top}")


def _open(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _mount(view: mounts.View, mount: MountSpec, volume: int) -> str:
    source = _below(volume, mount["sub_path"]) if mount["sub_path"] else volume
    place = f"/proc/self/fd/{source}"
    if stat.S_ISDIR(os.stat(place).st_mode):
        target = view.directory(mount["path"])
    else:
        target = view.file(mount["path"])
    mounts.bind(place, target)
    if mount["read_only"]:
        mounts.make_read_only(target)
    view.own(target, not mount["read_only"])
    return target


def _below(volume: int, sub_path: str) -> int:
    """The file or directory at `sub_path`, made if missing, never outside of the volume."""
    base = os.readlink(f"/proc/self/fd/{volume}")
    path = os.path.realpath(os.path.join(base, sub_path))
    if _inside(path, base) and not os.path.lexists(path):
        _make_like(volume, os.path.relpath(path, base))
    found = _open(path)
    # Judged by what was opened: a link may have been put in its way meanwhile.
    if not _inside(os.readlink(f"/proc/self/fd/{found}"), base):
        raise OSError(errno.EXDEV, "leads out of its volume", f"subPath {sub_path}")
    return found


def _make_like(volume: int, path: str) -> None:
    """Makes a directory in a volume, with the volume's own mode, as the kubelet does.

    Step by step from what is open, never through a link: a container that has the volume already
    may put links in the way at any time.
    """
    mode = stat.S_IMODE(os.stat(f"/proc/self/fd/{volume}").st_mode)
    place = volume
    for part in path.split("/"):
        below, is_new = _step(place, part)
        if place != volume:
            os.close(place)
        place = below
        if is_new:
            os.fchmod(place, mode)
    os.close(place)


def _step(place: int, part: str) -> tuple[int, bool]:
    """The directory of that name in one that is open, and whether it was made by this."""
    how = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.mkdir(part, 0o700, dir_fd=place)
    except FileExistsError:
        return os.open(part, os.O_PATH | how, dir_fd=place), False
    return os.open(part, os.O_RDONLY | how, dir_fd=place), True


def _inside(path: str, base: str) -> bool:
    return path == base or path.startswith(base.rstrip("/") + "/")


def _close_root(writable: list[str]) -> None:
    system.set_read_only("/", True, recursive=True)
    for path in (*_WRITABLE_APART, *writable):
        if os.path.ismount(path) or path in writable:
            system.set_read_only(path, False, recursive=False)


def _enter(cwd: str) -> None:
    try:
        os.chdir(cwd)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise ValueError(f"workingDir {json.dumps(cwd)}: {reason}") from error


def _drop(spec: RunSpec) -> None:
    if spec["no_new_privileges"]:
        system.forbid_new_privileges()
    for number in spec["drop_capabilities"]:
        _drop_capability(number)
    if spec["groups"] is not None:
        os.setgroups(spec["groups"])
    if spec["group"] is not None:
        os.setresgid(spec["group"], spec["group"], spec["group"])
    if spec["user"] is not None:
        os.setresuid(spec["user"], spec["user"], spec["user"])


def _drop_capability(number: int) -> None:
    try:
        system.drop_capability(number)
    except OSError as error:
        # EINVAL: this kernel does not have it. EPERM where we are not root: neither have we.
        if error.errno == errno.EPERM and os.geteuid() == 0:
            raise


def _execute(argv: list[str], environment: dict[str, str]) -> NoReturn:
    name = argv[0]
    if "/" in name:
        places = [name]
    else:
        path = environment.get("PATH", "")
        places = [os.path.join(folder, name) for folder in path.split(":") if folder]
    denied = False
    for place in places:
        try:
            os.execve(place, argv, environment)  # noqa: S606 - this is the pod's own command
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            denied = True
        except OSError as error:
            # Not the place: PATH may be a Secret's value.
            raise ValueError(f"exec: {json.dumps(name)}: {_reason(error)}") from error
    if denied:
        raise ValueError(f"exec: {json.dumps(name)}: permission denied")
    if "/" in name:
        raise ValueError(f"exec: {json.dumps(name)}: no such file or directory")
    raise ValueError(f"exec: {json.dumps(name)}: executable file not found in $PATH")


def _reason(error: OSError) -> str:
    return "exec format error" if error.errno == errno.ENOEXEC else (error.strerror or "").lower()
