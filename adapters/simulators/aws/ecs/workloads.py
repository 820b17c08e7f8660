"""A task as a workload that an adapter can run. Pure but for the host's own user names."""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from adapters.simulators.aws.ecs.records import ContainerRecord, Task
from adapters.simulators.aws.shapes import Json
from bridge.workload import (
    Container,
    EmptyDir,
    EnvVar,
    HelperUse,
    Identity,
    Mount,
    Port,
    PullCredential,
    Resources,
    RestartPolicy,
    Role,
    Security,
    Workload,
)

_MIB = 1024 * 1024
DEFAULT_STOP_TIMEOUT = 30
"""Seconds (developer guide, "Container timeouts")."""


LONGEST = 24 * 3600.0
"""Real seconds after which a process ends even where the simulator was killed and nobody asks."""


class NoSuchUser(Exception):
    """A user or group of that name is not known."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What was fetched for a task before it starts, by container."""

    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    credentials: tuple[PullCredential, ...] = field(default=(), repr=False)


def overridden(definition: Json, overrides: Json) -> Json:
    """A container's definition with the launch's overrides: environment is merged, the rest is
    replaced."""
    merged = dict(definition)
    for name in ("command", "environmentFiles", "cpu", "memory", "memoryReservation"):
        if name in overrides:
            merged[name] = overrides[name]
    variables = {one["name"]: one["value"] for one in definition.get("environment", ())}
    variables |= {one["name"]: one.get("value", "") for one in overrides.get("environment", ())}
    merged["environment"] = [{"name": key, "value": value} for key, value in variables.items()]
    return merged


def identity_of(task: Task, owner: str) -> Identity:
    """Who the task is to the adapter. `owner` is a UUID that no other simulator has."""
    name = re.sub(r"[^a-z0-9]+", "-", task.family.lower()).strip("-")
    return Identity(owner, "aws", "ecs", name[:60] or "task", task.id)


def workload_of(
    task: Task, identity: Identity, sources: Sources, region: str, has_images: bool
) -> Workload:
    """The whole task; its containers are started one by one. NoSuchUser."""
    return Workload(
        identity=identity,
        containers=tuple(_container(one, sources, region, has_images) for one in task.containers),
        volumes=tuple(EmptyDir(one["name"]) for one in task.definition.get("volumes", ())),
        restart_policy=RestartPolicy.NEVER,
        hostname=_hostname(task),
        share_processes=task.definition.get("pidMode") == "task",
        sysctls=_controls(task) if has_images else (),
        hard_stop=LONGEST,
        pull_credentials=sources.credentials,
        helper=HelperUse.NEVER,
    )


def _controls(task: Task) -> tuple[tuple[str, str], ...]:
    """Of all containers, the last one's where they differ (API reference, "SystemControl")."""
    given = (pair for one in task.containers for pair in one.definition.get("systemControls", ()))
    return tuple({one["namespace"]: one["value"] for one in given}.items())


def _hostname(task: Task) -> str:
    return f"ip-{task.interface.address.replace('.', '-')}" if task.interface.address else ""


def _container(
    record: ContainerRecord, sources: Sources, region: str, has_images: bool
) -> Container:
    given = record.definition
    command: Sequence[str] = given.get("entryPoint") or ()
    args: Sequence[str] = given.get("command") or ()
    if not command and not has_images:
        # There is no image whose entry point could be taken.
        command, args = args, ()
    return Container(
        name=record.name,
        role=Role.MAIN,
        image=given["image"],
        command=tuple(command),
        args=tuple(args),
        env=tuple(_environment(record, sources, region)),
        working_dir=given.get("workingDirectory", ""),
        mounts=tuple(
            Mount(one["sourceVolume"], one["containerPath"], read_only=one.get("readOnly", False))
            for one in given.get("mountPoints", ())
        ),
        resources=_resources(given),
        restart_policy=RestartPolicy.NEVER,
        # ECS reads no messages, and puts no file for them into containers.
        termination_message_path="",
        security=_security(given),
        ports=tuple(
            Port(one["containerPort"], one.get("protocol", "tcp").upper())
            for one in given.get("portMappings", ())
            if "containerPort" in one
        ),
        tty=given.get("pseudoTerminal", False),
        stdin=given.get("interactive", False),
    )


def _environment(record: ContainerRecord, sources: Sources, region: str) -> Iterator[EnvVar]:
    plain = {one["name"]: one["value"] for one in record.definition.get("environment", ())}
    secret = sources.secrets.get(record.name, {})
    files = sources.files.get(record.name, {})
    platform = {
        "AWS_DEFAULT_REGION": region,
        "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
        "AWS_REGION": region,
    }
    # `environment` wins over files, by the documentation; what a container may be told in files
    # can be secret.
    for name in {**platform, **files, **plain, **secret}:
        if name in secret:
            yield EnvVar(name, secret[name], secret=True)
        elif name in plain:
            yield EnvVar(name, plain[name])
        elif name in files:
            yield EnvVar(name, files[name], secret=True)
        else:
            yield EnvVar(name, platform[name])


def _resources(given: Json) -> Resources:
    limits: dict[str, int] = {}
    requests: dict[str, int] = {}
    if given.get("cpu"):
        requests["cpu"] = given["cpu"] * 1000 // 1024
    if given.get("memory"):
        limits["memory"] = given["memory"] * _MIB
    if given.get("memoryReservation"):
        requests["memory"] = given["memoryReservation"] * _MIB
    return Resources(requests, limits)


def _security(given: Json) -> Security:
    capabilities = given.get("linuxParameters", {}).get("capabilities", {})
    user, _, group = given.get("user", "").partition(":")
    return Security(
        run_as_user=_number(user, lambda name: pwd.getpwnam(name).pw_uid),
        run_as_group=_number(group, lambda name: grp.getgrnam(name).gr_gid),
        read_only_root=given.get("readonlyRootFilesystem", False),
        add_capabilities=tuple(capabilities.get("add", ())),
        drop_capabilities=tuple(capabilities.get("drop", ())),
    )


def _number(name: str, look_up: Callable[[str], int]) -> int | None:
    if not name:
        return None
    if name.isdigit():
        return int(name)
    try:
        return look_up(name)
    except KeyError:
        raise NoSuchUser(
            f"unable to find user {name}: no matching entries in passwd file"
        ) from None
