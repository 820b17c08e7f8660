"""What containers use, read from the host's processes when somebody asks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from adapters.process.keeper import tree
from adapters.process.store import Store
from bridge.adapter import Usage
from bridge.workload import Identity


def usage(store: Store, identities: Sequence[Identity]) -> Mapping[str, Sequence[Usage]]:
    """By pod UID, the containers that run. Each keeper's descendants are one container."""
    keepers: dict[int, tuple[str, str]] = {}
    for identity in identities:
        for container, runs in store.runs(store.folder(identity)).items():
            for run in runs:
                if (keeper := run.keeper()) is not None:
                    keepers[keeper] = (identity.uid, container)
    now = time.time()
    found: dict[str, list[Usage]] = {}
    for keeper, (cpu, memory) in tree.usage(keepers).items():
        uid, container = keepers[keeper]
        one = Usage(container, now, cpu_nanoseconds=cpu, memory_bytes=memory)
        found.setdefault(uid, []).append(one)
    return found
