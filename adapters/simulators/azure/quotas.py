"""List Usage and the quotas behind it; what a region can do."""

from __future__ import annotations

import math
from collections.abc import Iterable

from adapters.simulators.azure.errors import TYPE, ArmError
from adapters.simulators.azure.groups.records import Group
from adapters.simulators.azure.settings import Settings
from adapters.simulators.common.web import Json

_REACHED = "ContainerGroupQuotaReached"
_WORDS = {
    "ContainerGroups": "Container Groups",
    "StandardCores": "Standard Cores",
    "StandardSpotCores": "Standard Spot Cores",
}


class Quotas:
    """Of one subscription. Groups count as long as they are there; cores as long as a group has
    compute."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limits = {
            "ContainerGroups": settings.container_groups,
            "StandardCores": settings.standard_cores,
            "StandardSpotCores": settings.spot_cores,
        }

    def check(self, groups: Iterable[Group], location: str, cpu: float, *, spot: bool) -> None:
        """ArmError where a further group would be beyond a quota."""
        used = self._used(groups, location)
        wanted = {"ContainerGroups": 1.0, "StandardSpotCores" if spot else "StandardCores": cpu}
        for name, amount in wanted.items():
            if used[name] + amount > self._limits[name]:
                words = (
                    f"Resource type '{TYPE}' container group quota '{name}' exceeded in region"
                    f" '{location}'. Limit: '{self._limits[name]}', Usage:"
                    f" '{math.ceil(used[name])}' Requested: '{amount:g}'."
                )
                code = self._settings.quota_code
                raise ArmError(400 if code == _REACHED else 409, code, words)

    def _used(self, groups: Iterable[Group], location: str) -> dict[str, float]:
        used = dict.fromkeys(self._limits, 0.0)
        for one in groups:
            if one.location == location:
                used["ContainerGroups"] += 1
                if one.has_compute:
                    used["StandardSpotCores" if one.is_spot else "StandardCores"] += one.cpu
        return used

    def usages(self, groups: Iterable[Group], location: str) -> Json:
        """As List Usage answers."""
        used = self._used(groups, location)
        prefix = f"/subscriptions/{self._settings.subscription}/providers"
        place = f"{prefix}/Microsoft.ContainerInstance/locations/{location}/usages"
        return {
            "value": [
                {
                    "id": f"{place}/{name}",
                    "unit": "Count",
                    "currentValue": math.ceil(used[name]),
                    "limit": limit,
                    "name": {"value": name, "localizedValue": _WORDS[name]},
                }
                for name, limit in self._limits.items()
            ]
        }

    def capabilities(self, location: str) -> Json:
        """As List Capabilities answers: Linux without GPUs."""
        size = {
            "maxMemoryInGB": self._settings.max_memory_gb,
            "maxCpu": self._settings.max_cpu,
            "maxGpuCount": 0,
        }
        return {
            "value": [
                {
                    "resourceType": "containerGroups",
                    "osType": "Linux",
                    "location": location,
                    "ipAddressType": address,
                    "gpu": "None",
                    "capabilities": size,
                }
                for address in ("Public", "Private")
            ]
        }
