"""What `run` decides before anything starts: what to run, where, under which name."""

from __future__ import annotations

import asyncio
import json
import os
import secrets as random
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.asked import Asked, load_objects, pod_specs, seconds_of
from bridge.cli.bill import bill, eligible_names, tariff_of, total
from bridge.cli.interruption import held, hold
from bridge.cli.output import plain
from bridge.cli.simulation import simulation
from bridge.cli.spending import Limits, money_of, settle
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
    from bridge.cli.bill import Bill
    from bridge.config import BackendConfig, Config
    from bridge.local.manifests import Objects
    from bridge.local.runs import Run


_AFTER_DEADLINE = 60.0
"""Seconds after a pod's time and its grace at which it is stopped if nobody else has."""
_IMAGELESS = frozenset({"null", "process"})
"""The types that make nothing of a container's image."""


def launch(asked: Asked) -> int:
    """Runs what was asked for; returns the exit code. Everything wrong is said before it starts."""
    config = load_config(asked.config)
    timeout = seconds_of(asked.timeout)
    max_cost = money_of(asked.max_cost, "--max-cost")
    objects = load_objects(asked)
    if asked.dry_run:
        _print_objects(objects, asked.output)
        return 0
    if asked.output in ("yaml", "name"):
        raise click.UsageError(f"-o {asked.output} goes with --dry-run")
    limits = Limits(max_cost, config.confirm_above, yes=asked.yes)
    max_run = longest_run(objects, config.max_run)
    if not asked.simulate:
        return _run(asked, objects, choose_target(asked, config, max_run), limits, timeout)
    _require_simulable(asked)
    with simulation(config, asked.on, quiet=asked.quiet) as backends:
        _require_image(asked, backends)
        return _run(asked, objects, Target(backends, None, max_run), limits, timeout)


def _run(
    asked: Asked, objects: Objects, target: Target, limits: Limits, timeout: float | None
) -> int:
    verdicts = _assess(objects, target, detach=asked.detach)
    if asked.junit is not None:
        from bridge.cli.view.junit import check_writable

        check_writable(asked.junit)
    if target.provider is not None:
        _require_provider(target)
        _tell_no_price(asked, limits)
    run = _find(asked, objects, target)
    most = None
    if run is None:
        most = bill(verdicts, target.max_run, eligible_names(verdicts, target.backends))
        settle(most, limits, output=asked.output, quiet=asked.quiet)
        # What is half written down could not be taken back.
        hold()
        run = _create(asked, objects, target)
        if most.bills:
            run.record_prices(tariff_of(most))
    try:
        if came := held():
            raise SystemExit(128 + came[0])
        return _enter(run, target, asked, timeout, most)
    finally:
        if asked.simulate:
            # Its cloud ends now, whether anybody came to attend it or not.
            run.remove()


def longest_run(objects: Objects, max_run: float) -> float:
    """Seconds after which a container of this run is stopped, whoever is alive to see to it: where
    every pod is wanted for a time only, no longer than the longest of these. It comes after the
    deadline itself, so that the grace is kept."""
    deadlines = []
    for loaded in (*objects.pods, *objects.jobs, *objects.cronjobs):
        found = [spec["activeDeadlineSeconds"] for spec in _limited(loaded.obj)]
        if not found:
            return max_run
        (spec,) = pod_specs(loaded.obj)
        deadlines.append(min(found) + spec.get("terminationGracePeriodSeconds", 30))
    return min(max_run, max(deadlines, default=max_run) + _AFTER_DEADLINE)


def _limited(obj: Manifest) -> Iterator[Manifest]:
    spec = obj["spec"]["jobTemplate"]["spec"] if obj["kind"] == "CronJob" else obj["spec"]
    for one in (spec, *pod_specs(obj)):
        if one.get("activeDeadlineSeconds") is not None:
            yield one


def _require_simulable(asked: Asked) -> None:
    if asked.provider is not None:
        raise click.UsageError("--simulate starts a cloud here; --provider is elsewhere")
    if asked.detach:
        words = "not with --simulate: the simulated cloud ends with this command, and all in it"
        raise Invalid(violations=[Violation("-d", words)])


