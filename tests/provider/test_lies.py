"""What a helper that lies can do to others: nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support import virtual
from test_provider import CLUSTER, a_pod, asked, cloud, serving

from bridge.errors import Invalid
from bridge.helper.record import parse
from bridge.workload import ContainerState, Exit, Identity, Observed

WHO = Identity(CLUSTER, "n", "evil", "evil", "uid-evil", 0)


def said(**end: Any) -> bytes:
    """A record of a container that runs again after that end."""
    previous = {"code": 1, "reason": "Error", "finished_at": 5.0, **end}
    one = {"name": "c", "state": "running", "since": 6.0, "restart": 1, "started": True}
    containers = [{**one, "ready": True, "previous": previous}]
    whole = {"uid": "uid-evil", "attempt": 0, "by": "watch", "at": 9.0, "failed": False}
    return json.dumps({**whole, "containers": containers}).encode()


@pytest.mark.parametrize("lie", [{"code": 1 << 40}, {"code": -1}, {"signal": 1 << 40}])
def test_numbers_that_no_container_has_make_no_record(lie: Any) -> None:
    assert parse(said(), WHO) is not None
    with pytest.raises(Invalid, match="makes no sense"):
        parse(said(**lie), WHO)


def test_words_that_no_encoding_has_and_endless_ones_are_cut() -> None:
    record = parse(said(message="\ud800" + "x" * 100_000), WHO)
    assert record is not None
    end = record.containers[0].previous
    assert end is not None
    assert end.message.startswith("?x")
    assert len(end.message.encode()) <= 8192


def test_what_cannot_be_told_of_one_pod_keeps_no_other_from_being_told_of() -> None:
    async def story() -> None:
        sky = cloud(c0=(5, 0))
        lie = ContainerState("c", Exit(1 << 40, 5.0))
        sky.pods[WHO.key] = Observed(WHO, (lie,), accepted_at=1.0)
        async with serving(sky) as (provider, _):
            await asyncio.sleep(120)
            (backend,) = provider._tracker.backends.values()
            assert backend.synced.is_set()
            await provider.create_pod(asked(a_pod()))
            await asyncio.sleep(600)
            assert sky.launches == ["one"]

    virtual.run(story())
