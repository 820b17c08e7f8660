"""`podbridge simulate`: clouds on this machine, for trying things out and for tests."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.cli.output import format_option
from bridge.errors import Invalid, Violation

if TYPE_CHECKING:
    from adapters.simulators.aws import Simulator

_EXAMPLES = """
\b
Examples:
  podbridge simulate aws                               real time, any free port
  podbridge simulate aws --port 4566 --time-scale 20   a minute of AWS's takes three seconds
  podbridge simulate aws --scenario bad-day.yaml       limits, quotas and faults of one's own

docs/simulators.md says what is simulated, and what is not.
"""

_OPEN = "warning: every host that reaches this one can run commands here: nobody is asked who it is"
_REAL = "tasks are really run, as you, by {}; nothing is billed"
_NULL = "tasks are not run: `true` and `sleep N` end, all others go on; nothing is billed"


@click.group(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Run a cloud on this machine, as a real server for its own SDKs."""


@command.command("aws", epilog=_EXAMPLES)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="0: any that is free.",
)
@click.option("--listen", metavar="HOST", default="127.0.0.1", show_default=True, help="Address.")
@click.option(
    "--scenario", type=click.Path(path_type=Path), metavar="FILE", help="Limits and faults, YAML."
)
@click.option(
    "--time-scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    metavar="N",
    help="How many times faster the cloud's own time goes.",
)
@click.option(
    "--run-on",
    type=click.Choice(["process", "engine", "null"]),
    default="process",
    show_default=True,
    help="What runs the containers; null: nothing does, for load tests.",
)
@format_option("json")
def aws(
    *,
    port: int,
    listen: str,
    scenario: Path | None,
    time_scale: float,
    run_on: str,
    output: str | None,
) -> int:
    """AWS: ECS on Fargate and what goes with it, until Ctrl-C. Nothing reaches the internet."""
    try:
        from adapters.simulators.aws import Settings, Simulator
        from adapters.simulators.aws.scenario import load
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("boto3", "botocore"):
            raise
        words = f"needs the package {error.name}: install podbridge with its extra aws (boto3)"
        raise Invalid(violations=[Violation("simulate aws", words)]) from None
    settings = load(scenario) if scenario is not None else Settings()
    made = Simulator(settings, host=listen, port=port, time_scale=time_scale, run_on=run_on)
    return asyncio.run(_serve(made, run_on, listen, output))


async def _serve(made: Simulator, run_on: str, listen: str, output: str | None) -> int:
    from bridge.addresses import is_local

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with made as simulator:
        if not is_local(f"{listen}:0"):
            click.echo(_OPEN, err=True)
        click.echo(_NULL if run_on == "null" else _REAL.format(run_on), err=True)
        _say(simulator, output)
        await stop.wait()
    return 0


def _say(simulator: Simulator, output: str | None) -> None:
    if output is not None:
        from bridge.cli.output import print_value

        what = {"endpoint": simulator.endpoint, "environment": simulator.environment}
        print_value(what, output)
        sys.stdout.flush()
        return
    click.echo(f"# AWS is simulated at {simulator.endpoint}")
    for name, value in simulator.environment.items():
        click.echo(f"export {name}={value}")
