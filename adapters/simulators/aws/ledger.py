"""Who called what, when and with which answer; and what it would have cost. Never any values."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.simulators.aws import prices
from adapters.simulators.aws.ecs.records import Task
from adapters.simulators.aws.shapes import Json
from adapters.simulators.common.clock import Clock
from adapters.simulators.common.ledger import Calls

_THROTTLES = ("ThrottlingException", "RequestThrottled", "SlowDown")


@dataclass(frozen=True, slots=True)
class Bill:
    """What one task would have cost."""

    task: str
    kind: str
    vcpu_seconds: float
    gigabyte_seconds: float
    dollars: float


class Ledger(Calls):
    """Everything since the start."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._tasks: dict[str, Task] = {}

    def note(self, action: str, caller: str, code: str, message: str) -> None:
        """One call, as `ecs:RunTask`; `code` is that of its error, empty where it succeeded."""
        throttled = (
            code in _THROTTLES or "Too many concurrent" in message or "Throttling" in message
        )
        self.count(action, caller, code, throttled=throttled)

    def task(self, task: Task) -> None:
        """A task that was launched."""
        self._tasks[task.id] = task

    def bill(self, task: Task) -> Bill | None:
        """From the start of the image's download to the end of the task; None: neither began."""
        begun = task.moments.get("pullStartedAt")
        if begun is None:
            return None
        end = task.moments.get("stoppedAt", self._clock.now())
        seconds = max(prices.MINIMUM, (end - begun) * self._clock.scale)
        architecture = task.definition.get("runtimePlatform", {}).get("cpuArchitecture", "X86_64")
        kind = "spot" if task.is_spot else str(architecture)
        vcpu, memory = task.cpu / 1024 * seconds, task.memory / 1024 * seconds
        storage = max(0, task.storage - prices.FREE_STORAGE) * seconds
        dollars = prices.cost(kind, vcpu, memory, storage)
        return Bill(task.id, kind, round(vcpu, 3), round(memory, 3), round(dollars, 8))

    def as_json(self) -> Json:
        """For the control API."""
        bills = [one for task in self._tasks.values() if (one := self.bill(task)) is not None]
        return {
            "calls": self.calls(),
            "tasks": [
                {
                    "task": one.task,
                    "kind": one.kind,
                    "vcpuSeconds": one.vcpu_seconds,
                    "gigabyteSeconds": one.gigabyte_seconds,
                    "dollars": one.dollars,
                }
                for one in bills
            ],
            "billed": {
                "vcpuSeconds": round(sum(one.vcpu_seconds for one in bills), 3),
                "gigabyteSeconds": round(sum(one.gigabyte_seconds for one in bills), 3),
                "dollars": round(sum(one.dollars for one in bills), 8),
                "pricesOf": prices.REGION,
                "pricesReadOn": prices.READ_ON,
                "simulated": True,
            },
        }
