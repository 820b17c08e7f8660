"""A place for `engine` adapters that have the helper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from contract import is_running, until
from engine_kit import EngineBench
from support import helper_program
from support.channels import PATIENCE

from adapters.engine import Options, make
from adapters.engine.deprived import Deprived
from bridge.workload import ContainerState, Exit, HelperUse, Identity, Observed, Running, Workload


class DeprivedBench(EngineBench):
    """The same place, with adapters that have the helper."""

    caught = 0

    def __init__(self, address: str, state: Path) -> None:
        super().__init__(address)
        self.state = state

    async def adapter(self, address: str = "", **more: Any) -> Any:
        options = Options(
            host=address or self.address,
            owner=self.owner,
            helper_state=str(self.state),
            **{"helper": HelperUse.ALWAYS, **more},
        )
        made = make("engine", options)
        await made.open()
        self._made.append(made)  # type: ignore[arg-type]
        assert isinstance(made, Deprived)
        return made

    async def launch(self, adapter: Any, pod: Workload) -> None:
        """A group begins by itself, and takes its time."""
        await adapter.run(pod)
        await until(adapter, pod.identity, has_begun)

    async def reachable(self, adapter: Any, who: Identity) -> None:
        """Its helpers come back by themselves."""
        await until(adapter, who, says_started)
        # That was told by `watch`; its `run` may be a moment later.
        assert await adapter._hosting._tunnels.arrival(who, "main", PATIENCE)


def says_started(observed: Observed) -> bool:
    """Whether the helper itself says so, and not the engine alone."""
    return is_running(observed) and observed.containers[0].started is True


def has_begun(observed: Observed) -> bool:
    """Whether each container has ended, or its helper says that it runs."""
    return all(isinstance(one.state, Exit) or says_running(one) for one in observed.containers)


def says_running(one: ContainerState) -> bool:
    return isinstance(one.state, Running) and one.started is not None


@pytest.fixture(scope="module", autouse=True)
def helper() -> None:
    """The program, built where it is not yet."""
    helper_program.built()
