"""A pod as a task definition and what varies between pods of one template. Pure.

A definition holds nothing of one pod alone: no value of a variable, no argument, no name. So all
pods of a Job share one, and one registration, of which an account has one a second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from adapters.fargate.environment import split
from adapters.fargate.names import STREAM, Json, payload_key
from adapters.fargate.options import Options
from adapters.fargate.sizes import Size
from bridge.groups import security
from bridge.helper.hosting import SLACK
from bridge.helper.wrap import INSTALL, OURS, WATCH, is_wrapped
from bridge.workload import Claim, Container, EmptyDir, Role, Workload

OVERRIDES = 8192
"""Characters of a RunTask's overrides, JSON and all."""
LONGEST_STOP = 120
"""Seconds: the largest stopTimeout."""
_SHORTEST_STOP = 2


@dataclass(frozen=True, slots=True)
class Choices:
    """What was decided for a pod besides what it says itself."""

    size: Size
    storage: int
    """GiB of ephemeral storage to ask for; 0: what every task has."""
    architecture: str
    """`amd64` or `arm64`."""
    images: Mapping[str, str]
    """By container."""
    logins: Mapping[str, str] = field(default_factory=dict)
    """Names of secrets with a registry's login, by container."""
    region: str = ""


@dataclass(frozen=True, slots=True)
class Launch:
    """What is registered, stored and overridden for one pod."""

    definition: Json
    """RegisterTaskDefinition's arguments, but for its family and tags."""
    overrides: tuple[Json, ...]
    """RunTask's overrides, by container."""
    payloads: Mapping[str, bytes] = field(repr=False)
    """Objects with environments, by key."""


def launch(made: Workload, mark: str, options: Options, choices: Choices) -> Launch:
    """`made`: the pod with the helper in it, or bare. Raises Invalid where a variable can reach it
    in no way."""
    wrapped = is_wrapped(made)
    overrides: list[Json] = []
    payloads: dict[str, bytes] = {}
    room = OVERRIDES - _length([_override(one, {}, "", wrapped=wrapped) for one in made.containers])
    for one in made.containers:
        plain, content = split(one, room)
        key = payload_key(options.owner, mark, one.name) if content else ""
        if content:
            payloads[key] = content
        said = _override(one, plain, _arn(options, key) if key else "", wrapped=wrapped)
        if len(said) > 1:
            overrides.append(said)
        room -= len(json.dumps(plain))
    inline = _length(overrides) > OVERRIDES
    if inline:
        # What no override can hold gets a definition of its own.
        overrides = [{k: v for k, v in one.items() if k != "command"} for one in overrides]
        overrides = [one for one in overrides if len(one) > 1]
    definition = _definition(made, options, choices, inline=inline)
    return Launch(definition, tuple(overrides), payloads)


def _length(overrides: list[Json]) -> int:
    return len(json.dumps({"containerOverrides": overrides}))


def _arn(options: Options, key: str) -> str:
    partition = options.execution_role.split(":")[1]
    return f"arn:{partition}:s3:::{options.bucket}/{key}"


def _override(one: Container, plain: Mapping[str, str], file: str, *, wrapped: bool) -> Json:
    made: Json = {"name": one.name}
    if arguments := _words(one, wrapped=wrapped)[1]:
        made["command"] = list(arguments)
    if plain:
        made["environment"] = [{"name": name, "value": value} for name, value in plain.items()]
    if file:
        made["environmentFiles"] = [{"value": file, "type": "s3"}]
    return made


