"""What containers use: from the kernel's own counters, or by the engine where it is elsewhere.

Memory is the working set as the kubelet counts it: what is in use without the pages of files that
have not been touched for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.engine.client import Engine, part
from bridge.adapter import Usage
from bridge.errors import BridgeError

_AT_ONCE = 8
"""Questions to the engine at a time."""
_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Groups:
    """A container's folders of counters."""

    cpu: Path
    memory: Path
    unified: bool
    """cgroup version 2."""


class Meter:
    """Measures containers; knows where their counters are for as long as they are asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._groups: dict[str, Groups] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def usage(self, running: Mapping[str, str]) -> Mapping[str, Usage]:
        """By the engine's ID what each of these containers (ID to name) uses; those that do not
        run, or of which nothing is known, are left out. Unavailable."""
        found = await asyncio.gather(*(self._one(one, name) for one, name in running.items()))
        return {one: usage for one, usage in zip(running, found, strict=True) if usage is not None}

    def keep(self, containers: Container[str]) -> None:
        """Forgets what is not among these IDs."""
        self._groups = {one: at for one, at in self._groups.items() if one in containers}

    async def _one(self, container_id: str, name: str) -> Usage | None:
        if self._engine.local:
            groups = self._groups.get(container_id) or await self._find(container_id)
            if groups is not None:
                self._groups[container_id] = groups
                if (found := read(groups, name)) is not None:
                    return found
                del self._groups[container_id]
                return None
        return await self._ask(container_id, name)

    async def _find(self, container_id: str) -> Groups | None:
        async with self._gate:
            try:
                path = f"containers/{part(container_id)}/json"
                state = (await self._engine.call("GET", path))["State"]
            except BridgeError:
                return None
        pid = int(state.get("Pid") or 0)
        text = _groups_text(pid) if pid else ""
        return groups_of(text) if container_id in text else None

    async def _ask(self, container_id: str, name: str) -> Usage | None:
        params = {"stream": False, "one-shot": True}
        async with self._gate:
            try:
                path = f"containers/{part(container_id)}/stats"
                said = await self._engine.call("GET", path, params=params)
            except BridgeError:
                return None
        return answered(said or {}, name, time.time())


def _groups_text(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
    except OSError:
        return ""


def groups_of(text: str, root: Path = _ROOT) -> Groups | None:
    """The folders by what /proc/<pid>/cgroup says; None where none is to be seen."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for one in controllers.split(","):
            paths[one] = path.lstrip("/")
    if "memory" in paths and "cpuacct" in paths:
        found = Groups(
            root / "cpuacct" / paths["cpuacct"], root / "memory" / paths["memory"], False
        )
    elif "" in paths:
        found = Groups(root / paths[""], root / paths[""], True)
    else:
        return None
    return found if found.cpu.is_dir() and found.memory.is_dir() else None


def read(groups: Groups, name: str) -> Usage | None:
    """The counters; None where the container is gone."""
    try:
        if groups.unified:
            stat = _table(groups.cpu / "cpu.stat")
            cpu = stat["usage_usec"] * 1000
            used = int((groups.memory / "memory.current").read_text())
            idle = _table(groups.memory / "memory.stat").get("inactive_file", 0)
        else:
            cpu = int((groups.cpu / "cpuacct.usage").read_text())
            used = int((groups.memory / "memory.usage_in_bytes").read_text())
            idle = _table(groups.memory / "memory.stat").get("total_inactive_file", 0)
    except (OSError, KeyError, ValueError):
        return None
    return Usage(name, time.time(), cpu, max(0, used - idle))


def _table(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def answered(said: Mapping[str, Any], name: str, now: float) -> Usage | None:
    """What the engine's answer says; None: it does not run."""
    cpu = ((said.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage")
    memory = said.get("memory_stats") or {}
    used = memory.get("usage")
    if not cpu and not used:
        return None
    details = memory.get("stats") or {}
    idle = details.get("total_inactive_file", details.get("inactive_file", 0))
    return Usage(name, now, cpu, None if used is None else max(0, used - idle))
