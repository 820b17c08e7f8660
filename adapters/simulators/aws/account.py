"""One simulated account: every service, wired to the others."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence

from adapters.simulators.aws.buckets import LIMITS, Buckets
from adapters.simulators.aws.ecs.records import Task, event_detail
from adapters.simulators.aws.ecs.service import Ecs
from adapters.simulators.aws.ecs.tasks import Parts
from adapters.simulators.aws.ecs.world import World
from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.events import Events
from adapters.simulators.aws.faults import Faults, error_of
from adapters.simulators.aws.kms import Kms
from adapters.simulators.aws.ledger import Ledger
from adapters.simulators.aws.logs import Logs
from adapters.simulators.aws.names import Place
from adapters.simulators.aws.network import Network
from adapters.simulators.aws.quotas import Quotas
from adapters.simulators.aws.s3 import S3
from adapters.simulators.aws.secretsmanager import SecretsManager
from adapters.simulators.aws.service import Service
from adapters.simulators.aws.settings import Fault, Settings
from adapters.simulators.aws.shapes import Json
from adapters.simulators.aws.sqs import Sqs
from adapters.simulators.aws.ssm import Ssm
from adapters.simulators.aws.sts import Sts
from adapters.simulators.common.buckets import Limit
from adapters.simulators.common.clock import Clock
from adapters.simulators.common.running import Runner


class Account:
    """Everything behind the server. `base` says where the server is."""

    def __init__(
        self, settings: Settings, clock: Clock, runner: Runner, base: Callable[[], str]
    ) -> None:
        self.mistakes: list[str] = []
        """What only a mistake of the simulator's own can have caused."""
        self.place = Place(settings.region)
        self.clock = clock
        self.runner = runner
        self.faults = Faults(settings.seed, settings.faults)
        self.ledger = Ledger(clock)
        self.buckets = Buckets(clock, _limits(settings))
        self.ecs = Ecs(self.place, clock)
        self.logs = Logs(self.place, clock, self.faults.of_page)
        self.s3 = S3(self.place, clock)
        self.secrets = SecretsManager(self.place, clock)
        self.ssm = Ssm(self.place, clock, self._terminated)
        self.sqs = Sqs(self.place, clock, base)
        self.events = Events(self.place, clock, self.sqs.deliver, self.faults.of_event)
        everything: Sequence[Service] = (
            self.ecs,
            self.logs,
            self.s3,
            self.secrets,
            self.ssm,
            self.sqs,
            self.events,
            Sts(self.place),
            Quotas(self.place, settings),
            Kms(self.place, clock),
        )
        self.services: Mapping[str, Service] = {one.name: one for one in everything}
        world = World(
            owner=str(uuid.uuid4()),
            place=self.place,
            clock=clock,
            timing=settings.timing,
            network=Network(self.place.region, settings.subnets),
            runner=runner,
            stores=_Stores(self),
            sink=self._sink,
            changed=self._changed,
            ended=lambda task: None,
        )
        parts = Parts(
            clusters=self.ecs.clusters,
            definitions=self.ecs.definitions,
            buckets=self.buckets,
            faults=self.faults,
            settings=settings,
            mistakes=self.mistakes,
        )
        self.ecs.connect(parts, lambda: world, base)

    def told(self) -> Json:
        """The ledger, for the control API."""
        return self.ledger.as_json()

    def befall(self, fault: Fault) -> bool:
        """Befalls a task that is there; False: it is not."""
        return self.ecs.tasks.befall(fault.task, fault.kind, fault.seconds)

    async def close(self) -> None:
        """Ends all tasks."""
        await self.ecs.commands.sessions.close()
        await self.ecs.tasks.close()
        await self.events.close()

    def _terminated(self, session: str) -> None:
        self.ecs.commands.sessions.terminate(session)

    def _changed(self, task: Task) -> None:
        self.ledger.task(task)
        if not task.vanished and self.events.has_rules:
            self.events.send(
                "aws.ecs",
                "ECS Task State Change",
                [task.arn],
                event_detail(task, self.clock.now()),
            )

    async def _sink(self, group: str, stream: str, events: Sequence[tuple[int, str]]) -> None:
        """PutLogEvents of the awslogs driver: faults befall it as any other call."""
        code = message = ""
        try:
            for fault in self.faults.of_call("logs", "PutLogEvents"):
                if fault.kind == "delay":
                    await self.clock.sleep(fault.seconds)
                error = error_of(fault, "logs")
                if error is not None:
                    raise error
            self.logs.append(group, stream, events)
        except ApiError as error:
            code, message = error.code, error.message
            raise
        finally:
            self.ledger.note("logs:PutLogEvents", "awslogs", code, message)


class _Stores:
    """Where tasks fetch things from."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def secret(self, secret: str, stage: str, version: str) -> str:
        """A secret's text."""
        given = {"SecretId": secret}
        given |= {"VersionStage": stage} if stage else {}
        given |= {"VersionId": version} if version else {}
        found = self._account.secrets.get(given)
        if "SecretString" in found:
            return str(found["SecretString"])
        return bytes(found["SecretBinary"]).decode("utf-8", "replace")

    def parameter(self, name: str) -> str:
        """A parameter's value."""
        return self._account.ssm.value(name)

    def object(self, bucket: str, key: str) -> bytes:
        """An object's content."""
        return self._account.s3.content(bucket, key)

    def log_stream(self, group: str, stream: str, create_group: bool) -> None:
        """Makes a log stream."""
        self._account.logs.open_stream(group, stream, create_group)


def _limits(settings: Settings) -> dict[str, Limit]:
    own = {name: Limit(one.burst, one.per_second) for name, one in settings.buckets.items()}
    return {**LIMITS, **own}
