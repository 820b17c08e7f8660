"""What a simulated subscription is like: quotas, rates, times, faults. All of it may be left out.

The same models read scenario files and the control API. Sources of the defaults: "Resource
availability & quota limits for ACI" and "Understand how Azure Resource Manager throttles requests".
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from adapters.simulators.common.settings import Bucket, Chance, Model

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
TENANT = "00000000-0000-0000-0000-000000000002"
CLIENT = "00000000-0000-0000-0000-000000000003"
SECRET = "simulated"  # noqa: S105 - it opens nothing
LOCATIONS = ("eastus", "eastus2", "westus", "westus2", "northeurope", "westeurope", "uksouth")

_UUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
_Count = Annotated[int, Field(ge=0)]
_FLAVOURS = {"throttle": ("arm", "provider"), "no-capacity": ("refused", "fails")}


class Fault(Chance):
    """One thing that is to go wrong."""

    subject: ClassVar[str] = "group"
    kind: Literal[
        "throttle",
        "error",
        "lost",
        "delay",
        "expired-token",
        "stale",
        "no-capacity",
        "never-starts",
        "stays-running",
        "evict",
    ]
    """`throttle`, `error`, `lost`, `delay` and `expired-token` befall calls; the others befall
    groups that are deployed, `evict` those of priority Spot only."""
    seconds: float = Field(default=0.0, ge=0)
    """Of the cloud's: how long `delay` holds a call up, what a `throttle` tells to wait, how long a
    fresh group is in no list (`stale`), how long after its acceptance a group `fails` for want of
    capacity, how long after its deployment `evict` comes, how long a group `stays-running` whose
    containers have ended (0: for ever)."""
    group: str = ""
    """For `evict`, by the control API: a group that is there already, by its resource ID."""
    flavour: Literal["", "arm", "provider", "refused", "fails"] = ""
    """Of `throttle`: by ARM (the default) or the resource provider. Of `no-capacity`: the PUT is
    refused (the default), or it is accepted and its operation fails."""
    status: int = Field(default=500, ge=500, le=599)
    """HTTP status of `error`."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Fault:
        if self.group and self.kind != "evict":
            raise ValueError(f"group is for kind evict, found {self.kind}")
        if self.flavour and self.flavour not in _FLAVOURS.get(self.kind, ()):
            raise ValueError(f"flavour {self.flavour} is not for kind {self.kind}")
        return self


class Timing(Model):
    """How long the parts of a group's life take, in seconds of the cloud's."""

    pending: float = Field(default=3.0, ge=0)
    """From the acceptance to provisioningState Creating."""
    pulling: float = Field(default=12.0, ge=0)
    """The images' download; a real engine's own comes on top."""
    deleting: float = Field(default=3.0, ge=0)
    """From the containers' end to the group's being gone."""
    evicting: float = Field(default=5.0, ge=0)
    """From an eviction to the group's being deployed again."""
    grace: float = Field(default=30.0, ge=0)
    """From SIGTERM to SIGKILL."""
    stuck: float = Field(default=1800.0, gt=0)
    """How long a deployment may take before it fails."""


class Settings(Model):
    """A subscription and what befalls it."""

    subscription: str = Field(default=SUBSCRIPTION, pattern=_UUID)
    tenant: str = Field(default=TENANT, pattern=_UUID)
    clients: dict[str, str] = Field(default_factory=lambda: {CLIENT: SECRET}, min_length=1)
    """Secrets by client ID: who may ask for tokens."""
    locations: list[Annotated[str, Field(pattern=r"^[a-z0-9]+$")]] = Field(
        default_factory=lambda: list(LOCATIONS), min_length=1
    )
    """Regions, in ARM's short form: `eastus`."""
    seed: int = 0
    """Of everything that is by chance."""
    container_groups: int = Field(default=100, ge=0)
    """The quota of groups a region."""
    standard_cores: int = Field(default=100, ge=0)
    """The quota of cores a region; new subscriptions are reported to have 10."""
    spot_cores: int = Field(default=10, ge=0)
    """The quota of Spot cores a region."""
    quota_code: Literal["ContainerGroupQuotaReached", "ServiceUnavailable"] = (
        "ContainerGroupQuotaReached"
    )
    """The code of a quota that is reached: both are documented."""
    creates: tuple[_Count, _Count] = (100, 300)
    """PUTs in 5 minutes, and in an hour, by region."""
    deletes: tuple[_Count, _Count] = (100, 300)
    """DELETEs in 5 minutes, and in an hour, by region."""
    max_cpu: float = Field(default=4.0, gt=0)
    max_memory_gb: float = Field(default=16.0, gt=0)
    page: int = Field(default=50, ge=1)
    """Groups in a page of a list."""
    azure_files: Path | None = None
    """The folder whose folders ACCOUNT/SHARE are the shares of Azure Files. Not given: there is
    no share."""
    buckets: dict[Literal["reads", "writes", "deletes"], Bucket] = Field(default_factory=dict)
    """ARM's, over the documented ones."""
    timing: Timing = Timing()
    faults: list[Fault] = Field(default_factory=list)
