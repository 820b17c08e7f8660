"""What can be chosen for this backend."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Options of the `process` backend."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path | None = None
    """Where pods are kept. Default: $XDG_STATE_HOME/podbridge/process, or
    ~/.local/state/podbridge/process. Providers that share it see each other's pods."""

    path: str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    """PATH of containers that set none. Default: what most images have."""

    def place(self) -> Path:
        """`root`, with its default filled in."""
        if self.root is not None:
            return self.root.expanduser().absolute()
        state = os.environ.get("XDG_STATE_HOME", "")
        # The XDG specification: a relative path there is invalid and to be ignored.
        base = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
        return base / "podbridge" / "process"
