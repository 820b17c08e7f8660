"""`fargate` whose credentials expire, and whose clock is wrong."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contract import container, exit_of, find, is_running, until, workload
from fargate_kit import Cloud, FargateBench
from support.channels import soon

from adapters.fargate import clients
from adapters.fargate.clients import Clients
from bridge.errors import Unauthorized
from bridge.workload import Workload


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[FargateBench]:
    made = FargateBench(tmp_path)
    yield made
    await made.close()


def written(file: Path, key: str) -> None:
    """Whoever refreshes credentials puts a whole file in the place of the one before."""
    fresh = file.with_suffix(".new")
    fresh.write_text(
        f"[default]\naws_access_key_id = {key}\naws_secret_access_key = s\n"
        f"aws_session_token = t-{key}\n"
    )
    fresh.replace(file)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shared credentials file, read by the SDK's own chain."""
    file = tmp_path / "credentials"
    written(file, "old")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for one in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(one, raising=False)
    monkeypatch.setattr(clients, "credentials", lambda endpoint=None: {})
    # They may be looked for again at once.
    monkeypatch.setattr(clients, "_AGAIN", 0.0)
    return file


def once(path: Path, script: str) -> Workload:
    return workload(container("sh", "-c", f"echo ran >> {path}; {script}"))


@pytest.mark.slow
class TestExpired:
    async def test_credentials_that_were_replaced_are_used(self, shared: Path) -> None:
        cloud = Cloud()
        await cloud.open()
        made = Clients("us-east-1", cloud.simulator.endpoint, 4)
        sessions: list[Any] = []
        made.prepare = sessions.append
        calls = (
            ("ecs", "list_clusters", {}),
            ("s3", "head_bucket", {"Bucket": cloud.options["bucket"]}),
            ("sqs", "get_queue_attributes", {"QueueUrl": cloud.options["queue_url"]}),
            ("sts", "get_caller_identity", {}),
            ("logs", "describe_log_groups", {}),
        )
        try:
            for service, action, given in calls:
                await made.call(service, action, **given)
            before = made._current
            assert before is not None
            await cloud.fault("expired-token", service="*", key="old")
            with pytest.raises(Unauthorized, match="expired"):
                await made.call("ecs", "list_clusters")
            # Nothing else is there: the same clients go on.
            assert made._current is before
            written(shared, "new")
            threads = threading.active_count()
            await asyncio.gather(
                *(made.call(service, action, **given) for service, action, given in calls * 4)
            )
            assert made._current is not before
            assert len(sessions) == 2
            assert before.clients == {}
            assert threading.active_count() <= threads + 4
            callers = (await cloud.ledger())["calls"]["byCaller"]
            assert callers["new"] == len(calls) * 4
        finally:
            await made.close()
            await cloud.close()

    async def test_calls_of_old_clients_come_to_their_end(self, shared: Path) -> None:
        cloud = Cloud(scale=1)
        await cloud.open()
        made = Clients("us-east-1", cloud.simulator.endpoint, 4)
        try:
            await made.call("ecs", "list_clusters")
            before = made._current
            assert before is not None
            await cloud.fault("delay", action="DescribeClusters", seconds=1.0, times=1)
            slow = asyncio.create_task(
                made.call("ecs", "describe_clusters", clusters=["podbridge"])
            )

            async def under_way() -> bool:
                faults = (await cloud.control("GET", "faults"))["faults"]
                return bool(faults[0]["happened"])

            await soon(under_way)
            await cloud.fault("expired-token", action="ListClusters", key="old")
            written(shared, "new")
            await made.call("ecs", "list_clusters")
            assert made._current is not before
            assert before.clients
            assert (await slow)["clusters"]

            async def is_closed() -> bool:
                return not before.clients

            await soon(is_closed)
        finally:
            await made.close()
            await cloud.close()

    async def test_pods_run_on(self, bench: FargateBench, shared: Path, tmp_path: Path) -> None:
        """They expire while one pod runs and another is on its way; nobody replaces them at
        once."""
        await bench.cloud.open()
        adapter = await bench.adapter(queue_url=bench.cloud.options["queue_url"])
        go = tmp_path / "go"
        first = once(tmp_path / "first", f"until [ -e {go} ]; do sleep 0.05; done; exit 3")
        await adapter.run(first)
        await until(adapter, first.identity, is_running)
        await bench.cloud.fault("expired-token", service="*", key="old")
        second = once(tmp_path / "second", "exit 4")
        await adapter.run(second)
        go.touch()

        async def refused() -> bool:
            return sum((await bench.cloud.ledger())["calls"]["errors"].values()) >= 10

        await soon(refused)
        assert not (tmp_path / "second").exists()
        written(shared, "new")
        for pod, code in ((first, 3), (second, 4)):

            async def is_there(pod: Workload = pod) -> bool:
                try:
                    return await find(adapter, pod.identity) is not None
                except Unauthorized:
                    return False

            await soon(is_there)
            assert (await exit_of(adapter, pod.identity)).code == code
        for name in ("first", "second"):
            assert (tmp_path / name).read_text() == "ran\n"


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [600.0, -600.0])
async def test_a_wrong_clock_ends_a_pod_neither_early_nor_late(
    bench: FargateBench, tmp_path: Path, wrong: float
) -> None:
    bench.clock = lambda: time.time() + wrong
    adapter = await bench.adapter(start_deadline=30)
    assert abs(adapter._clients.now() - time.time()) < 5
    pod = replace(once(tmp_path / "ran", "exec sleep 1000"), hard_stop=3.0)
    await bench.cloud.fault("lost", action="RunTask", times=1)
    await adapter.run(pod)
    await until(adapter, pod.identity, is_running)
    began = time.monotonic()
    found = await until(adapter, pod.identity, lambda one: one.ended)
    assert found.reason == "DeadlineExceeded"
    assert 1.0 < time.monotonic() - began < 20
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert len(await adapter._tasks.all()) == 1
