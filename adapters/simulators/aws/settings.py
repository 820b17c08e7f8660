"""What a simulated account is like: limits, times, subnets, faults. All of it may be left out.

The same models read scenario files and the control API.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from adapters.simulators.common.settings import Bucket, Chance, Model

__all__ = ["Bucket", "Fault", "Settings", "Timing"]

_EVENT_KINDS = ("repeat-event", "late-event")


class Fault(Chance):
    """One thing that is to go wrong."""

    subject: ClassVar[str] = "task"
    kind: Literal[
        "throttle",
        "error",
        "lost",
        "delay",
        "stale",
        "no-capacity",
        "stuck-provisioning",
        "never-starts",
        "spot-reclaim",
        "vanish",
        "empty-page",
        "expired-token",
        "repeat-event",
        "late-event",
    ]
    """`throttle`, `error`, `lost`, `delay` and `expired-token` befall calls, `empty-page` the pages
    of GetLogEvents, `repeat-event` and `late-event` what EventBridge delivers; the others befall
    tasks that RunTask launches."""
    service: str = "ecs"
    """By the name of botocore's data; `*`: any."""
    action: str = "*"
    """The operation; `*`: any. Kinds that befall tasks are those of RunTask in any case."""
    seconds: float = Field(default=0.0, ge=0)
    """Of the cloud's: how long `delay` holds a call up, how long a `stale` task is not seen, when
    after the launch `spot-reclaim` and `vanish` come, how late a `late-event` is, and how long
    after itself a `repeat-event` comes again."""
    task: str = ""
    """For `spot-reclaim` and `vanish`, by the control API: a task that is there already, by ID or
    ARN; `seconds` count from now."""
    key: str = ""
    """For `expired-token`: the access key that has expired. Default: whoever calls."""
    flavour: Literal["rate", "concurrent-revision", "ec2"] = "rate"
    """Which throttle: ThrottlingException, or one of the two that the SDK does not know."""
    status: int = Field(default=500, ge=500, le=599)
    """HTTP status of `error`."""

    @property
    def befalls_tasks(self) -> bool:
        """Whether it is about tasks."""
        return not self.befalls_calls and self.kind not in (*_EVENT_KINDS, "empty-page")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Fault:
        if self.task and self.kind not in ("spot-reclaim", "vanish"):
            raise ValueError(f"task is for kinds spot-reclaim and vanish, found {self.kind}")
        if self.flavour != "rate" and self.kind != "throttle":
            raise ValueError(f"flavour is for kind throttle, found kind {self.kind}")
        if self.key and self.kind != "expired-token":
            raise ValueError(f"key is for kind expired-token, found kind {self.kind}")
        return self


class Timing(Model):
    """How long the parts of a task's life take, in seconds of the cloud's. The defaults are what
    users of Fargate commonly report: about half a minute to RUNNING."""

    provisioning: float = Field(default=12.0, ge=0)
    pulling: float = Field(default=12.0, ge=0)
    """The time of PENDING that the image's download takes; a real engine's own comes on top."""
    activating: float = Field(default=1.0, ge=0)
    deactivating: float = Field(default=1.0, ge=0)
    deprovisioning: float = Field(default=10.0, ge=0)
    stuck: float = Field(default=1800.0, ge=0)
    """How long a task that cannot be placed stays PROVISIONING."""
    retention: float = Field(default=3600.0, gt=0)
    """How long a stopped task can be described."""
    spot_notice: float = Field(default=120.0, ge=0)
    """From the warning of a reclaim to the stop."""


class Settings(Model):
    """An account and what befalls it."""

    region: str = Field(default="us-east-1", pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")
    """Where the account is: signatures for another region are refused."""
    seed: int = 0
    """Of everything that is by chance."""
    fargate_vcpus: float = Field(default=6.0, ge=0)
    """The quota of on-demand vCPUs (L-3032A538); AWS's default."""
    fargate_spot_vcpus: float = Field(default=6.0, ge=0)
    """The quota of Spot vCPUs (L-36FBB829); AWS's default."""
    subnets: dict[str, int] = Field(default_factory=dict)
    """Free addresses by subnet ID. None: each well-formed ID is a subnet with 251."""
    buckets: dict[str, Bucket] = Field(default_factory=dict)
    """Over the documented ones, by their names."""
    timing: Timing = Timing()
    faults: list[Fault] = Field(default_factory=list)
