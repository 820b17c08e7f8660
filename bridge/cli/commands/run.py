"""`podbridge run`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bridge.cli.asked import Asked
from bridge.cli.launch import launch

_CMD = "podbridge.cmd"

_EXAMPLES = """
\b
Examples:
  podbridge run -f job.yaml --on process
  podbridge run -f manifests/ --name nightly -d
  kubectl kustomize overlays/ci | podbridge run -f - --junit report.xml
  podbridge run hello --on process -- echo hello
  podbridge run -f job.yaml --on fargate --max-cost 2.50
  podbridge run -f job.yaml --on fargate --simulate
  podbridge run sum --image python:3.12 --cpu 1 --memory 2Gi -e N=7 -- python3 -c 'print(6*7)'
  podbridge run sum --image python:3.12 --dry-run -o yaml -- python3 -c 'print(6*7)'

Before anything that costs is called, it says where, how much an hour and how much at most; above
confirm_above (in the configuration, $10) it asks, or exits with 2 where nobody can answer.
Ctrl-C stops the run's pods; a closed terminal does not: `podbridge attach NAME` comes back.
Exit codes: 0 succeeded; 1 a pod or Job failed; 2 bad input, nothing started; 3 could not run;
124 timeout; 130, 143 stopped by a signal.
"""


class _Run(click.Command):
    """Everything behind the first `--` is CMD, whatever it looks like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Takes CMD away before click would mix it with the words before."""
        if "--" in args:
            at = args.index("--")
            args, ctx.meta[_CMD] = args[:at], tuple(args[at + 1 :])
        return super().parse_args(ctx, args)


@click.command(cls=_Run, epilog=_EXAMPLES)
@click.argument("words", nargs=-1, metavar="[NAME] [-- CMD...]")
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    metavar="FILE|DIR|-",
    help="Manifests to run: Pod, Job, CronJob (its job, once), with ConfigMaps and Secrets.",
)
@click.option("--on", metavar="BACKEND", help="Where: backends' names or types, with commas.")
@click.option("--name", metavar="NAME", help="The run's name: the same name comes back to it.")
@click.option("-d", "--detach", is_flag=True, help="Leave it to the background.")
@click.option("--timeout", metavar="TIME", help="Stop the run after this time (90s, 2h): exit 124.")
@click.option(
    "--logs",
    type=click.Choice(["all", "failed", "none"]),
    default="all",
    show_default=True,
    help="Which containers' output to print.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "yaml", "name"]),
    default="text",
    help="json: one event a line. With --dry-run: json or yaml manifests.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only the containers' output.")
@click.option("--exit-code-from", metavar="POD[/C]", default="", help="Exit with its exit code.")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write a report.")
@click.option(
    "--env-file",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Variables (K=V lines) for every container.",
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="N/K=env:V",
    help="A key of a Secret, from an environment variable or a file (file:PATH).",
)
@click.option("--dry-run", is_flag=True, help="Check, print what would run, and start nothing.")
@click.option(
    "--simulate",
    is_flag=True,
    help="On a simulated cloud, which ends with this command: no account, nothing is billed.",
)
@click.option(
    "--max-cost",
    metavar="DOLLARS",
    help="Start nothing where the whole run can cost more than this: exit 3.",
)
@click.option("--yes", is_flag=True, help="Run it without asking, whatever it can cost.")
@click.option("--provider", metavar="ADDRESS", help="Run on a provider that serves elsewhere.")
@click.option("--image", metavar="IMAGE", help="For NAME -- CMD: the container's image.")
@click.option("--cpu", metavar="CPU", help="For NAME -- CMD: cores (1, 500m).")
@click.option("--memory", metavar="SIZE", help="For NAME -- CMD: memory (2Gi).")
@click.option("-e", "--env", multiple=True, metavar="K=V", help="For NAME -- CMD: a variable.")
@click.option(
    "--restart",
    type=click.Choice(["Never", "OnFailure", "Always"]),
    default="Never",
    help="For NAME -- CMD: when it is started again. Default: Never.",
)
@click.pass_context
def command(ctx: click.Context, /, words: tuple[str, ...], **options: Any) -> int:
    """Run pods and Jobs from manifests, or one command, to their end."""
    if len(words) > 1:
        raise click.UsageError(
            f'found "{words[1]}" after NAME; the command goes behind --: podbridge run'
            f" {words[0]} -- {' '.join(words[1:])}"
        )
    cmd: tuple[str, ...] | None = ctx.meta.get(_CMD)
    name = words[0] if words else None
    return launch(Asked(config=ctx.obj["config"], pod=name, cmd=cmd, **options))
