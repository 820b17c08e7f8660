"""What `run` decides before anything starts: what to run, where, under which name."""

from __future__ import annotations

import asyncio
import json
import os
import secrets as random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from bridge.cli.output import plain
from bridge.cli.wiring import (
    PROCESS_WARNING,
    Target,
    choose_backends,
    load_config,
    present,
    read_tls,
)
from bridge.errors import Invalid, Unavailable, Unsupported, Violation
from bridge.pods import Manifest

if TYPE_CHECKING:
    from bridge.cli.assess import Verdict
    from bridge.cli.attend import Manner
    from bridge.config import BackendConfig, Config
    from bridge.local.manifests import Objects
    from bridge.local.runs import Run


_IMAGELESS = frozenset({"null", "process"})
"""The types that make nothing of a container's image."""


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


def launch(asked: Asked) -> int:
    """Runs what was asked for; returns the exit code. Everything wrong is said before it starts."""
    config = load_config(asked.config)
    timeout = seconds_of(asked.timeout)
    objects = load_objects(asked)
    if asked.dry_run:
        _print_objects(objects, asked.output)
        return 0
    if asked.output in ("yaml", "name"):
        raise click.UsageError(f"-o {asked.output} goes with --dry-run")
    target = choose_target(asked, config)
    _assess(objects, target, detach=asked.detach)
    if asked.junit is not None:
        from bridge.cli.view.junit import check_writable

        check_writable(asked.junit)
    if target.provider is not None:
        _require_provider(target)
    run = _find_or_create(asked, objects, target)
    return _enter(run, target, asked, timeout)


def _require_provider(target: Target) -> None:
    """Unavailable where nobody answers at the target's address."""
    from bridge.cli.background import ask_apart
    from bridge.cli.wiring import reachable

    def answers() -> bool:
        asyncio.run(reachable(target))
        return True

    # Apart, as the run may yet be left to the background; what went wrong there does so here too.
    if not ask_apart(answers):
        answers()


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


def _print_objects(objects: Objects, output: str) -> None:
    found = [loaded.obj for loaded in objects]
    if output == "json":
        whole: Any = found[0]
        if len(found) > 1:
            whole = {"apiVersion": "v1", "kind": "List", "items": found}
        click.echo(json.dumps(whole, indent=2))
    elif output == "yaml":
        import yaml

        click.echo("---\n".join(yaml.safe_dump(one, sort_keys=False) for one in found), nl=False)
    else:
        for one in found:
            click.echo(f"{one['kind'].lower()}/{one['metadata']['name']}")


def choose_target(asked: Asked, config: Config) -> Target:
    """Where the run goes. Invalid where nothing was said and nothing is configured."""
    if asked.provider is not None:
        if asked.on is not None:
            raise click.UsageError("--on chooses among backends here; --provider has its own")
        file = os.path.abspath(asked.config) if asked.config else None
        return Target((), asked.provider, config.max_run, read_tls(config), file)
    backends = choose_backends(config, asked.on)
    if not backends and (engine := present("engine")):
        if not asked.quiet:
            click.echo(f"engine: containers at {engine}, as no backend is configured", err=True)
        backends = choose_backends(config, "engine")
    if not backends:
        if not (sys.stdin.isatty() and sys.stderr.isatty() and asked.output == "text"):
            wrong = (
                "required, as no backend is configured and no container engine answers here: "
                "--on process runs plain processes of this machine"
            )
            raise Invalid(violations=[Violation("--on", wrong)])
        question = (
            "No backend is configured and no container engine answers. "
            "Run as plain processes on this machine?"
        )
        if not click.confirm(question, err=True):
            raise Invalid(violations=[Violation("--on", "nothing chosen; nothing was started")])
        backends = choose_backends(config, "process")
    if any(one.type == "process" for one in backends) and not asked.quiet:
        click.echo(PROCESS_WARNING, err=True)
    _require_image(asked, backends)
    return Target(backends, None, config.max_run)


def _require_one_there(verdicts: Sequence[Verdict]) -> None:
    """Unavailable where an object's backends are all out of reach: nothing is started then."""
    for loaded in {id(one.loaded): one.loaded for one in verdicts}.values():
        possible = [one for one in verdicts if one.loaded is loaded and one.possible]
        if possible and all(one.problem for one in possible):
            words = "; ".join(dict.fromkeys(f"{one.backend}: {one.problem}" for one in possible))
            raise Unavailable(words)


