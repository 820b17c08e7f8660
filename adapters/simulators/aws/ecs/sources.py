"""What Fargate fetches for a task before it starts: secrets, environment files, log streams."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Protocol

from adapters.simulators.aws.ecs.records import ContainerRecord, Task
from adapters.simulators.aws.ecs.workloads import Sources
from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.shapes import Json
from bridge.workload import PullCredential

MAX_LINE = 64 * 1024
"""Bytes: the line buffer of the agent that reads environment files."""


class Unfetched(Exception):
    """Something could not be fetched: the task's stoppedReason."""


class Stores(Protocol):
    """Where things are fetched from, each as the service itself would answer (ApiError)."""

    def secret(self, secret: str, stage: str, version: str) -> str:
        """A secret's value."""

    def parameter(self, name: str) -> str:
        """A parameter's value."""

    def object(self, bucket: str, key: str) -> bytes:
        """An object's content."""

    def log_stream(self, group: str, stream: str, create_group: bool) -> None:
        """Makes a log stream."""


def fetch(task: Task, stores: Stores) -> Sources:
    """Everything that the task's definition names. Unfetched."""
    return Sources(
        secrets={one.name: _secrets(one, stores) for one in task.containers},
        files={one.name: _files(one, stores) for one in task.containers},
        credentials=tuple(_credentials(task.containers, stores)),
    )


def _secrets(one: ContainerRecord, stores: Stores) -> dict[str, str]:
    return {
        item["name"]: _secret(item["valueFrom"], stores)
        for item in one.definition.get("secrets", ())
    }


def _secret(source: str, stores: Stores) -> str:
    words = (
        "ResourceInitializationError: unable to pull secrets or registry auth: execution resource"
        " retrieval failed: unable to retrieve secret from {}: service call has been retried 1"
        " time(s): {}: {}"
    )
    if not source.startswith("arn:aws:secretsmanager:"):
        try:
            return stores.parameter(_parameter_name(source))
        except ApiError as error:
            raise Unfetched(words.format("ssm", error.code, error.message)) from None
    arn, key, stage, version = split_secret(source)
    try:
        value = stores.secret(arn, stage, version)
    except ApiError as error:
        raise Unfetched(words.format("asm", error.code, error.message)) from None
    return _member(value, key, source) if key else value


def _login(source: str, stores: Stores) -> str:
    """The content of a registry's login: of the same region it may be named as well
    (RepositoryCredentials in the model), and is never a parameter. Unfetched."""
    if source.startswith("arn:"):
        return _secret(source, stores)
    try:
        return stores.secret(source, "", "")
    except ApiError as error:
        raise Unfetched(
            "ResourceInitializationError: unable to pull secrets or registry auth: execution"
            f" resource retrieval failed: unable to retrieve secret from asm: {error.code}:"
            f" {error.message}"
        ) from None


def _parameter_name(source: str) -> str:
    if not source.startswith("arn:"):
        return source
    name = source.split(":", 5)[5].removeprefix("parameter/")
    return f"/{name}" if "/" in name else name


def split_secret(source: str) -> tuple[str, str, str, str]:
    """`<arn>:json-key:version-stage:version-id`: the ARN and the three, empty where not given."""
    parts = source.split(":")
    rest = [*parts[7:], "", "", ""]
    return ":".join(parts[:7]), rest[0], rest[1], rest[2]


def _member(value: str, key: str, source: str) -> str:
    try:
        found = json.loads(value)[key]
    except (ValueError, KeyError, TypeError):
        # Without the value, which is secret.
        raise Unfetched(
            "ResourceInitializationError: unable to pull secrets or registry auth: execution"
            f" resource retrieval failed: unable to retrieve secret from asm: retrieved secret from"
            f" Secrets Manager did not contain json key {key} ({source})"
        ) from None
    return found if isinstance(found, str) else json.dumps(found)


def _files(one: ContainerRecord, stores: Stores) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in one.definition.get("environmentFiles", ()):
        bucket, _, key = file["value"].removeprefix("arn:aws:s3:::").partition("/")
        try:
            content = stores.object(bucket, key)
        except ApiError as error:
            raise Unfetched(
                "ResourceInitializationError: failed to download env files: file download command:"
                f" non empty error stream: {error.code}: {error.message}"
            ) from None
        # Of the same variable in several files the first one counts.
        found = parse_environment(content) | found
    return found


def parse_environment(content: bytes) -> dict[str, str]:
    """The variables of a .env file: `NAME=VALUE` lines as they are, no quotes, no escapes. Lines
    that begin with `#` or have nothing on one side are passed over. Unfetched."""
    found: dict[str, str] = {}
    for number, line in enumerate(content.decode("utf-8", "replace").split("\n"), 1):
        if len(line) > MAX_LINE:
            raise Unfetched(
                "ResourceInitializationError: failed to download env files: line"
                f" {number} is longer than {MAX_LINE} bytes"
            )
        name, _, value = line.removesuffix("\r").partition("=")
        if not line.startswith("#") and name and value:
            found[name] = value
    return found


def _credentials(containers: Iterable[ContainerRecord], stores: Stores) -> Iterable[PullCredential]:
    for one in containers:
        source = one.definition.get("repositoryCredentials", {}).get("credentialsParameter")
        if source is not None:
            value = _login(source, stores)
            registry = _registry(one.definition)
            yield PullCredential(
                registry, _member(value, "username", source), _member(value, "password", source)
            )


def _registry(definition: Json) -> str:
    first, slash, _ = str(definition["image"]).partition("/")
    return first if slash and ("." in first or ":" in first) else "docker.io"


def open_streams(task: Task, stores: Stores, region: str) -> dict[str, tuple[str, str]]:
    """Makes the log streams of the task's containers: (group, stream) by container. Unfetched."""
    found: dict[str, tuple[str, str]] = {}
    for one in task.containers:
        options = one.definition.get("logConfiguration", {}).get("options")
        if options is None:
            continue
        if options["awslogs-region"] != region:
            raise Unfetched(
                "ResourceInitializationError: failed to validate logger args: this simulator has no"
                f" region {options['awslogs-region']}"
            )
        group = options["awslogs-group"]
        stream = f"{options['awslogs-stream-prefix']}/{one.name}/{task.id}"
        try:
            stores.log_stream(group, stream, options.get("awslogs-create-group") == "true")
        except ApiError as error:
            raise Unfetched(
                "ResourceInitializationError: failed to validate logger args: create stream has"
                " been retried 1 times: failed to create Cloudwatch log stream:"
                f" {error.code}: {error.message}"
            ) from None
        found[one.name] = (group, stream)
    return found
