"""What ECS refuses in a task definition that Fargate is to run. Pure.

Texts of AWS's own are used where they are publicly known; the others name the field and the rule.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from adapters.simulators.aws.ecs import sizes
from adapters.simulators.aws.ecs.refusals import NO_SIZE, SHARED_NAME, client
from adapters.simulators.aws.shapes import Json

MAX_BYTES = 64 * 1024
MAX_CONTAINERS = 10
MAX_ENVIRONMENT_FILES = 10
_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_BARRED = (
    "disableNetworking",
    "dnsSearchDomains",
    "dnsServers",
    "dockerSecurityOptions",
    "extraHosts",
    "hostname",
    "links",
    "privileged",
)
"""Members of a container definition that Fargate does not take (developer guide, "Task definition
differences for Fargate"; the model says so of some)."""
_BARRED_LINUX = ("devices", "maxSwap", "sharedMemorySize", "swappiness", "tmpfs")
_DRIVERS = ("awslogs", "splunk", "awsfirelens")
_RANGES = {"interval": (5, 300), "timeout": (2, 60), "retries": (1, 10), "startPeriod": (0, 300)}
_TIMEOUTS = {"startTimeout": (2, 120), "stopTimeout": (0, 120)}
_AWSLOGS = ("awslogs-group", "awslogs-region", "awslogs-stream-prefix")
_MAY_AWSLOGS = ("awslogs-create-group", "max-buffer-size", "mode")
_NO_AWSLOGS = ("awslogs-datetime-format", "awslogs-multiline-pattern")


def check_definition(given: Json) -> None:
    """Raises ClientException for the first thing that is wrong."""
    for words in _problems(given):
        raise client(words)


def _problems(given: Json) -> Iterator[str]:
    length = len(json.dumps(given, separators=(",", ":")).encode())
    if length > MAX_BYTES:
        yield f"Actual length: '{length}'. Max allowed length is '{MAX_BYTES}' bytes."
    if not _NAME.fullmatch(given["family"]):
        yield "Invalid family: up to 255 letters, numbers, underscores and hyphens are allowed."
    containers = given["containerDefinitions"]
    if not containers:
        yield "Task definition must have at least one container definition."
    if len(containers) > MAX_CONTAINERS:
        yield f"A task definition can have at most {MAX_CONTAINERS} container definitions."
    if "FARGATE" in given.get("requiresCompatibilities", ()):
        yield from _fargate(given)
    names = [one.get("name", "") for one in containers]
    for index, one in enumerate(containers):
        yield from _container(one, f"containerDefinitions[{index}]", given)
        if names[index] in names[:index]:
            yield f"Container names must be unique, found twice: {names[index]}."
    if not any(one.get("essential", True) for one in containers):
        yield "Invalid 'essential' settings for containers: at least one has to be essential."
    yield from _dependencies(containers)


def _fargate(given: Json) -> Iterator[str]:
    if given.get("networkMode") != "awsvpc":
        yield "Fargate only supports network mode \u2018awsvpc\u2019."
    for name in ("cpu", "memory"):
        if name not in given:
            yield f"Fargate requires that '{name}' be defined at the task level."
    yield from _size(given)
    if given.get("pidMode") == "host":
        yield "Fargate only supports pid mode 'task'."
    if "ipcMode" in given:
        yield "Fargate does not support 'ipcMode'."
    if given.get("placementConstraints"):
        yield "Fargate does not support placement constraints."
    storage = given.get("ephemeralStorage", {}).get("sizeInGiB")
    if storage is not None and not 21 <= storage <= 200:
        yield "Invalid 'ephemeralStorage.sizeInGiB': the minimum is 21 and the maximum is 200."
    volumes = [one.get("name") for one in given.get("volumes", ())]
    for volume in given.get("volumes", ()):
        yield from _volume(volume)
        if volumes.count(volume.get("name")) > 1:
            yield f"Volume names must be unique, found twice: {volume.get('name')}."


def _size(given: Json) -> Iterator[str]:
    cpu, memory = sizes.cpu_units(given["cpu"]), sizes.mebibytes(given["memory"])
    for name, amount in (("cpu", cpu), ("memory", memory)):
        if amount is None:
            yield f"Invalid '{name}' setting for task."
    if cpu is not None and memory is not None and not sizes.is_legal(cpu, memory):
        yield NO_SIZE.format(cpu=cpu, memory=memory)
    for name, whole in (("cpu", cpu), ("memory", memory)):
        total = sum(one.get(name, 0) for one in given["containerDefinitions"])
        if whole is not None and total > whole:
            yield f"Invalid '{name}' setting for containers: {total} together, of {whole}."


def _volume(volume: Json) -> Iterator[str]:
    name = volume.get("name", "")
    if not _NAME.fullmatch(name):
        yield f"Invalid volume name '{name}'."
    if "sourcePath" in volume.get("host", {}):
        yield "Fargate compatible task definitions do not support sourcePath."
    for kind in ("dockerVolumeConfiguration", "fsxWindowsFileServerVolumeConfiguration"):
        if kind in volume:
            yield f"Fargate does not support '{kind}'."
    for kind in ("efsVolumeConfiguration", "s3filesVolumeConfiguration", "configuredAtLaunch"):
        if volume.get(kind):
            yield f"This simulator has no volumes of '{kind}'."


def _container(one: Json, at: str, given: Json) -> Iterator[str]:
    if not one.get("image"):
        yield "Container.image should not be null or empty."
    if not _NAME.fullmatch(one.get("name", "")):
        yield f"Invalid {at}.name: up to 255 letters, numbers, underscores and hyphens are allowed."
    if len(one.get("environmentFiles", ())) > MAX_ENVIRONMENT_FILES:
        yield f"Invalid {at}.environmentFiles: at most {MAX_ENVIRONMENT_FILES} are allowed."
    for file in one.get("environmentFiles", ()):
        if not file["value"].startswith("arn:aws:s3:::") or not file["value"].endswith(".env"):
            yield f"Invalid {at}.environmentFiles: '{file['value']}' is no ARN of a .env object."
    for name, (low, high) in _TIMEOUTS.items():
        if name in one and not low <= one[name] <= high:
            yield f"Invalid {at}.{name}: {one[name]} is not between {low} and {high}."
    plain = {item.get("name") for item in one.get("environment", ())}
    for secret in one.get("secrets", ()):
        if secret["name"] in plain:
            yield SHARED_NAME.format(secret["name"])
    yield from _health_check(one.get("healthCheck"), at)
    yield from _mounts(one, at, given)
    yield from _restarts(one.get("restartPolicy"), at)
    if "FARGATE" in given.get("requiresCompatibilities", ()):
        yield from _on_fargate(one, at, given)


def _restarts(policy: Json | None, at: str) -> Iterator[str]:
    if policy and policy.get("enabled"):
        yield f"This simulator restarts no containers: {at}.restartPolicy.enabled."


def _health_check(check: Json | None, at: str) -> Iterator[str]:
    if check is None:
        return
    if not check["command"] or check["command"][0] not in ("CMD", "CMD-SHELL"):
        yield f"Invalid {at}.healthCheck.command: it must begin with CMD or CMD-SHELL."
    for name, (low, high) in _RANGES.items():
        if name in check and not low <= check[name] <= high:
            yield f"Invalid {at}.healthCheck.{name}: {check[name]} is not between {low} and {high}."


def _mounts(one: Json, at: str, given: Json) -> Iterator[str]:
    known = {volume.get("name") for volume in given.get("volumes", ())}
    for mount in one.get("mountPoints", ()):
        if mount.get("sourceVolume") not in known:
            yield f"Unknown volume '{mount.get('sourceVolume')}'."
        if not mount.get("containerPath", "").startswith("/"):
            yield f"Invalid {at}.mountPoints: containerPath must be an absolute path."


def _on_fargate(one: Json, at: str, given: Json) -> Iterator[str]:
    for name in _BARRED:
        if one.get(name):
            yield f"Fargate does not support '{name}' ({at})."
    linux = one.get("linuxParameters", {})
    for name in _BARRED_LINUX:
        if name in linux:
            yield f"Fargate does not support 'linuxParameters.{name}' ({at})."
    extra = [cap for cap in linux.get("capabilities", {}).get("add", ()) if cap != "SYS_PTRACE"]
    if extra:
        yield f"Fargate adds no capability but SYS_PTRACE, found {', '.join(extra)} ({at})."
    if one.get("resourceRequirements"):
        yield f"Fargate does not support 'resourceRequirements' ({at})."
    for port in one.get("portMappings", ()):
        if port.get("hostPort") not in (None, 0, port.get("containerPort")):
            yield (
                "When networkMode=awsvpc, the host ports and container ports in port mappings"
                " must match."
            )
    yield from _logging(one.get("logConfiguration"), at)
    if _needs_role(one) and not given.get("executionRoleArn"):
        yield (
            "Fargate requires task definition to have execution role ARN to support"
            f" {_needs_role(one)}."
        )


def _needs_role(one: Json) -> str:
    if one.get("logConfiguration", {}).get("logDriver") == "awslogs":
        return "log driver awslogs"
    if one.get("secrets"):
        return "secrets"
    if one.get("environmentFiles"):
        return "environment files"
    return ""


def _logging(logging: Json | None, at: str) -> Iterator[str]:
    if logging is None:
        return
    driver, options = logging["logDriver"], logging.get("options", {})
    if driver not in _DRIVERS:
        yield f"Fargate supports the log drivers {', '.join(_DRIVERS)}, found {driver} ({at})."
    if driver != "awslogs":
        yield f"This simulator has no log driver '{driver}' ({at})."
    for name in _AWSLOGS:
        if not options.get(name):
            yield f"Log driver awslogs requires options: {name} ({at})."
    for name in options:
        if name in _NO_AWSLOGS:
            yield f"This simulator has no option '{name}' of log driver awslogs ({at})."
        elif name not in (*_AWSLOGS, *_MAY_AWSLOGS):
            yield f"Log driver awslogs disallows options: {name}"
    if options.get("mode", "blocking") not in ("blocking", "non-blocking"):
        yield f"Invalid mode '{options['mode']}' of log driver awslogs ({at})."


def _dependencies(containers: list[Json]) -> Iterator[str]:
    known = {one.get("name"): one for one in containers}
    for one in containers:
        for dependency in one.get("dependsOn", ()):
            other = known.get(dependency["containerName"])
            condition = dependency["condition"]
            if other is None or other is one:
                yield f"Container '{one.get('name')}' depends on an unknown container."
            elif condition in ("COMPLETE", "SUCCESS") and other.get("essential", True):
                yield (
                    f"Condition {condition} cannot be set on the essential container"
                    f" '{other['name']}'."
                )
            elif condition == "HEALTHY" and "healthCheck" not in other:
                yield f"Condition HEALTHY needs a health check of container '{other['name']}'."
    if _has_cycle({name: _needs(one) for name, one in known.items() if name}):
        yield "The dependencies of containers form a cycle."


def _needs(one: Json) -> list[str]:
    return [dependency["containerName"] for dependency in one.get("dependsOn", ())]


def _has_cycle(graph: dict[Any, list[str]]) -> bool:
    done: set[str] = set()
    while len(done) < len(graph):
        free = [n for n in graph if n not in done and all(m in done for m in graph[n])]
        if not free:
            return True
        done.update(free)
    return False