def _require_image(asked: Asked, backends: Sequence[BackendConfig]) -> None:
    """A command without an image can run as a plain process only."""
    if asked.files or asked.image is not None or any(one.type in _IMAGELESS for one in backends):
        return
    names = ", ".join(one.name for one in backends)
    wrong = f"required: {names} runs images; --on process runs the command on this machine"
    raise Invalid(violations=[Violation("--image", wrong)])


def _assess(objects: Objects, target: Target, *, detach: bool) -> None:
    """Refuses what no chosen backend can run, before anything is started. `detach`: nobody will
    hear the pods' events, so that what is approximated is told here."""
    from bridge.cli.assess import assess_objects, pod_template
    from bridge.local.clusterless import ignored, refused_job

    wrong = [
        Violation(one.field, one.message, loaded.source)
        for loaded in (*objects.jobs, *objects.cronjobs)
        for one in refused_job(loaded.obj)
    ]
    if wrong:
        raise Unsupported(violations=wrong)
    if target.backends:
        verdicts = assess_objects(objects, target.backends)
        _require_one_there(verdicts)
        if detach:
            _tell_approximations(verdicts)
            return
    for loaded in (*objects.pods, *objects.jobs, *objects.cronjobs):
        for field, words in ignored(pod_template(loaded.obj)):
            click.echo(f"warning: {Violation(field, words, loaded.source)}", err=True)


def _tell_approximations(verdicts: Sequence[Verdict]) -> None:
    lines = {
        f"warning: {one.backend}: approximated: {each}": None
        for one in verdicts
        if one.possible
        for each in one.approximations
    }
    for line in lines:
        click.echo(plain(line), err=True)


def _find_or_create(asked: Asked, objects: Objects, target: Target) -> Run:
    from bridge.local.runs import Runs, digest

    runs = Runs()
    wanted = [loaded.obj for loaded in objects]
    options = target.remember()
    if asked.name is not None and (known := runs.find(asked.name)) is not None:
        if known.wanted.digest != digest(wanted, options):
            wrong = (
                f'a run named "{asked.name}" exists with other manifests or another backend;'
                f" choose another name, or remove it: podbridge delete {asked.name}"
            )
            raise Invalid(violations=[Violation("--name", wrong)])
        return known
    name = asked.name or _fresh_name(objects)
    return runs.create(name, wanted, options, time.time())


def _fresh_name(objects: Objects) -> str:
    main = next(iter((*objects.jobs, *objects.cronjobs, *objects.pods)))
    stem = main.obj["metadata"]["name"].replace(".", "-")[:57].rstrip("-")
    alphabet = "bcdfghjkmnpqrstvwxz23456789"
    return f"{stem}-{''.join(random.choice(alphabet) for _ in range(5))}"


def _enter(run: Run, target: Target, asked: Asked, timeout: float | None) -> int:
    from bridge.cli.attend import Manner, attend
    from bridge.cli.interruption import hold
    from bridge.cli.view import make_view
    from bridge.cli.watch import watch

    manner = Manner(asked.logs, timeout, asked.junit, asked.exit_code_from)
    output: Any = asked.output
    if asked.detach:
        return _leave(run, target, manner)
    view = make_view(output, sys.stdout, sys.stderr, run.name, quiet=asked.quiet)
    hold()
    try:
        if run.attend():
            return asyncio.run(attend(run, target, view, manner))
        try:
            return asyncio.run(watch(run, view, manner))
        except Unavailable:
            # Whoever attended it has finished it, or was killed, before it could be asked.
            if run.attend():
                return asyncio.run(attend(run, target, view, manner))
            raise
    finally:
        view.close()


def _leave(run: Run, target: Target, manner: Manner) -> int:
    start_in_background(run, target, manner)
    click.echo(run.name)
    click.echo(f"it runs in the background; podbridge attach {run.name} follows it", err=True)
    return 0


def start_in_background(run: Run, target: Target, manner: Manner) -> None:
    """Has a process of its own attend the run, unless one does already."""
    from bridge.cli.attend import attend
    from bridge.cli.background import leave_to_background
    from bridge.cli.view.silent import SilentView

    if run.attendant is not None:
        return

    def work() -> int:
        return asyncio.run(attend(run, target, SilentView(run.name), manner))

    try:
        leave_to_background(run.log, work, run.attend)
    except Unavailable:
        # Another process may have been quicker: then the run is attended all the same.
        if run.attendant is None:
            raise