def _tell_no_price(asked: Asked, limits: Limits) -> None:
    """What a provider elsewhere bills nobody here knows."""
    words = f"prices are not known here: {asked.provider} has its own backends"
    if limits.max_cost is not None:
        raise Invalid(violations=[Violation("--max-cost", f"{words}; nothing was started")])
    if not asked.quiet and asked.output == "text":
        click.echo(words, err=True)


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


def choose_target(asked: Asked, config: Config, max_run: float) -> Target:
    """Where the run goes. Invalid where nothing was said and nothing is configured."""
    if asked.provider is not None:
        if asked.on is not None:
            raise click.UsageError("--on chooses among backends here; --provider has its own")
        file = os.path.abspath(asked.config) if asked.config else None
        return Target((), asked.provider, max_run, read_tls(config), file)
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
    return Target(backends, None, max_run)


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


def _assess(objects: Objects, target: Target, *, detach: bool) -> list[Verdict]:
    """What the chosen backends make of all of it; refuses what none of them can run, before
    anything is started. `detach`: nobody will hear the pods' events, so that what is approximated
    is told here."""
    from bridge.cli.assess import assess_objects, pod_template
    from bridge.local.clusterless import ignored, refused_job

    wrong = [
        Violation(one.field, one.message, loaded.source)
        for loaded in (*objects.jobs, *objects.cronjobs)
        for one in refused_job(loaded.obj)
    ]
    if wrong:
        raise Unsupported(violations=wrong)
    verdicts: list[Verdict] = []
    if target.backends:
        verdicts = assess_objects(objects, target.backends)
        _require_one_there(verdicts)
        if detach:
            _tell_approximations(verdicts)
            return verdicts
    for loaded in (*objects.pods, *objects.jobs, *objects.cronjobs):
        for field, words in ignored(pod_template(loaded.obj)):
            click.echo(f"warning: {Violation(field, words, loaded.source)}", err=True)
    return verdicts


def _tell_approximations(verdicts: Sequence[Verdict]) -> None:
    lines = {
        f"warning: {one.backend}: approximated: {each}": None
        for one in verdicts
        if one.possible
        for each in one.approximations
    }
    for line in lines:
        click.echo(plain(line), err=True)


def _find(asked: Asked, objects: Objects, target: Target) -> Run | None:
    """The run of that name, which has begun before."""
    from bridge.local.runs import Runs, digest

    if asked.name is None or (known := Runs().find(asked.name)) is None:
        return None
    if known.wanted.digest != digest([loaded.obj for loaded in objects], target.remember()):
        wrong = (
            f'a run named "{asked.name}" exists with other manifests or another backend;'
            f" choose another name, or remove it: podbridge delete {asked.name}"
        )
        raise Invalid(violations=[Violation("--name", wrong)])
    return known


def _create(asked: Asked, objects: Objects, target: Target) -> Run:
    from bridge.local.runs import Runs

    name = asked.name or _fresh_name(objects)
    wanted = [loaded.obj for loaded in objects]
    return Runs().create(name, wanted, target.remember(), time.time())


def _fresh_name(objects: Objects) -> str:
    main = next(iter((*objects.jobs, *objects.cronjobs, *objects.pods)))
    stem = main.obj["metadata"]["name"].replace(".", "-")[:57].rstrip("-")
    alphabet = "bcdfghjkmnpqrstvwxz23456789"
    return f"{stem}-{''.join(random.choice(alphabet) for _ in range(5))}"


def _enter(run: Run, target: Target, asked: Asked, timeout: float | None, most: Bill | None) -> int:
    """`most`: what the run, which begins now, can cost."""
    from bridge.cli.attend import Manner, attend
    from bridge.cli.view import view_of
    from bridge.cli.watch import watch

    manner = Manner(asked.logs, timeout, asked.junit, asked.exit_code_from, forgets=asked.simulate)
    output: Any = asked.output
    if asked.detach:
        return _leave(run, target, manner)
    view = view_of(run, output, quiet=asked.quiet)
    if most is not None and most.bills:
        view.plan(total(most), most.dollars)
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
