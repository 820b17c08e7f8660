"""What a container's process is told: its environment, and its whole specification."""

from __future__ import annotations

import os
import pwd
import signal

from bridge.workload import Container, Workload


def environment(workload: Workload, container: Container, path: str) -> dict[str, str]:
    """Exactly what the command gets: the pod's own variables, over those that a container runtime
    sets as well (PATH as an image would, HOME, HOSTNAME). Nothing of the provider's."""
    found = {"PATH": path}
    if workload.hostname:
        found["HOSTNAME"] = workload.hostname
    found["HOME"] = _home(container.security.run_as_user)
    found.update((one.name, one.value) for one in container.env)
    return found


def _home(user: int | None) -> str:
    try:
        return pwd.getpwuid(os.geteuid() if user is None else user).pw_dir
    except KeyError:
        return "/"


def group_of(user: int | None) -> int | None:
    """The group of somebody for whom none is named: the own one, or root's where nobody knows."""
    if user is None:
        return None
    try:
        return pwd.getpwuid(user).pw_gid
    except KeyError:
        return 0


def stop_signal(name: str) -> int:
    """A signal's number by its name; SIGTERM where this system has no such signal."""
    try:
        return signal.Signals[name].value
    except KeyError:
        return _real_time(name) or signal.SIGTERM.value


def _real_time(name: str) -> int | None:
    for base in ("SIGRTMIN", "SIGRTMAX"):
        offset = name.removeprefix(base)
        if offset != name and offset[:1] in "+-" and offset[1:].isdigit():
            return signal.Signals[base].value + int(offset)
    return None
