"""The simulated AWS as the sky of the fault suite."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import boto3
from faults_kit import Sky, Trouble

from adapters.fargate import Options, furnish
from adapters.fargate.clients import SIMULATED
from adapters.simulators.aws import Fault, Settings, Simulator, Timing
from bridge.config import BackendConfig

HOUR = 3600.0
SCALE = 300.0
"""A time scale at which a task is up within a tenth of a second."""
WATCHER = "watcher"
"""The key of whoever looks from outside."""
_FAULTS: Mapping[Trouble, tuple[Mapping[str, Any], ...]] = {
    Trouble.THROTTLED: (
        {"kind": "throttle", "service": "*", "action": "*"},
        {"kind": "throttle", "action": "RunTask", "flavour": "ec2"},
        {"kind": "throttle", "action": "RegisterTaskDefinition", "flavour": "concurrent-revision"},
    ),
    Trouble.LOST: ({"kind": "lost", "service": "*", "action": "*"},),
    Trouble.BROKEN: ({"kind": "error", "service": "*", "action": "*"},),
    Trouble.SLOW: ({"kind": "delay", "service": "*", "action": "*", "seconds": 0.2 * SCALE},),
    Trouble.UNSEEN: ({"kind": "stale", "seconds": 0.5 * SCALE},),
    Trouble.FULL: ({"kind": "no-capacity"},),
    Trouble.STUCK: ({"kind": "never-starts"}, {"kind": "stuck-provisioning"}),
    Trouble.REPEATED: (
        {"kind": "repeat-event"},
        {"kind": "repeat-event", "seconds": 0.3 * SCALE},
    ),
    # A task's whole life takes less: its first event comes after its last.
    Trouble.UNORDERED: ({"kind": "late-event", "seconds": 0.5 * SCALE},),
    Trouble.EXPIRED: ({"kind": "expired-token", "service": "*", "key": SIMULATED},),
}


class FargateSky(Sky):
    """One account."""

    def __init__(self, path: Path, simulator: Simulator, options: Mapping[str, Any]) -> None:
        self.path = path
        self.simulator = simulator
        self.options = dict(options)

    def backend(self, **more: Any) -> BackendConfig:
        given = {
            "helper": "auto",
            **self.options,
            "helper_state": str(self.path / "helper"),
            "poll": 0.1,
            "discover": 1.0,
            "start_deadline": 3.0,
            "threads": 8,
            **more,
        }
        made = BackendConfig(name="fargate", type="fargate")
        return made.with_options(Options(**given))

    def trouble(self, what: Trouble, chance: float, times: int | None = None) -> None:
        for one in _FAULTS[what]:
            fault = Fault(**one, probability=chance, **({"times": times} if times else {}))
            self.simulator.account.faults.add(fault)

    def calm(self) -> None:
        self.simulator.account.faults.clear()

    def calls(self, hear: Callable[[str], None]) -> None:
        ledger = self.simulator.account.ledger
        note = ledger.note

        def noted(action: str, caller: str, code: str, message: str) -> None:
            note(action, caller, code, message)
            if caller not in ("awslogs", WATCHER):
                hear(action)

        ledger.note = noted  # type: ignore[method-assign]

    async def left(self) -> Sequence[str]:
        self.calm()
        return await asyncio.to_thread(self._left)

    @contextmanager
    def _client(self, service: str) -> Iterator[Any]:
        session = boto3.session.Session(WATCHER, WATCHER, region_name="us-east-1")
        made = session.client(service, endpoint_url=self.simulator.endpoint)
        try:
            yield made
        finally:
            made.close()

    def _left(self) -> Sequence[str]:
        with self._client("ecs") as ecs:
            tasks = ecs.list_tasks(cluster=self.options["cluster"])["taskArns"]
        with self._client("s3") as s3:
            objects = s3.list_objects_v2(Bucket=self.options["bucket"]).get("Contents", ())
        with self._client("secretsmanager") as secrets:
            # Those that are still to go for thirty days are billed, and told, as well.
            logins = secrets.list_secrets(IncludePlannedDeletion=True)["SecretList"]
        return [*tasks, *(one["Key"] for one in objects), *(one["Name"] for one in logins)]

    async def templates(self) -> int:
        return await asyncio.to_thread(self._definitions)

    def _definitions(self) -> int:
        with self._client("ecs") as ecs:
            return len(ecs.list_task_definitions(status="ACTIVE")["taskDefinitionArns"])

    def reads(self) -> int:
        """How many times the queue of events has been asked."""
        calls = self.simulator.account.ledger.as_json()["calls"]["byAction"]
        return int(calls.get("sqs:ReceiveMessage", 0))

    def launched(self) -> int:
        return len(self.simulator.account.ledger.as_json()["tasks"])

    def skip(self, seconds: float) -> None:
        """The clock of whoever comes is this machine's: orders are made so much older."""
        self.simulator.account.clock.skip(seconds)
        with self._client("s3") as s3:
            bucket = self.options["bucket"]
            for one in s3.list_objects_v2(Bucket=bucket).get("Contents", ()):
                if "/orders/" in one["Key"]:
                    with s3.get_object(Bucket=bucket, Key=one["Key"])["Body"] as body:
                        order = json.load(body)
                    for name in ("accepted_at", "asked_at"):
                        order[name] -= seconds
                    s3.put_object(Bucket=bucket, Key=one["Key"], Body=json.dumps(order))

    def reclaim(self, seconds: float, times: int) -> None:
        """So many of the next tasks on Spot are taken back so many real seconds after launch."""
        fault = Fault(kind="spot-reclaim", seconds=seconds * SCALE, times=times)
        self.simulator.account.faults.add(fault)

    def refused(self) -> int:
        """How many calls were answered with an error."""
        return sum(self.simulator.account.ledger.as_json()["calls"]["errors"].values())

    def stopped(self) -> int:
        """How many tasks have stopped, and can be described."""
        with self._client("ecs") as ecs:
            found = ecs.list_tasks(cluster=self.options["cluster"], desiredStatus="STOPPED")
        return len(found["taskArns"])

    def deregister(self) -> None:
        """Somebody else takes all task definitions away."""
        with self._client("ecs") as ecs:
            for arn in ecs.list_task_definitions()["taskDefinitionArns"]:
                ecs.deregister_task_definition(taskDefinition=arn)


@asynccontextmanager
async def fargate(path: Path, retention: float = HOUR * SCALE) -> AsyncIterator[FargateSky]:
    """A fresh account. `retention`: for how many of the cloud's seconds stopped tasks are there; by
    default for a real hour, as for whoever looks at them by this machine's clock."""
    timing = Timing(retention=retention)
    given = Settings(fargate_vcpus=1000, fargate_spot_vcpus=1000, timing=timing)
    async with Simulator(given, time_scale=SCALE, run_on="process") as simulator:
        options = await furnish(simulator.endpoint, simulator.environment, "process")
        yield FargateSky(path, simulator, options)
        assert simulator.broken == []
