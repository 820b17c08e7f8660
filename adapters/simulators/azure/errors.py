"""What ARM and the resource provider answer where they do not do what was asked.

Codes and texts that somebody has published stand as they are; docs/simulators.md says which are
the simulator's own.
"""

from __future__ import annotations

from collections.abc import Mapping

from adapters.simulators.common.web import Json

NAMESPACE = "Microsoft.ContainerInstance"
TYPE = f"{NAMESPACE}/containerGroups"
API_VERSION = "2023-05-01"
"""The one that is simulated."""


class ArmError(Exception):
    """An error in ARM's form."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    def body(self) -> Json:
        """`{"error": {"code", "message"}}`."""
        return {"error": {"code": self.code, "message": self.message}}


def missing(name: str, resource_group: str) -> ArmError:
    """No such group."""
    return ArmError(
        404,
        "ResourceNotFound",
        f"The Resource '{TYPE}/{name}' under resource group '{resource_group}' was not found. For"
        " more details please go to https://aka.ms/ARMResourceNotFoundFix",
    )


def transitioning(name: str) -> ArmError:
    """Something is still being done with the group."""
    return ArmError(
        409,
        "ContainerGroupTransitioning",
        f"The container group '{name}' is still transitioning, please retry later.",
    )


def no_such_type(type_: str) -> ArmError:
    """Nothing of that type is simulated."""
    return ArmError(
        404,
        "InvalidResourceType",
        f"The resource type '{type_}' could not be found in the namespace '{NAMESPACE}' for api"
        f" version '{API_VERSION}'. The supported api-versions are '{API_VERSION}'.",
    )


def no_capacity(location: str, cpu: float, memory: float, os_type: str) -> ArmError:
    """A region has no room, and says so at once."""
    words = no_capacity_words(location, cpu, memory, os_type)
    return ArmError(409, "ServiceUnavailable", words)


def no_capacity_words(location: str, cpu: float, memory: float, os_type: str) -> str:
    """What is said where a region has no room."""
    return (
        f"The requested resource is not available in the location '{location}' at this moment."
        " Please retry with a different resource request or in another location. Resource"
        f" requested: '{cpu:g}' CPU '{memory:g}' GB memory '{os_type}' OS"
    )
