"""Container groups on the simulated Azure, by Azure's own SDK."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from azure_kit import RG, Aci, group, running, shell

pytestmark = pytest.mark.slow


@pytest.fixture
def aci() -> Iterator[Aci]:
    with running() as cloud:
        yield Aci(cloud)


def test_the_plain_life_cycle(aci: Aci) -> None:
    made = aci.put(group(shell("echo hello; sleep 60")))
    assert made.provisioning_state == "Succeeded"
    assert made.instance_view.state == "Running"
    assert [one.name for one in aci.groups.list()] == ["one"]
    state = aci.get().containers[0].instance_view.current_state
    assert state.state == "Running"
    deleted = aci.groups.begin_delete(RG, "one")
    deleted.result()
    assert list(aci.groups.list()) == []
