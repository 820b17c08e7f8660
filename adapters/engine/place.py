"""Where a pod's network is: what its ports are called by, and what its namespace is entered by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters.engine.observe import Entry


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pod's network is."""

    address: str
    pid: int | None = None
    """Of the pause container's process, on a local engine."""
    start: str = ""
    """When that process began, in the kernel's words: a number alone may mean another one."""

    @classmethod
    def of(cls, pause: Entry) -> Place:
        """From the inspect of a pause container, on a local engine. A pod in the host's network has
        no address of its own."""
        pid = int(((pause.said or {}).get("State") or {}).get("Pid") or 0)
        return cls(next(iter(pause.addresses), "127.0.0.1"), pid or None, cls.began(pid))

    def stands(self) -> bool:
        """Whether that process still lives, and so the address is still the pod's."""
        return self.pid is not None and bool(self.start) and self.began(self.pid) == self.start

    @staticmethod
    def began(pid: int) -> str:
        """When that process began; empty: there is none."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] == "Z" else fields[19]
