"""The part of the bench with a cloud: Fargate, simulated with the limits that AWS documents.

The simulator is a process of its own that runs no containers (`--run-on null`): what is measured
is the provider, which is another process and is asked over gRPC.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_kit import (
    LIMIT,
    PODBRIDGE,
    Figure,
    NotHere,
    Pods,
    cpu,
    in_loop,
    memory,
    serving,
    until_serving,
)

from bridge.provider.backend import LIST_EVERY
from bridge.rpc.client import RemoteProvider

PODS = 1000
UNHEARD = 200
"""Pods whose ends no event tells of."""
MANY = 5000
BURST, A_SECOND = 20, 20
"""RunTask's documented bucket, which nothing can go beyond."""
READS_A_SECOND = 20
"""DescribeTasks and ListTasks together, by AWS's documentation."""
SEARCHED_EVERY = 300.0
"""Seconds: the option `discover` as it is by default."""
QUIET_FOR = 60.0
"""Seconds: six passes over what is known."""
_SHORT, _LONG = ("sleep", "5"), ("sleep", "86400")


@dataclass
class Account:
    """A simulated account, and a provider with it as its backend."""

    endpoint: str
    provider: RemoteProvider
    process: subprocess.Popen[bytes]
    options: Mapping[str, Any]

    def ledger(self) -> dict[str, Any]:
        """The simulator's own account of all calls."""
        with urllib.request.urlopen(f"{self.endpoint}/_podbridge/ledger", timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def calls(self, action: str) -> int:
        """How many calls of that action there were."""
        return int(self.ledger()["calls"]["byAction"].get(action, 0))

    def tasks(self) -> list[dict[str, Any]]:
        """All tasks as ECS describes them; asked for past the provider's budget."""
        import boto3  # noqa: PLC0415 - heavy

        ecs = boto3.session.Session("bench", "bench", region_name="us-east-1").client(
            "ecs", endpoint_url=self.endpoint
        )
        pages = [
            ecs.get_paginator("list_tasks").paginate(
                cluster=self.options["cluster"], desiredStatus=status
            )
            for status in ("RUNNING", "STOPPED")
        ]
        arns = [arn for page in pages for one in page for arn in one["taskArns"]]
        found = []
        for at in range(0, len(arns), 100):
            some = arns[at : at + 100]
            answer = ecs.describe_tasks(
                cluster=self.options["cluster"], tasks=some, include=["TAGS"]
            )
            found += answer["tasks"]
        ecs.close()
        return found


def fargate(environment: Mapping[str, str], home: Path) -> Iterator[Figure]:
    """A thousand pods of one Job, some of whose ends nobody tells, and five thousand that run
    quietly."""
    try:
        import boto3  # noqa: F401, PLC0415 - only whether it is there
    except ModuleNotFoundError:
        raise NotHere("boto3 is not installed: install podbridge with its extra aws") from None
    yield from _thousand(environment, home)
    yield from _unheard(environment, home)
    yield from _quiet(environment, home)


def _thousand(environment: Mapping[str, str], home: Path) -> Iterator[Figure]:
    (place := home / "fargate").mkdir()
    with _account(environment, place, PODS) as account:
        delays = in_loop(_run_all(account, PODS))
        tasks = account.tasks()
        created = sorted(one["createdAt"].timestamp() for one in tasks)
        ledger = account.ledger()["calls"]
    best = (PODS - BURST) / A_SECOND
    took = created[-1] - created[0]
    count = ledger["byAction"]
    yield Figure(f"fargate (simulated): {len(tasks)} pods launched", took, "s", 1.1 * best)
    yield Figure("  the best that AWS's buckets allow", best, "s")
    throttled = sum(one for name, one in ledger["throttled"].items() if "List" not in name)
    yield Figure("  throttled calls", throttled, "", 0)
    yield Figure("  registrations", count.get("ecs:RegisterTaskDefinition", 0), "", 1)
    writes = ("RunTask", "StopTask", "RegisterTaskDefinition", "TagResource")
    each = sum(count.get(f"ecs:{name}", 0) for name in writes) / PODS
    yield Figure("  ECS writes a pod", each, "", 1.05)
    yield from _ends("stopped container to the pod's end", delays, 2)


def _unheard(environment: Mapping[str, str], home: Path) -> Iterator[Figure]:
    """Without events and without helpers only the next list tells of an end."""
    (place := home / "fargate-unheard").mkdir()
    with _account(environment, place, UNHEARD, queue_url="") as account:
        delays = in_loop(_run_all(account, UNHEARD))
    yield from _ends("the same without events and tunnel", delays, LIST_EVERY + 2)


def _ends(name: str, delays: list[float], target: float) -> Iterator[Figure]:
    ordered = sorted(delays)
    note = f"{len(ordered)} pods"
    yield Figure(f"  {name}, p50", ordered[len(ordered) // 2], "s")
    at = max(0, math.ceil(len(ordered) * 0.99) - 1)
    yield Figure(f"  {name}, p99", ordered[at], "s", target, note=note)


async def _run_all(account: Account, number: int) -> list[float]:
    """Runs all pods to their end; seconds from each one's last container to the end being told."""
    pods = Pods(account.provider)
    ends: dict[str, float] = {}

    def over(pod: Any) -> bool:
        is_over = bool(pod.containers) and all(one.HasField("terminated") for one in pod.containers)
        if is_over:
            ends.setdefault(pod.pod.uid, time.time())
        return is_over

    async with asyncio.timeout(300):
        await until_serving(account.provider, pods.cluster)
        # The first end while others are still on their way in.
        await asyncio.gather(
            pods.start(number, "example/image", _SHORT), pods.until(over, number=number)
        )
    stopped = {
        _uid(one): one["executionStoppedAt"].timestamp()
        for one in await asyncio.to_thread(account.tasks)
        if one.get("executionStoppedAt")
    }
    return [at - stopped[uid] for uid, at in ends.items() if uid in stopped]


def _uid(task: Mapping[str, Any]) -> str:
    tags = {one["key"]: one["value"] for one in task.get("tags", ())}
    return str(tags.get("podbridge.io/uid", ""))


def _quiet(environment: Mapping[str, str], home: Path) -> Iterator[Figure]:
    (place := home / "fargate-quiet").mkdir()
    with _account(environment, place, MANY) as account:
        share, size, described = in_loop(_rest(account))
        first, later = in_loop(_searches(account))
    yield Figure(f"provider with {MANY} running tasks, quiet", share, "% of a core", 10)
    yield Figure("  its memory", size / 1e6, "MB", 250)
    described = described * 60 / QUIET_FOR
    yield Figure("  DescribeTasks a minute", described, "")
    yield Figure("  ListTasks for a search for all tasks", later["ListTasks"], "")
    reads = first["ListTasks"] + first["DescribeTasks"]
    note = f"{first['GetObject']} orders are read as well"
    yield Figure("  the same and DescribeTasks, of who knows none", reads, "", note=note)
    reads = described + later["ListTasks"] * 60 / SEARCHED_EVERY
    note = f"AWS gives {60 * READS_A_SECOND}"
    yield Figure("  tokens for reads of tasks a minute", reads, "", note=note)


async def _rest(account: Account) -> tuple[float, float, int]:
    pods = Pods(account.provider)
    async with asyncio.timeout(600):
        await pods.run(MANY, "example/image", _LONG)
    await asyncio.sleep(20)
    before, calls = cpu(account.process.pid), account.calls("ecs:DescribeTasks")
    await asyncio.sleep(QUIET_FOR)
    spent = cpu(account.process.pid) - before
    described = account.calls("ecs:DescribeTasks") - calls
    return 100 * spent / QUIET_FOR, memory(account.process.pid), described


async def _searches(account: Account) -> tuple[Counter[str], Counter[str]]:
    """The calls that it takes to find all tasks: for who knows none, and for who knows them all. It
    is done by somebody who only looks."""
    from adapters.fargate import Adapter, Options  # noqa: PLC0415 - heavy

    adapter = Adapter("fargate", Options(**account.options))
    calls: Counter[str] = Counter()

    def count(model: Any, **_: Any) -> None:
        calls[model.name] += 1

    adapter._clients.prepare = lambda session: session.events.register("before-call", count)
    adapter.only_look()
    await adapter.open()
    try:
        found = await adapter.list()
        if len(found) < MANY:
            raise RuntimeError(f"{len(found)} of {MANY} pods were found")
        first = calls.copy()
        await adapter._discovery.discover(now=True)
        return first, calls - first
    finally:
        await adapter.close()


@contextlib.contextmanager
def _account(
    environment: Mapping[str, str], place: Path, pods: int, **more: Any
) -> Iterator[Account]:
    """An account with AWS's documented buckets, and room for so many pods. `more`: options."""
    scenario = place / "scenario.yaml"
    # A subnet has 251 addresses where none is named.
    subnets = dict.fromkeys(("subnet-0123456789abcdef0", "subnet-0123456789abcdef1"), 2 * MANY)
    scenario.write_text(json.dumps({"fargate_vcpus": MANY, "subnets": subnets}))
    simulate = [*PODBRIDGE, "simulate", "aws", "--run-on", "null", "--scenario", str(scenario)]
    said = place / "simulator.json"
    with (
        said.open("wb") as out,
        serving([*simulate, "-o", "json"], environment, out=out),
    ):
        endpoint = _endpoint(said)
        options = in_loop(_furnished(endpoint, place)) | more
        backend = {"name": "fargate", "type": "fargate", "max_pods": pods, **options}
        config = place / "podbridge.yaml"
        config.write_text(json.dumps({"apiVersion": "podbridge.io/v1", "backends": [backend]}))
        address = f"unix://{place}/p.sock"
        command = [*PODBRIDGE, "--config", str(config), "provider", "--listen", address]
        with serving(command, environment) as process:
            provider = RemoteProvider(address)
            try:
                yield Account(endpoint, provider, process, options)
            finally:
                in_loop(provider.close())


def _endpoint(said: Path) -> str:
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        with contextlib.suppress(ValueError, KeyError):
            return str(json.loads(said.read_text())["endpoint"])
        time.sleep(0.05)
    raise RuntimeError("the simulator does not say where it is")


async def _furnished(endpoint: str, place: Path) -> dict[str, Any]:
    from adapters.fargate import furnish  # noqa: PLC0415 - heavy

    found = await furnish(endpoint, {"AWS_REGION": "us-east-1"}, "process")
    return {**found, "helper": "never", "helper_state": str(place / "helper")}
