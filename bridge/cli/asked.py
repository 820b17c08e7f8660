"""The words and flags of `podbridge run`, and the objects that they ask for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from bridge.errors import Invalid, Violation
from bridge.pods import Manifest

if TYPE_CHECKING:
    from bridge.local.manifests import Objects


@dataclass(frozen=True, slots=True)
class Asked:
    """The words and flags of `podbridge run`."""

    config: str | None
    pod: str | None
    """NAME."""
    cmd: tuple[str, ...] | None
    """What stands behind `--`; None: there is no `--`."""
    files: tuple[str, ...]
    on: str | None
    name: str | None
    detach: bool
    timeout: str | None
    logs: Literal["all", "failed", "none"]
    output: str
    quiet: bool
    exit_code_from: str
    junit: Path | None
    env_file: tuple[Path, ...]
    secrets: tuple[str, ...]
    dry_run: bool
    provider: str | None
    image: str | None
    cpu: str | None
    memory: str | None
    env: tuple[str, ...]
    restart: str
    simulate: bool
    max_cost: str | None
    yes: bool


def load_objects(asked: Asked) -> Objects:
    """The objects of the files, or of NAME -- CMD. Invalid names every problem."""
    from bridge.local.manifests import Raw, admit, load

    variables = [pair for file in asked.env_file for pair in _read_env_file(file)]
    extra = [Raw(one, "--secret") for one in _secrets(asked.secrets)]
    if asked.files:
        if asked.pod is not None or asked.cmd is not None:
            raise click.UsageError("give -f FILE, or NAME -- CMD, not both")
        for flag in ("image", "cpu", "memory", "env"):
            if getattr(asked, flag):
                raise click.UsageError(f"--{flag} goes with NAME -- CMD, not with -f")
        objects = load(asked.files, sys.stdin.buffer, extra=extra)
    else:
        if asked.pod is None and asked.cmd is None:
            raise click.UsageError(
                "nothing to run: give -f FILE, or NAME -- CMD (podbridge run --help)"
            )
        objects = admit([Raw(_pod(asked), "command line"), *extra])
    for loaded in (*objects.pods, *objects.jobs, *objects.cronjobs):
        _add_variables(loaded.obj, variables)
    return objects


def _pod(asked: Asked) -> Manifest:
    name = asked.pod or asked.name
    if name is None:
        raise click.UsageError("a command needs a NAME: podbridge run NAME -- CMD")
    container: Manifest = {"name": name, "image": asked.image or "none"}
    if asked.image is None and not asked.cmd:
        raise click.UsageError(f"nothing to run in {name}: give --image, or a command after --")
    if asked.cmd:
        container["command"] = [_literal(one) for one in asked.cmd]
    if asked.image is None:
        # Without an image it can only be a process of this machine: as in the shell, from here.
        container["workingDir"] = os.getcwd()
    if asked.env:
        container["env"] = [
            {"name": key, "value": _literal(value)} for key, value in map(_pair, asked.env)
        ]
    sizes = {"cpu": asked.cpu, "memory": asked.memory}
    _check_sizes(sizes)
    if limits := {key: value for key, value in sizes.items() if value is not None}:
        container["resources"] = {"requests": limits, "limits": limits}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"run": name}},
        "spec": {"containers": [container], "restartPolicy": asked.restart},
    }


def _check_sizes(sizes: Mapping[str, str | None]) -> None:
    from bridge import quantity

    wrong = []
    for name, size in sizes.items():
        try:
            quantity.parse(size or "0")
        except ValueError as error:
            wrong.append(Violation(f"--{name}", str(error)))
    if wrong:
        raise Invalid(violations=wrong)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        found = f'found "{text}"; allowed: KEY=VALUE'
        raise Invalid(violations=[Violation("--env", found)])
    return key, value


def _literal(value: str) -> str:
    """A value that Kubernetes leaves as it is: `$(X)` would refer to a variable."""
    return value.replace("$", "$$")


def _read_env_file(path: Path) -> Iterator[tuple[str, str]]:
    """KEY=VALUE lines; `KEY` alone takes it from our environment; `#` begins a comment line."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise Invalid(violations=[Violation("--env-file", f"{path}: {why}")]) from None
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        key, equals, value = stripped.partition("=")
        if not key or any(one.isspace() for one in key):
            wrong = f"{path}, line {number}: allowed: KEY=VALUE or KEY"
            raise Invalid(violations=[Violation("--env-file", wrong)])
        if equals:
            yield key, value
        elif key in os.environ:
            yield key, os.environ[key]


def _secrets(given: Sequence[str]) -> list[Manifest]:
    """Secrets from `NAME/KEY=env:VARIABLE` or `NAME/KEY=file:PATH`."""
    import base64

    from bridge.config import SecretRef

    found: dict[str, Manifest] = {}
    for text in given:
        where, equals, reference = text.partition("=")
        name, slash, key = where.partition("/")
        if not (equals and slash and name and key):
            # The text itself may be a secret that was put in the wrong place.
            wrong = "allowed: NAME/KEY=env:VARIABLE or NAME/KEY=file:PATH"
            raise Invalid(violations=[Violation("--secret", wrong)])
        try:
            value = SecretRef.parse(reference).read(os.environ)
        except ValueError as error:
            raise Invalid(violations=[Violation(f"--secret {where}", str(error))]) from None
        secret = found.setdefault(
            name,
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {}},
        )
        secret["data"][key] = base64.b64encode(value).decode()
    return list(found.values())


def pod_specs(obj: Manifest) -> Iterator[Manifest]:
    """The pod specs within a Pod, Job or CronJob."""
    spec = obj["spec"]
    if obj["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    yield spec["template"]["spec"] if obj["kind"] != "Pod" else spec


def _add_variables(obj: Manifest, variables: Sequence[tuple[str, str]]) -> None:
    entries = [{"name": key, "value": _literal(value)} for key, value in variables]
    if not entries:
        return
    for spec in pod_specs(obj):
        for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
            # The manifest's own come after, and so win.
            container["env"] = [*entries, *(container.get("env") or ())]


def seconds_of(text: str | None) -> float | None:
    """`--timeout` in seconds. Invalid."""
    if text is None:
        return None
    from bridge.config import duration

    try:
        return duration(text)
    except ValueError as error:
        raise Invalid(violations=[Violation("--timeout", str(error))]) from None
