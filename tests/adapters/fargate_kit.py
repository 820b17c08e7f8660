"""A place for `fargate` adapters: an AWS simulator of their own, spoken to over its socket."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contract import Bench, container, is_running, until, workload
from process_kit import ECHO
from support import helper_program
from support.channels import PATIENCE, soon

from adapters.fargate import Adapter, Options, furnish
from adapters.simulators.aws import Settings, Simulator
from bridge.workload import Container, Exit, HelperUse, Identity, Observed, Running, Workload

SCALE = 200.0
"""A time scale at which a task is up within a quarter of a second."""


class Cloud:
    """A simulator, and what a backend needs in its account."""

    def __init__(self, settings: Settings | None = None, scale: float = SCALE) -> None:
        self._settings = settings
        self._scale = scale
        self._stack = AsyncExitStack()
        self.simulator: Simulator
        self.options: Mapping[str, Any] = {}

    async def open(self) -> None:
        made = Simulator(self._settings, time_scale=self._scale, run_on="process")
        self.simulator = await self._stack.enter_async_context(made)
        environment = {"AWS_REGION": "us-east-1"}
        self.options = await furnish(self.simulator.endpoint, environment, "process")

    async def close(self) -> None:
        await self._stack.aclose()
        assert self.simulator.broken == []

    async def control(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        url = f"{self.simulator.endpoint}/_podbridge/{path}"

        def ask() -> Any:
            request = urllib.request.Request(url, data, method=method)
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)

        return await asyncio.to_thread(ask)

    async def fault(self, kind: str, **more: Any) -> str:
        answer = await self.control("POST", "faults", {"kind": kind, **more})
        return str(answer["id"])

    async def ledger(self) -> Any:
        return await self.control("GET", "ledger")


class FargateBench(Bench):
    """One account."""

    at_once = 143
    """ECS has no such stop: a signal goes first."""

    def __init__(self, state: Path, cloud: Cloud | None = None, **options: Any) -> None:
        self.cloud = cloud or Cloud()
        self.state = state
        self._made: list[Adapter] = []
        self.clock: Callable[[], float] = time.time
        """This machine's, for adapters that are made from then on."""
        self._options = {"helper": HelperUse.NEVER, "queue_url": "", **options}

    async def adapter(self, **more: Any) -> Adapter:
        if not self.cloud.options:
            await self.cloud.open()
        given = {
            **self.cloud.options,
            "helper_state": str(self.state),
            "poll": 0.1,
            "discover": 300,
            "threads": 4,
            **self._options,
            **more,
        }
        made = Adapter("fargate", Options(**given), clock=self.clock)
        await made.open()
        self._made.append(made)
        return made

    async def close(self) -> None:
        for one in self._made:
            await one.close()
        if self.cloud.options:
            await self.cloud.close()

    async def vanish(self, adapter: Any, who: Identity) -> None:
        pod = adapter._pods.of(who)
        await self.cloud.fault("vanish", task=pod.arn)

        async def is_gone() -> bool:
            return not await adapter._tasks.describe([pod.arn])

        await soon(is_gone)

    def endless(self) -> Workload:
        return workload(container("sleep", "1000"))

    def brief(self, code: int = 0) -> Workload:
        return workload(container("sh", "-c", f"exit {code}"))

    def port(self) -> int:
        """Tasks are processes of this host, and share its ports."""
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            return int(one.getsockname()[1])

    def echo(self, port: int) -> Container:
        return container(sys.executable, "-c", ECHO, str(port))

    async def leftovers(self, who: Identity) -> Sequence[str]:
        adapter = await self.adapter()
        running = await adapter._tasks._listed(desiredStatus="RUNNING")
        return [*running, *await adapter._store.marks(), *await adapter._store.payloads()]


class HelpedBench(FargateBench):
    """The same, with the helper in every pod."""

    def __init__(self, state: Path, cloud: Cloud | None = None, **options: Any) -> None:
        super().__init__(state, cloud, **{"helper": HelperUse.ALWAYS, **options})

    def is_told(self, observed: Observed) -> bool:
        """Its helper tells that it runs before ECS has said which container that is."""
        return is_running(observed) and bool(observed.containers[0].container_id)

    async def reachable(self, adapter: Any, who: Identity) -> None:
        """Its helpers come back by themselves."""
        await until(adapter, who, says_started)
        # That was told by `watch`; its `run` may be a moment later.
        assert await adapter._hosting._tunnels.arrival(who, "main", PATIENCE)


def has_begun(observed: Observed) -> bool:
    """Whether its container has ended, or its helper says that it runs."""
    (one,) = observed.containers
    return isinstance(one.state, Exit) or (
        isinstance(one.state, Running) and one.started is not None
    )


def says_started(observed: Observed) -> bool:
    """Whether the helper itself says so, and not ECS alone."""
    return is_running(observed) and observed.containers[0].started is True


@pytest.fixture(scope="module", autouse=True)
def helper() -> None:
    """The program, built where it is not yet."""
    helper_program.built()


def bare(pod: Workload) -> Workload:
    """The same, without the helper."""
    return replace(pod, helper=HelperUse.NEVER)


__all__ = ["Cloud", "FargateBench", "bare", "helper", "is_running", "until"]