def _words(one: Container, *, wrapped: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(entryPoint, command): what the definition has, and what an override can replace. The
    helper's own words are the same in every pod."""
    if wrapped:
        return one.command, ()
    return one.command[:1], (*one.command[1:], *one.args)


def _definition(made: Workload, options: Options, choices: Choices, *, inline: bool) -> Json:
    # To be the same for the same content it is in one order throughout.
    definition: Json = {
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": str(choices.size.cpu),
        "memory": str(choices.size.memory),
        "executionRoleArn": options.execution_role,
        "runtimePlatform": {
            "cpuArchitecture": "ARM64" if choices.architecture == "arm64" else "X86_64",
            "operatingSystemFamily": "LINUX",
        },
        "volumes": _volumes(made, options),
        "containerDefinitions": [
            _container(one, made, options, choices, inline=inline) for one in made.containers
        ],
    }
    if choices.storage:
        definition["ephemeralStorage"] = {"sizeInGiB": choices.storage}
    if made.share_processes:
        definition["pidMode"] = "task"
    return definition


def _volumes(made: Workload, options: Options) -> list[Json]:
    claims = {(one.namespace, one.claim): one for one in options.claims}
    found: list[Json] = []
    for volume in made.volumes:
        if isinstance(volume, EmptyDir):
            found.append({"name": volume.name, "host": {}})
        elif isinstance(volume, Claim):
            mapped = claims[made.identity.namespace, volume.claim]
            efs: Json = {"fileSystemId": mapped.file_system, "transitEncryption": "ENABLED"}
            if mapped.access_point or mapped.iam:
                efs["authorizationConfig"] = {"iam": "ENABLED" if mapped.iam else "DISABLED"}
            if mapped.access_point:
                efs["authorizationConfig"]["accessPointId"] = mapped.access_point
            found.append({"name": volume.name, "efsVolumeConfiguration": efs})
    return found


def _container(
    one: Container, made: Workload, options: Options, choices: Choices, *, inline: bool
) -> Json:
    wrapped = is_wrapped(made)
    entry, command = _words(one, wrapped=wrapped)
    if one.name in (INSTALL, WATCH):
        entry = (options.helper_program, *one.command[1:])
    read_only = {v.name for v in made.volumes if isinstance(v, Claim) and v.read_only}
    container: Json = {
        "name": one.name,
        "image": choices.images[one.name],
        "essential": one.name == WATCH or not wrapped,
        "mountPoints": [
            {
                "sourceVolume": mount.volume,
                "containerPath": mount.path,
                "readOnly": mount.read_only or mount.volume in read_only,
            }
            for mount in one.mounts
        ],
        "readonlyRootFilesystem": one.security.read_only_root,
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": options.log_group,
                "awslogs-region": choices.region,
                "awslogs-stream-prefix": STREAM,
                # The driver's own default drops lines where its buffer is full.
                "mode": "blocking",
            },
        },
    }
    # One that runs before all others is waited for, and ends by itself.
    if one.name != INSTALL:
        container["stopTimeout"] = _stop_timeout(made.grace, wrapped=wrapped)
        if wrapped:
            container["dependsOn"] = [{"containerName": INSTALL, "condition": "SUCCESS"}]
    if entry:
        container["entryPoint"] = list(entry)
    if command and inline:
        container["command"] = list(command)
    if one.working_dir and not wrapped:
        container["workingDirectory"] = one.working_dir
    if login := choices.logins.get(one.name):
        container["repositoryCredentials"] = {"credentialsParameter": login}
    if said := _user(one, wrapped=wrapped):
        container["user"] = said
    if caps := _capabilities(one, wrapped=wrapped):
        container["linuxParameters"] = {"capabilities": caps}
    if ports := _ports(one):
        container["portMappings"] = ports
    if made.sysctls and not one.name.startswith(OURS):
        # Those of the network are the whole task's, and so they are to be the same everywhere.
        container["systemControls"] = [
            {"namespace": name, "value": value} for name, value in sorted(made.sysctls)
        ]
    return container | _resources(one, choices.size)


def _user(one: Container, *, wrapped: bool) -> str:
    """Empty: the image's own."""
    who, group = security.user(one, wrapped=wrapped)
    if who is None:
        return ""
    return str(who) if group is None else f"{who}:{group}"


def _capabilities(one: Container, *, wrapped: bool) -> Json:
    """Empty: the usual ones."""
    add, drop = security.capabilities(one, wrapped=wrapped)
    return {key: list(names) for key, names in (("add", add), ("drop", drop)) if names}


def _stop_timeout(grace: float, *, wrapped: bool) -> int:
    wanted = int(-(-grace // 1)) + (int(SLACK) if wrapped else 0)
    return max(_SHORTEST_STOP, min(LONGEST_STOP, wanted))


def _ports(one: Container) -> list[Json]:
    found = {(port.number, port.protocol.lower()) for port in one.ports if port.protocol != "SCTP"}
    return [{"containerPort": number, "protocol": protocol} for number, protocol in sorted(found)]


def _resources(one: Container, size: Size) -> Json:
    """Its weight beside the task's other containers, and what memory it may have at most."""
    found: Json = {}
    if one.name.startswith(OURS):
        return found
    if one.role is not Role.INIT and (millicores := one.resources.requests.get("cpu", 0)):
        found["cpu"] = min(size.cpu, millicores * 1024 // 1000)
    if limit := one.resources.limits.get("memory", 0):
        # ECS takes no less than 6 MiB.
        found["memory"] = max(6, min(size.memory, -(-limit // 2**20)))
    return found
