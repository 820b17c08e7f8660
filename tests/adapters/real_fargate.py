"""`fargate` on an account, by `python -m tools.real aws`: its plugin gives `account`.

Without the helper, one container a task, as in test_fargate_bare.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import contract
import pytest
from contract import Bench, Contract, container, exit_of, find, log, until, workload

from bridge.workload import Container, Identity, Workload
from tools.real import work
from tools.real.account import Watched


class AccountBench(Bench):
    """The account, and in it what is of one owner."""

    at_once = 143
    """ECS has no such stop: a signal goes first."""

    def __init__(self, account: Any) -> None:
        self._account = account
        self._made: list[Watched] = []

    async def adapter(self) -> Watched:
        made: Watched = self._account.adapter()
        await made.open()
        self._made.append(made)
        return made

    async def close(self) -> None:
        """All that a test has left is billed on: it goes before the next one begins."""
        try:
            if self._made:
                # Another one: that of the test may be anything by now.
                last = await self.adapter()
                async with asyncio.timeout(self._account.patience):
                    found = await last.list()
                    await asyncio.gather(*(last.delete(one.identity) for one in found))
        finally:
            for one in self._made:
                await one.close()

    async def vanish(self, adapter: Any, who: Identity) -> None:
        raise AssertionError("ECS lets no task vanish: whoever needs that is not run here")

    def endless(self) -> Workload:
        return self._bounded(container(*work.command()))

    def brief(self, code: int = 0) -> Workload:
        return self._bounded(container("sh", "-c", f"exit {code}"))

    def _bounded(self, one: Container) -> Workload:
        return workload(one, hard_stop=float(work.LIFE), grace=work.GRACE)

    async def leftovers(self, who: Identity) -> Sequence[str]:
        return await (await self.adapter()).left()


@pytest.fixture
async def bench(account: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AccountBench]:
    monkeypatch.setattr(contract, "IMAGE", account.image)
    monkeypatch.setattr(contract, "PACE", account.pace)
    monkeypatch.setattr(contract, "PATIENCE", account.patience)
    made = AccountBench(account)
    yield made
    await made.close()


class TestAccount(Contract):
    async def test_vanishes_remotely(self, bench: Bench) -> None:
        pytest.skip("only a simulator can let a task vanish: ECS keeps one for an hour")

    async def test_a_pod_runs_to_its_end(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        script = "for i in 1 2 3; do echo line $i; done; exit 7"
        pod = workload(container("sh", "-c", script), hard_stop=float(work.LIFE))
        assert adapter.check(pod) == []
        await adapter.run(pod)
        end = await exit_of(adapter, pod.identity)
        assert (end.code, end.reason, end.signal) == (7, "Error", 0)
        await until(adapter, pod.identity, lambda one: one.ended)
        assert await log(adapter, pod.identity) == b"line 1\nline 2\nline 3\n"
        await adapter.delete(pod.identity)
        assert await find(adapter, pod.identity) is None
        assert list(await bench.leftovers(pod.identity)) == []
