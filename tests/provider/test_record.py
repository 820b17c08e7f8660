"""What a record tells of a pod whose backend looks after its containers by itself."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.provider.record import Record
from bridge.workload import (
    Container,
    ContainerState,
    ExecAction,
    Identity,
    Observed,
    Probe,
    Role,
    Running,
    Workload,
)

WHO = Identity("c", "n", "d", "p", "u")
PROBE = Probe(ExecAction(("true",)))


@pytest.mark.parametrize("own", [True, False])
def test_what_the_backend_says_of_probes_and_hooks_is_told_as_it_is(own: bool) -> None:
    container = replace(
        Container("m", Role.MAIN, "i"),
        startup_probe=PROBE,
        readiness_probe=PROBE,
        post_start=ExecAction(("true",)),
    )
    state = ContainerState("m", Running(1.0), started=True, ready=True)
    backend: Any = SimpleNamespace(name="b", containers=None if own else object())
    record = Record(WHO, backend=backend, workload=Workload(WHO, (container,)))
    record.observed = Observed(WHO, (state,))
    (told,) = record.to_wire().containers
    if own:
        assert told.HasField("running")
        assert told.started
        assert told.ready
    else:
        # Nobody has run its hook yet.
        assert told.HasField("waiting")
