"""What RunTask refuses, and which provider each of its tasks gets. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator

from adapters.simulators.aws.ecs import sizes
from adapters.simulators.aws.ecs.clusters import Cluster, check_strategy
from adapters.simulators.aws.ecs.definitions import Definition
from adapters.simulators.aws.ecs.refusals import NO_SIZE, SHARED_NAME, client, invalid
from adapters.simulators.aws.shapes import Json

MAX_TASKS = 10
MAX_OVERRIDES = 8192
"""Characters of the overrides' JSON."""
_STARTED_BY = re.compile(r"[A-Za-z0-9/_-]{0,128}")
_TOKEN = re.compile(r"[\x21-\x7e]{1,64}")


def check_call(given: Json) -> None:
    """What is wrong with the call itself. InvalidParameterException, ClientException."""
    for words in _problems(given):
        raise invalid(words)


def _problems(given: Json) -> Iterator[str]:
    if not 1 <= given.get("count", 1) <= MAX_TASKS:
        yield f"Tasks provided must be between 1 and {MAX_TASKS}: count is {given['count']}."
    if "launchType" in given and "capacityProviderStrategy" in given:
        yield "Specifying both a launch type and capacity provider strategy is not supported."
    if not _STARTED_BY.fullmatch(given.get("startedBy", "")):
        yield (
            "startedBy can have up to 128 letters, numbers, hyphens, forward slashes and"
            " underscores."
        )
    if "clientToken" in given and not _TOKEN.fullmatch(given["clientToken"]):
        yield "clientToken can have up to 64 characters of the range 33-126."
    length = len(json.dumps(given.get("overrides", {}), separators=(",", ":")))
    if length > MAX_OVERRIDES:
        yield f"Container Overrides length must be at most {MAX_OVERRIDES}"
    if given.get("propagateTags") == "SERVICE":
        yield "propagateTags SERVICE is not supported for RunTask."
    if given.get("volumeConfigurations"):
        yield "This simulator has no volumes that are configured at launch."
    if given.get("placementConstraints") or given.get("placementStrategy"):
        yield "Placement constraints and strategies are not supported with Fargate."
    keys = [one.get("key", "") for one in given.get("tags", ())]
    if len(set(keys)) < len(keys):
        yield "Duplicate tag keys found. Tag keys must be unique."
    if any(key.lower().startswith("aws:") for key in keys):
        yield "Tag keys must not begin with aws:."


def check_definition(definition: Definition | None) -> Definition:
    """The definition, where a task of it may be run."""
    if definition is None:
        raise client("TaskDefinition not found.")
    if definition.status != "ACTIVE":
        raise client("TaskDefinition is inactive")
    return definition


def check_against(given: Json, definition: Json) -> None:
    """The call against the definition that it names. InvalidParameterException."""
    if definition.get("networkMode") == "awsvpc" and "networkConfiguration" not in given:
        raise invalid(
            "Network Configuration must be provided when networkMode 'awsvpc' is specified."
        )
    if "FARGATE" not in definition["compatibilities"]:
        raise invalid("Task definition does not support launch_type FARGATE.")
    overrides = given.get("overrides", {})
    known = {one["name"]: one for one in definition["containerDefinitions"]}
    for one in overrides.get("containerOverrides", ()):
        name = one.get("name")
        if name is None and len(one) > 0:
            raise invalid("Container override must have a name.")
        if name is not None and name not in known:
            raise invalid(
                f"Override for container named {name} is not a container in the TaskDefinition."
            )
        if name is not None:
            _check_secrets(one, known[name])
    cpu, memory = size_of(definition, overrides)
    if not sizes.is_legal(cpu, memory):
        raise invalid(NO_SIZE.format(cpu=cpu, memory=memory))
    role = overrides.get("taskRoleArn") or definition.get("taskRoleArn")
    if given.get("enableExecuteCommand") and not role:
        raise invalid(
            "The task definition needs a task role for enableExecuteCommand, or an override of it."
        )


def _check_secrets(override: Json, definition: Json) -> None:
    secrets = {one["name"] for one in definition.get("secrets", ())}
    for one in override.get("environment", ()):
        if one.get("name") in secrets:
            raise invalid(SHARED_NAME.format(one["name"]))


def size_of(definition: Json, overrides: Json) -> tuple[int, int]:
    """CPU units and MiB of a task."""
    cpu = sizes.cpu_units(overrides.get("cpu") or definition["cpu"]) or 0
    memory = sizes.mebibytes(overrides.get("memory") or definition["memory"]) or 0
    return cpu, memory


def providers(given: Json, cluster: Cluster) -> list[str]:
    """For each task its capacity provider; empty texts for launchType FARGATE.

    InvalidParameterException where the cluster has nothing to run them on.
    """
    count = given.get("count", 1)
    if given.get("launchType") == "FARGATE":
        return [""] * count
    strategy = given.get("capacityProviderStrategy", cluster.strategy)
    if "launchType" in given or not strategy:
        raise invalid("No Container Instances were found in your cluster.")
    check_strategy(strategy, cluster.providers)
    return spread(strategy, count)


def spread(strategy: list[Json], count: int) -> list[str]:
    """Bases first, the rest by weight: the provider that is furthest below its share is next."""
    chosen: list[str] = []
    for one in strategy:
        chosen += [one["capacityProvider"]] * min(one.get("base", 0), count - len(chosen))
    weighted = {
        one["capacityProvider"]: one.get("weight", 0) for one in strategy if one.get("weight", 0)
    }
    given: Counter[str] = Counter()
    while len(chosen) < count:
        name = min(weighted, key=lambda one: (given[one] + 1) / weighted[one])
        given[name] += 1
        chosen.append(name)
    return chosen
