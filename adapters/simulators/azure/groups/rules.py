"""What a group may be: ACI's rules on top of the model's shapes. Pure.

Sources: "Resource availability & quota limits for ACI"; "Update containers in Azure Container
Instances" and its error; "Error codes for Spot container creation". ARM codes that nobody has
published are the simulator's own: docs/simulators.md names them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from adapters.simulators.azure.errors import ArmError, no_capacity
from adapters.simulators.azure.groups.records import Group
from adapters.simulators.azure.settings import Settings
from adapters.simulators.common.web import Json

MAX_CONTAINERS, MAX_VOLUMES, MAX_PORTS = 60, 20, 5
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PROBE_NUMBERS = {
    "initialDelaySeconds": 0,
    "periodSeconds": 1,
    "failureThreshold": 1,
    "successThreshold": 1,
    "timeoutSeconds": 1,
}
"""The least that each may be."""
_VOLUMES = ("azureFile", "emptyDir", "secret", "gitRepo")


def check(name: str, body: Json, location: str, settings: Settings) -> None:
    """ArmError for the first rule that the body breaks."""
    if not _NAME.fullmatch(name):
        raise _bad("InvalidContainerGroupName", f"The container group name '{name}' is invalid.")
    properties = body["properties"]
    containers = properties["containers"]
    inits = properties.get("initContainers", [])
    if not containers:
        raise _bad("ContainersNotSpecified", f"Container group '{name}' has no containers.")
    if len(containers) + len(inits) > MAX_CONTAINERS:
        raise _bad("TooManyContainers", f"Container group '{name}' has over {MAX_CONTAINERS}.")
    _check_volumes(name, properties)
    seen: set[str] = set()
    for one in (*containers, *inits):
        _check_container(name, one, seen)
        _check_mounts(name, one, properties)
    for one in containers:
        _check_probes(name, one)
    _check_resources(name, containers)
    _check_network(name, properties)
    _check_spot(properties)
    if properties["osType"] != "Linux" or _too_large(containers, settings):
        cpu = sum(one["properties"]["resources"]["requests"]["cpu"] for one in containers)
        memory = sum(one["properties"]["resources"]["requests"]["memoryInGB"] for one in containers)
        raise no_capacity(location, cpu, memory, properties["osType"])


def check_update(group: Group, body: Json, location: str) -> None:
    """ArmError where a group that is there cannot become that without being deleted."""
    if group.location != location:
        raise ArmError(
            409,
            "InvalidResourceLocation",
            f"The resource '{group.name}' already exists in location '{group.location}' in resource"
            f" group '{group.resource_group}'. A resource with the same name cannot be created in"
            f" location '{location}'. Please select a new resource name.",
        )
    if _fixed(group.body) != _fixed(body):
        raise _bad(
            "InvalidContainerGroupUpdate",
            f"The updates on container group '{group.name}' are invalid. If you are going to update"
            " the os type, restart policy, network profile, CPU, memory or GPU resources for a"
            " container group, you must delete it first and then create a new one.",
        )


def _fixed(body: Json) -> Json:
    properties = body["properties"]
    return {
        "osType": properties["osType"],
        "restartPolicy": properties.get("restartPolicy", "Always"),
        "subnetIds": properties.get("subnetIds", []),
        "zones": body.get("zones", []),
        "resources": {
            one["name"]: one["properties"]["resources"]["requests"]
            for one in properties["containers"]
        },
    }


def _bad(code: str, words: str) -> ArmError:
    return ArmError(400, code, words)


def _check_container(group: str, one: Json, seen: set[str]) -> None:
    name, where = one["name"], f"container '{one['name']}' in container group '{group}'"
    if not _NAME.fullmatch(name):
        raise _bad("InvalidContainerName", f"The name of {where} is invalid.")
    if name in seen:
        raise _bad("DuplicateContainerName", f"The name of {where} is not unique.")
    seen.add(name)
    if not one["properties"].get("image"):
        raise _bad("InvalidImage", f"The image of {where} is not specified.")
    for variable in one["properties"].get("environmentVariables", ()):
        if not _VARIABLE.fullmatch(variable["name"]):
            raise _bad(
                "InvalidEnvironmentVariableName",
                f"The environment variable name in {where} is invalid. A valid environment variable"
                " name must start with alphabetic character or '_', followed by a string of"
                " alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName')",
            )
        if "value" in variable and "secureValue" in variable:
            words = f"'{variable['name']}' of {where} has both value and secureValue."
            raise _bad("InvalidEnvironmentVariable", words)


def _check_volumes(group: str, properties: Json) -> None:
    volumes = properties.get("volumes", ())
    if len(volumes) > MAX_VOLUMES:
        raise _bad("TooManyVolumes", f"Container group '{group}' has over {MAX_VOLUMES} volumes.")
    names = [one["name"] for one in volumes]
    for one in volumes:
        kinds = [kind for kind in _VOLUMES if kind in one]
        if len(kinds) != 1 or names.count(one["name"]) > 1:
            words = f"The volume '{one['name']}' in container group '{group}' is invalid."
            raise _bad("InvalidVolume", words)
        if kinds == ["gitRepo"]:
            raise ArmError(501, "NotImplemented", "gitRepo volumes are not simulated.")
        for key, value in one.get("secret", {}).items():
            try:
                base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                words = f"The secret '{key}' of volume '{one['name']}' is not valid base64."
                raise _bad("InvalidSecretVolume", words) from None


def _check_mounts(group: str, one: Json, properties: Json) -> None:
    known = {volume["name"] for volume in properties.get("volumes", ())}
    for mount in one["properties"].get("volumeMounts", ()):
        if mount["name"] not in known:
            raise _bad(
                "VolumeNotFound",
                f"The volume '{mount['name']}' that container '{one['name']}' in container group"
                f" '{group}' mounts is not found.",
            )
        if ":" in mount["mountPath"] or not mount["mountPath"].startswith("/"):
            words = f"The mount path '{mount['mountPath']}' of container '{one['name']}' is invalid"
            raise _bad("InvalidVolumeMountPath", words)


def _check_probes(group: str, one: Json) -> None:
    for kind in ("livenessProbe", "readinessProbe"):
        probe = one["properties"].get(kind)
        if probe is not None and ("exec" in probe) == ("httpGet" in probe):
            words = f"{kind} of container '{one['name']}' in '{group}' needs one of exec, httpGet."
            raise _bad("InvalidProbe", words)
        for name, least in _PROBE_NUMBERS.items():
            given = least if probe is None else probe.get(name, least)
            if given < least:
                words = f"{kind} of container '{one['name']}' in '{group}': {name} is {given}."
                raise _bad("InvalidProbe", words)


def _check_resources(group: str, containers: list[Json]) -> None:
    totals = {"cpu": 0.0, "memoryInGB": 0.0}
    for one in containers:
        requests = one["properties"]["resources"]["requests"]
        for name, digits in (("cpu", 2), ("memoryInGB", 1)):
            given = requests[name]
            if given <= 0 or abs(round(given, digits) - given) > 1e-9:
                raise _bad(
                    "InvalidResourceRequest",
                    f"The {name} request '{given:g}' of container '{one['name']}' in container"
                    f" group '{group}' is invalid: above 0, with at most {digits} decimals.",
                )
            totals[name] += given
    for one in containers:
        for name, limit in one["properties"]["resources"].get("limits", {}).items():
            if name in totals and limit > round(totals[name], 4):
                shown = {"cpu": "Cpu", "memoryInGB": "MemoryInGB"}[name]
                raise _bad(
                    "ContainerLimitGreaterThanContainerGroupTotalRequest",
                    f"The '{shown}' limit '{limit:g}' in container '{one['name']}' is greater than"
                    f" the total request '{totals[name]:g}' of container group '{group}'.",
                )


def _check_network(group: str, properties: Json) -> None:
    address = properties.get("ipAddress")
    if address is None:
        return
    asked = {(one["port"], one.get("protocol", "TCP")) for one in address["ports"]}
    if not 1 <= len(asked) <= MAX_PORTS or len(asked) != len(address["ports"]):
        words = f"Container group '{group}' needs 1 to {MAX_PORTS} ports, each once."
        raise _bad("InvalidIpAddressPorts", words)
    exposed = set(_exposed(properties))
    if not asked <= exposed:
        words = f"Ports of the IP address of '{group}' are not exposed by any of its containers."
        raise _bad("PortsNotExposed", words)
    if (address["type"] == "Private") != bool(properties.get("subnetIds")):
        words = f"Container group '{group}': a Private IP address needs subnetIds, others none."
        raise _bad("InvalidIpAddressType", words)


def _exposed(properties: Json) -> Iterator[tuple[int, str]]:
    for one in properties["containers"]:
        for port in one["properties"].get("ports", ()):
            yield port["port"], port.get("protocol", "TCP")


def _check_spot(properties: Json) -> None:
    if properties.get("priority") != "Spot":
        return
    if "ipAddress" in properties or properties.get("subnetIds"):
        raise _bad(
            "SpotPriorityContainerGroupNotSupportedForInboundConnectivity",
            "Spot Priority is not supported for container groups with inbound connectivity.",
        )
    sku = properties.get("sku", "Standard")
    if sku != "Standard":
        words = f"Spot Priority Container Group is not supported in '{sku}' Sku."
        raise _bad("SpotPriorityContainerGroupNotSupportedInSku", words)


def _too_large(containers: list[Json], settings: Settings) -> bool:
    requests = [one["properties"]["resources"]["requests"] for one in containers]
    return (
        sum(one["cpu"] for one in requests) > settings.max_cpu
        or sum(one["memoryInGB"] for one in requests) > settings.max_memory_gb
        or any("gpu" in one for one in requests)
    )
