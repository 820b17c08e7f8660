"""Providers that hardly are any: nothing hangs, and what is wrong is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from bridge.conformance import Report, Settings, checks, judge
from bridge.errors import Unavailable
from bridge.rpc.v1 import provider_pb2_grpc


class Silent(provider_pb2_grpc.ProviderServicer):
    """Takes every call and answers none."""

    async def _never(self, request: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    async def _nothing(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield None

    CreatePod = DeletePod = UpdatePod = AckPods = GetStats = _never
    WatchPods = WatchNode = GetContainerLogs = _nothing


@asynccontextmanager
async def listening(address: str, servicer: Any = None) -> AsyncIterator[None]:
    server = grpc.aio.server()
    if servicer is not None:
        provider_pb2_grpc.add_ProviderServicer_to_server(servicer, server)
    server.add_insecure_port(address)
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)


async def some(address: str, *ids: str, timeout: float) -> Report:
    chosen = [one for one in checks() if one.id in ids]
    return await judge(address, chosen, Settings(timeout=timeout))


async def test_who_never_answers_fails_each_check_in_its_time(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/s"
    loop = asyncio.get_running_loop()
    async with listening(address, Silent()):
        began = loop.time()
        report = await some(address, "create.idempotent", "watch.sync", "logs.tail", timeout=0.3)
        assert loop.time() - began < 10
    told = {one.check.id: one for one in report.results}
    assert told["create.idempotent"].expected == "CreatePod accepts the pod, within 0.3 s"
    assert told["watch.sync"].outcome == "FAIL"
    assert told["logs.tail"].reason == "WatchNode tells no backend with the ability logs"
    assert [one.partition(":")[0] for one in report.left] == ["create.idempotent"]


async def test_who_serves_nothing_fails_with_its_own_status(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/s"
    async with listening(address):
        report = await some(address, "service.health", "service.offer", "watch.sync", timeout=5.0)
    assert [one.outcome for one in report.results] == ["FAIL"] * 3
    assert all("UNIMPLEMENTED" in one.seen or "Unsupported" in one.seen for one in report.results)


async def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        await some(f"unix://{tmp_path}/nobody", "watch.sync", timeout=5.0)
