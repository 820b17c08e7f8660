"""`podbridge simulate`: clouds on this machine, for trying things out and for tests."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import click

from bridge.cli.output import format_option
from bridge.errors import Invalid, Violation

_EXAMPLES = """
\b
Examples:
  podbridge simulate aws                               real time, any free port
  podbridge simulate azure --port 4567 --time-scale 20
                                                       a minute of Azure's takes three seconds
  podbridge simulate aws --scenario bad-day.yaml       limits, quotas and faults of one's own

docs/simulators.md says what is simulated, and what is not.
"""

_OPEN = "warning: every host that reaches this one can run commands here: nobody is asked who it is"
_REAL = "{} are really run, as you, by {}; nothing is billed"
_NULL = "{} are not run: `true` and `sleep N` end, all others go on; nothing is billed"


class _Simulator(AbstractAsyncContextManager["_Simulator"], Protocol):
    """Of any cloud, entered."""

    @property
    def endpoint(self) -> str:
        """Where it is."""

    @property
    def environment(self) -> dict[str, str]:
        """What an SDK needs in its environment to come here."""


@click.group(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Run a cloud on this machine, as a real server for its own SDKs."""


def _options(function: Callable[..., int]) -> Callable[..., int]:
    """Those that all clouds have."""
    for option in (
        format_option("json"),
        click.option(
            "--run-on",
            type=click.Choice(["process", "engine", "null"]),
            default="process",
            show_default=True,
            help="What runs the containers; null: nothing does, for load tests.",
        ),
        click.option(
            "--time-scale",
            type=click.FloatRange(min=0, min_open=True),
            default=1.0,
            show_default=True,
            metavar="N",
            help="How many times faster the cloud's own time goes.",
        ),
        click.option(
            "--scenario",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Limits and faults, YAML.",
        ),
        click.option(
            "--listen", metavar="HOST", default="127.0.0.1", show_default=True, help="Address."
        ),
        click.option(
            "--port",
            type=click.IntRange(0, 65535),
            default=0,
            show_default=True,
            help="0: any that is free.",
        ),
    ):
        function = option(function)
    return function


@command.command("aws", epilog=_EXAMPLES)
@_options
def aws(*, scenario: Path | None, output: str | None, **given: Any) -> int:
    """AWS: ECS on Fargate and what goes with it, until Ctrl-C. Nothing reaches the internet."""
    try:
        from adapters.simulators.aws import Settings, Simulator
        from adapters.simulators.aws.scenario import load
    except ModuleNotFoundError as error:
        raise _missing(error, "aws", ("boto3", "botocore"), "boto3") from None
    settings = load(scenario) if scenario is not None else Settings()
    return _simulate(Simulator, settings, given, lambda one: _say("AWS", one, output), "tasks")


@command.command("azure", epilog=_EXAMPLES)
@_options
def azure(*, scenario: Path | None, output: str | None, **given: Any) -> int:
    """Azure: Container Instances, until Ctrl-C. Nothing reaches the internet."""
    try:
        from adapters.simulators.azure import Settings, Simulator
        from adapters.simulators.azure.scenario import load
    except ModuleNotFoundError as error:
        raise _missing(error, "azure", ("azure",), "azure-mgmt-containerinstance") from None
    settings = load(scenario) if scenario is not None else Settings()

    def say(one: _Simulator) -> None:
        _say("Azure", one, output)
        if output is None:
            click.echo(_AZURE_CLIENT)

    return _simulate(Simulator, settings, given, say, "containers")


_AZURE_CLIENT = """\
# credential = DefaultAzureCredential(disable_instance_discovery=True)
# client = ContainerInstanceManagementClient(
#     credential, os.environ["AZURE_SUBSCRIPTION_ID"], base_url=os.environ["ARM_ENDPOINT"])"""
"""No variable leads the SDK to another Resource Manager."""


def _missing(
    error: ModuleNotFoundError, cloud: str, roots: tuple[str, ...], package: str
) -> Exception:
    """What is to be raised where a cloud's SDK is not installed."""
    if (error.name or "").partition(".")[0] not in roots:
        return error
    words = f"needs the package {error.name}: install podbridge with its extra {cloud} ({package})"
    return Invalid(violations=[Violation(f"simulate {cloud}", words)])


def _simulate(
    simulator: Callable[..., _Simulator],
    settings: Any,
    given: dict[str, Any],
    say: Callable[[_Simulator], None],
    what: str,
) -> int:
    """Until Ctrl-C. `what`: the things that it runs."""
    listen, run_on = given["listen"], given["run_on"]
    made = simulator(
        settings,
        host=listen,
        port=given["port"],
        time_scale=given["time_scale"],
        run_on=run_on,
    )
    words = _NULL.format(what) if run_on == "null" else _REAL.format(what, run_on)
    return asyncio.run(_serve(made, listen, words, say))


async def _serve(
    made: _Simulator, listen: str, words: str, say: Callable[[_Simulator], None]
) -> int:
    from bridge.addresses import is_local

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with made as simulator:
        if not is_local(f"{listen}:0"):
            click.echo(_OPEN, err=True)
        click.echo(words, err=True)
        say(simulator)
        await stop.wait()
    return 0


def _say(cloud: str, simulator: _Simulator, output: str | None) -> None:
    if output is not None:
        from bridge.cli.output import print_value

        what = {"endpoint": simulator.endpoint, "environment": simulator.environment}
        print_value(what, output)
        sys.stdout.flush()
        return
    click.echo(f"# {cloud} is simulated at {simulator.endpoint}")
    for name, value in simulator.environment.items():
        click.echo(f"export {name}={shlex.quote(value)}")
