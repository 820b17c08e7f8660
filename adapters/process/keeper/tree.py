"""Ending a container's processes, all of them and no other.

While its keeper lives every process of the container is a descendant of it, orphans included. When
the keeper was killed they are found again by what cannot be reused: the mount of the run's own
termination message, which each of them sees, or else the command's session.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable

_START = 19
"""The place of `starttime` in /proc/PID/stat (proc(5)), counted after the name's last bracket."""
_STATE = 0
_PARENT = 1
_SESSION = 3
_TIMES = (11, 12)
"""utime and stime, in ticks."""
_WAITED_FOR = (13, 14)
"""cutime and cstime: the same of children that it has waited for."""
_RESIDENT = 21
"""Pages in memory."""


def _stat(pid: int) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot: with it a pid names one process only."""
    found = _stat(pid)
    return int(found[_START]) if found else None


def boot() -> str:
    """This boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _processes() -> dict[int, list[str]]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(int(name))):
            found[int(name)] = fields
    return found


def _descendants(roots: set[int], processes: dict[int, list[str]]) -> set[int]:
    return _below(roots, _children(processes))


def _children(processes: dict[int, list[str]]) -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for pid, fields in processes.items():
        children.setdefault(int(fields[_PARENT]), []).append(pid)
    return children


def _below(roots: set[int], children: dict[int, list[int]]) -> set[int]:
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def kill_descendants() -> int:
    """Kills every descendant of this process; how many there were that could be killed."""
    processes = _processes()
    return sum(_kill(pid) for pid in _descendants({os.getpid()}, processes))


def kill_session(leader: int) -> None:
    """Kills a process, all of its session, and all that descends from any of these.

    The leader is a child that was not waited for yet, so that its number is nobody else's.
    """
    killed: set[int] = set()
    while True:
        processes = _processes()
        found = {leader}
        found |= {one for one, fields in processes.items() if int(fields[_SESSION]) == leader}
        # What was killed cannot fork any more: when nothing new turns up, that was all.
        found = (found | _descendants(found, processes)) - killed
        if not found:
            return
        for one in found:
            _kill(one)
        killed |= found


def kill_all(ended: Callable[[int, int], None]) -> None:
    """Kills every descendant of this process and waits until there is none.

    `ended` is told of each child that ends: its pid and status. What may not be killed (it runs as
    another user) is not waited for.
    """
    while True:
        try:
            reap(ended)
            if not kill_descendants():
                return
            ended(*os.waitpid(-1, 0))
        except ChildProcessError:
            return


def reap(ended: Callable[[int, int], None]) -> None:
    """Waits for the children that have ended already, and tells of each. ChildProcessError where
    there is no child."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        ended(pid, status)


def usage(keepers: Iterable[int]) -> dict[int, tuple[int, int]]:
    """What the containers of these keepers use: nanoseconds of CPU since they started, and bytes of
    memory. By the keeper's pid; those that have gone are left out.

    CPU of what has ended counts with whoever waited for it, in the end the keeper. Memory that
    processes share counts for each.
    """
    processes = _processes()
    tick, page = 1_000_000_000 // os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    found = {}
    children = _children(processes)
    for keeper in keepers:
        own = processes.get(keeper)
        if own is None:
            continue
        below = {one: processes[one] for one in _below({keeper}, children)}
        ticks = _sum(own, _WAITED_FOR)
        ticks += sum(_sum(fields, (*_TIMES, *_WAITED_FOR)) for fields in below.values())
        # Less than a tick is something all the same. The two are never added up: what has ended is
        # counted in ticks alone, and a sum must not fall.
        cpu = ticks * tick if ticks else min(sum(map(_ran, below)), tick - 1)
        pages = sum(int(fields[_RESIDENT]) for fields in below.values())
        found[keeper] = (cpu, pages * page)
    return found


def _sum(fields: list[str], places: Iterable[int]) -> int:
    return sum(int(fields[at]) for at in places)


def _ran(pid: int) -> int:
    """Nanoseconds that the process's first thread has run; 0 where the kernel does not count."""
    try:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def _sees(pid: int, marker: str) -> bool:
    try:
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return any(marker in line for line in file)
    except OSError:
        # It has ended meanwhile, or is somebody else's: then it is not ours to end.
        return False


def _orphans(pid: int, started: int, marker: str) -> set[int]:
    processes = _processes()
    if marker:
        found = {one for one in processes if _sees(one, marker)}
    else:
        leader = processes.get(pid)
        if leader is not None and int(leader[_START]) != started:
            return set()
        found = {
            one
            for one, fields in processes.items()
            if int(fields[_SESSION]) == pid and int(fields[_START]) >= started
        }
    found |= _descendants(found, processes)
    # A zombie has ended: whether its parent looks is not ours to say.
    return {one for one in found if processes[one][_STATE] != "Z"} - {os.getpid()}


def kill_orphans(pid: int, started: int, marker: str) -> bool:
    """Kills what a dead keeper has left: True where nothing is left.

    `pid` and `started` are the command's process; `marker` is what the list of mounts of each of
    its processes holds, empty where it had no mounts of its own.
    """
    return sum(_kill(one) for one in _orphans(pid, started, marker)) == 0
