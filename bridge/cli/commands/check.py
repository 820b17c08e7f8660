"""`podbridge check`: which backends can run some manifests, before anything is started."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.assess import Verdict, assess, eligible_for
from bridge.cli.output import format_option, simulate_option
from bridge.errors import Invalid, Violation

if TYPE_CHECKING:
    from bridge.config import BackendConfig, Config
    from bridge.local.manifests import Objects


_EXAMPLES = """
\b
Examples:
  podbridge check -f job.yaml                    every backend that there is
  podbridge check -f manifests/ --on process     can this one run all of it?
  podbridge check -f job.yaml --on fargate --simulate
  kubectl kustomize overlays/ci | podbridge check -f - -o json

\b
RESULT: runs; runs, approximated (something will be different: which field, and how); refused
(which field, and why). Exit code 0: one backend can run everything (with --on: each that is
named); 2: none can. A backend on which nothing really runs counts only where --on names it.
"""


@click.command(epilog=_EXAMPLES)
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    required=True,
    metavar="FILE|DIR|-",
    help="Manifests: Pod, Job, CronJob, with ConfigMaps and Secrets beside them.",
)
@click.option("--on", metavar="BACKEND", help="Only these backends: names or types, with commas.")
@simulate_option
@format_option("text", "json")
@click.pass_obj
def command(
    obj: dict[str, str | None],
    *,
    files: tuple[str, ...],
    on: str | None,
    simulate: bool,
    output: str | None,
) -> int:
    """Which backends can run these manifests, and what each refuses."""
    from bridge.cli.simulation import simulation
    from bridge.cli.wiring import load_config
    from bridge.local.manifests import load

    objects = load(files, sys.stdin.buffer if "-" in files else None)
    config = load_config(obj["config"])
    if simulate:
        with simulation(config, on) as simulated:
            return _check(objects, simulated, output, named=True)
    return _check(objects, _backends(config, on), output, named=on is not None)


def _check(
    objects: Objects, backends: Sequence[BackendConfig], output: str | None, *, named: bool
) -> int:
    verdicts = asyncio.run(assess(objects, backends))
    _require_names(objects, backends, verdicts)
    able = _able(verdicts, backends, named=named)
    if output == "json":
        from bridge.cli.output import print_value

        print_value(_plain(verdicts, able), "json")
    else:
        _print(verdicts, able)
    return 0 if able else 2


def _backends(config: Config, on: str | None) -> Sequence[BackendConfig]:
    """Those that `--on` names, or the configured ones and every type that needs nothing."""
    from bridge.cli.wiring import bare_backends, choose_backends

    if on is not None:
        return choose_backends(config, on)
    return (*config.backends, *bare_backends(config))


def _require_names(
    objects: Objects, backends: Sequence[BackendConfig], verdicts: list[Verdict]
) -> None:
    """A pod that names backends itself is refused by all others."""
    for loaded in (*objects.pods, *objects.jobs, *objects.cronjobs):
        try:
            names = eligible_for(loaded, backends)
        except Invalid as error:
            if not _names_backends(loaded.obj):
                # Nothing was said, and nothing may be chosen silently: here all are asked.
                continue
            raise Invalid(
                violations=[
                    Violation(one.field, one.message, loaded.source) for one in error.violations
                ]
            ) from None
        if not _names_backends(loaded.obj):
            continue
        for at, one in enumerate(verdicts):
            if one.loaded is loaded and one.backend not in names:
                words = f"the annotation names {', '.join(names)}"
                field = "metadata.annotations[podbridge.io/backend]"
                wrong = Violation(field, words, loaded.source)
                verdicts[at] = Verdict(one.backend, one.simulated, loaded, (wrong,))


def _names_backends(obj: dict[str, Any]) -> bool:
    from bridge.cli.assess import pod_template
    from bridge.provider.placement import wanted

    return bool(wanted(pod_template(obj)))


def _able(
    verdicts: Sequence[Verdict], backends: Sequence[BackendConfig], *, named: bool
) -> list[str]:
    """The backends that can run everything, or, where they were named, none unless each can."""
    able = []
    for backend in backends:
        mine = [one for one in verdicts if one.backend == backend.name]
        counts = named or not any(one.simulated for one in mine)
        if counts and all(one.possible for one in mine):
            able.append(backend.name)
    if named and len(able) < len(backends):
        return []
    return able


def _plain(verdicts: Sequence[Verdict], able: Sequence[str]) -> dict[str, Any]:
    def lines(violations: Sequence[Violation]) -> list[dict[str, str]]:
        return [{"field": one.field, "message": one.message} for one in violations]

    return {
        "able": list(able),
        "results": [
            {
                "backend": one.backend,
                "simulated": one.simulated,
                "object": one.object,
                "namespace": one.loaded.obj["metadata"]["namespace"],
                "source": one.loaded.source,
                "possible": one.possible,
                "refused": lines(one.violations),
                "approximated": lines(one.approximations),
                **({"problem": one.problem} if one.problem else {}),
            }
            for one in verdicts
        ],
    }


def _print(verdicts: Sequence[Verdict], able: Sequence[str]) -> None:
    from bridge.cli.output import hint, plain, print_table

    print_table(
        ["BACKEND", "OBJECT", "RESULT"], [[one.backend, one.object, one.result] for one in verdicts]
    )
    for one in verdicts:
        if not (one.violations or one.approximations or one.problem):
            continue
        print(plain(f"\n{one.backend}: {one.object} ({one.loaded.source}): {one.result}"))
        if one.problem:
            print(plain(f"  the backend could not be asked: {one.problem}"))
        for each in one.violations:
            print(plain(f"  refused:      {Violation(each.field, each.message)}"))
        for each in one.approximations:
            print(plain(f"  approximated: {Violation(each.field, each.message)}"))
    if not able:
        hint("no backend that was asked can run all of it")
