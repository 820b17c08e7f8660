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
    Notice,
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


def notice(at: float, words: str, container: str = "m") -> Notice:
    return Notice(at, "Unhealthy", words, container, warning=True)


def told(record: Record) -> list[str]:
    return [one.message for one in record.to_wire().notices]


def test_what_a_backend_noticed_is_told_once() -> None:
    record = Record(WHO)
    first, second = notice(5.0, "one"), notice(6.0, "two")
    record.take_notices(Observed(WHO, notices=(first,)), 0.0)
    record.take_notices(Observed(WHO, notices=(first, second)), 0.0)
    # Its helper was away meanwhile, and tells what it told before.
    record.take_notices(Observed(WHO), 0.0)
    record.take_notices(Observed(WHO, notices=(first, second)), 0.0)
    assert told(record) == ["one", "two"]
    record.take_notices(Observed(WHO, notices=(second, notice(4.0, "three", "other"))), 0.0)
    assert told(record) == ["one", "two", "three"]
    times = [one.time.seconds + one.time.nanos / 1e9 for one in record.to_wire().notices]
    assert times == sorted({*times})


def test_what_was_noticed_before_this_provider_began_is_not_told_again() -> None:
    record = Record(WHO)
    seen = Observed(WHO, notices=(notice(5.0, "one"), notice(6.0, "two"), notice(8.0, "three")))
    record.take_notices(seen, 6.0)
    assert told(record) == ["three"]
