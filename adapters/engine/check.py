"""What of a workload this engine cannot do, for reasons that no table of fields can say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adapters.engine import mounts
from adapters.engine.client import Engine
from bridge.errors import Violation
from bridge.workload import Workload

_RESOURCES = frozenset({"cpu", "memory", "ephemeral-storage"})
"""The last one is what the engine's disk has; nothing there can be limited."""


LONGEST_PATH = 4095
"""Bytes of a path that Linux takes (PATH_MAX without its end). Runtimes quote a longer one in an
error that is longer than a pipe, and then stand still, with the engine behind them."""
TOO_LONG = "file name too long"

_IN_THE_OPEN = (
    "holds a Secret's value, and the process list shows it to every user of this host:"
    " pass it by env or a file"
)


def check(workload: Workload, engine: Engine) -> Sequence[Violation]:
    """What is wrong with it here. Pure but for looks at the host itself."""
    return [*mounts.problems(engine, workload), *_containers(workload)]


def _containers(workload: Workload) -> Iterator[Violation]:
    for path, one in workload.paths():
        for word in one.secret_words:
            yield Violation(f"{path}.{word}", _IN_THE_OPEN)
        for name in sorted({*one.resources.limits, *one.resources.requests} - _RESOURCES):
            yield Violation(
                f"{path}.resources",
                f"{name}: this engine gives cpu and memory, and no such resource",
            )
        if len(one.working_dir.encode()) > LONGEST_PATH:
            words = f"found {len(one.working_dir.encode())} bytes; allowed: at most {LONGEST_PATH}"
            yield Violation(f"{path}.workingDir", words)
        if one.security.seccomp not in ("", "RuntimeDefault", "Unconfined"):
            yield Violation(
                f"{path}.securityContext.seccompProfile.localhostProfile",
                "there is no folder of seccomp profiles here: use RuntimeDefault or Unconfined",
            )
