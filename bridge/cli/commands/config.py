"""`podbridge config`: what is configured, where it comes from, and changing it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.output import format_option
from bridge.cli.wiring import config_file

if TYPE_CHECKING:
    from bridge.config import Config

_EXAMPLES = """
\b
Examples:
  podbridge config show --origin            every value, and where it comes from
  podbridge config set max_run 2h           writes one value; comments stay
  podbridge config check                    every mistake at once, with its place
  podbridge config schema > schema.json     JSON Schema, for editors

\b
Order: flag > PODBRIDGE_* > file > default. The file is --config, PODBRIDGE_CONFIG,
./podbridge.yaml or ~/.config/podbridge/config.yaml, the first that there is. A key below
another: PODBRIDGE_PROVIDER__LISTEN. Secrets stand there as env:NAME or file:PATH only.
"""


@click.group(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Show, check and change the configuration."""


_SHOW = """
\b
Examples:
  podbridge config show
  podbridge config show --origin
  PODBRIDGE_MAX_RUN=2h podbridge config show --origin -o json
"""


@command.command("show", epilog=_SHOW)
@click.option("--origin", is_flag=True, help="Where each value comes from.")
@format_option("yaml", "json")
@click.pass_obj
def show(obj: dict[str, str | None], *, origin: bool, output: str | None) -> None:
    """Print the configuration in force, defaults included."""
    from bridge.cli.output import print_table, print_value

    config = _load(obj)
    if not origin:
        print_value(config.to_dict(), output or "yaml")
        return
    values, origins = config.values(), config.origins()
    if output is not None:
        both = {key: {"value": value, "origin": origins[key]} for key, value in values.items()}
        print_value(both, output)
        return
    rows = [[key, _shown(value), origins[key]] for key, value in values.items()]
    print_table(["KEY", "VALUE", "ORIGIN"], rows)


@command.command("schema")
@format_option("json", "yaml")
def schema(output: str | None) -> None:
    """Print the JSON Schema of the file, with the keys of every backend type."""
    from bridge.cli.output import print_value
    from bridge.config import schema as make_schema
    from bridge.errors import Invalid
    from bridge.provider.registry import options_model, types

    usable = []
    for one in types():
        try:
            options_model(one)
        except Invalid:
            # Its extra is not installed: its keys are not known here.
            continue
        usable.append(one)
    print_value(make_schema(usable, options_model), output or "json")


_SET = """
\b
Examples:
  podbridge config set max_run 2h
  podbridge config set backends[0].max_pods 20
  podbridge --config ./podbridge.yaml config set max_run 12h
"""


@command.command("set", epilog=_SET)
@click.argument("key")
@click.argument("value")
@click.pass_obj
def set_(obj: dict[str, str | None], *, key: str, value: str) -> None:
    """Write one value to the file; its comments stay. Nothing changes where it is not valid."""
    from bridge.config import set_value
    from bridge.provider.registry import options_model

    file = config_file(obj["config"])
    set_value(file, key, value, options_model=options_model)
    click.echo(f"{file}: {key} is set", err=True)
    if overriding := _variable(key):
        click.echo(
            f"note: {overriding} is set in the environment, and wins over the file", err=True
        )


@command.command("path")
@click.pass_obj
def path(obj: dict[str, str | None]) -> None:
    """Print the file that is read and written."""
    file = config_file(obj["config"])
    print(file)
    if not file.exists():
        click.echo("it does not exist yet: defaults are in force", err=True)


@command.command("check")
@click.pass_obj
def check(obj: dict[str, str | None]) -> None:
    """Say every mistake at once, each with its place; exit code 2 where there is one."""
    config = _load(obj)
    file = config_file(obj["config"])
    where = str(file) if file.exists() else "defaults (there is no file)"
    names = ", ".join(f"{one.name} ({one.type})" for one in config.backends) or "none configured"
    print(f"{where}: valid; backends: {names}")


def _load(obj: dict[str, str | None]) -> Config:
    from bridge.cli.wiring import load_config

    return load_config(obj["config"])


def _variable(key: str) -> str:
    """The variable that overrides a key, if it is set."""
    name = "PODBRIDGE_" + key.replace("[", ".").replace("]", "").replace(".", "__").upper()
    return name if name in os.environ else ""


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
