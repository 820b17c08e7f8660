"""`podbridge init`: a configuration from what a cloud account has. Nothing there is changed."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from bridge.errors import BridgeError, Invalid, Unavailable, Violation

if TYPE_CHECKING:
    from bridge.adapter import Survey

_EXAMPLES = """
\b
Examples:
  podbridge init aws                          by the credentials that the AWS CLI has
  podbridge init aws --region eu-central-1
  podbridge init aws --dry-run                print it, write nothing
  podbridge --config ./podbridge.yaml init aws

It reads the account and changes nothing there. For each thing that is missing it prints the command
that makes it; the configuration holds once these were run. A file that exists is not overwritten
unless you say so. Then: podbridge backends --verify, podbridge backends --canary.
"""


@click.command(epilog=_EXAMPLES)
@click.argument("cloud", metavar="CLOUD")
@click.option("--region", metavar="REGION", default="", help="Default: the SDK's own.")
@click.option("--endpoint-url", metavar="URL", default="", help="Where the cloud is asked.")
@click.option("--dry-run", is_flag=True, help="Print the configuration, and write nothing.")
@click.pass_obj
def command(
    obj: dict[str, str | None], *, cloud: str, region: str, endpoint_url: str, dry_run: bool
) -> int:
    """Write a configuration from what a cloud account has."""
    from bridge.cli.wiring import config_file
    from bridge.config import check_text
    from bridge.provider.registry import options_model

    surveyed = {
        type_: asyncio.run(module.survey(region, endpoint_url))
        for type_, module in _surveyors(cloud).items()
    }
    text = render(surveyed)
    file = config_file(obj["config"])
    for type_, one in surveyed.items():
        click.echo(f"{type_}: {one.who}", err=True)
    _tell_missing(surveyed.values())
    if dry_run:
        print(text, end="")
    elif all(one.complete for one in surveyed.values()):
        check_text(text, str(file), options_model)
        _write(file, text)
    if not all(one.complete for one in surveyed.values()):
        raise Unavailable("no configuration can be made of this yet: run it again after that")
    if not dry_run:
        click.echo(f"next: podbridge backends {next(iter(surveyed))} --verify", err=True)
    return 0


def _surveyors(cloud: str) -> dict[str, ModuleType]:
    """The modules of the types that this cloud has, by type. Invalid."""
    from bridge.config import nearest
    from bridge.provider.registry import module, types

    found: dict[str, ModuleType] = {}
    clouds: dict[str, None] = {}
    lacking: list[BridgeError] = []
    for type_ in types():
        try:
            one = module(type_)
        except BridgeError as error:
            lacking.append(error)
            continue
        if known := getattr(one, "CLOUD", ""):
            clouds[known] = None
            if known == cloud:
                found[type_] = one
    if found:
        return found
    near = nearest(cloud, clouds)
    hint = f'; did you mean "{near}"?' if near else ""
    also = "".join(f"; {one.message}" for one in lacking)
    words = f'found "{cloud}"; allowed: {", ".join(clouds) or "nothing here"}{hint}{also}'
    raise Invalid(violations=[Violation("CLOUD", words)])


def render(surveyed: dict[str, Survey]) -> str:
    """The configuration's text."""
    lines = ["apiVersion: podbridge.io/v1", "backends:"]
    for type_, one in surveyed.items():
        lines += [f"  - name: {type_}", f"    type: {type_}"]
        lines += [f"    {line}" for line in _settings(one.settings)]
    return "\n".join(lines) + "\n"


def _settings(settings: Sequence[tuple[str, Any, str]]) -> Iterator[str]:
    for key, value, why in settings:
        line = f"{key}: {_yaml(value)}"
        yield f"{line}  # {why}" if why else line


def _yaml(value: Any) -> str:
    """JSON is YAML; words that mean nothing else there need no quotes."""
    if isinstance(value, str) and re.fullmatch(r"/?[a-z][A-Za-z0-9/._:-]*[A-Za-z0-9]", value):
        return value if ": " not in value else json.dumps(value)
    return json.dumps(value)


def _write(file: Path, text: str) -> None:
    from bridge.config.source import write

    if file.exists():
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            words = f"{file} exists, and is not overwritten; --dry-run prints what it would be"
            raise Invalid(words)
        if not click.confirm(f"{file} exists. Overwrite it?", err=True):
            raise Invalid(f"{file} is as it was")
    write(file, text)
    click.echo(f"wrote {file}", err=True)


def _tell_missing(surveyed: Any) -> None:
    from bridge.cli.output import plain

    for survey in surveyed:
        for one in survey.missing:
            click.echo(plain(f"\n{one.severity.value}: {one.subject}: {one.message}"), err=True)
            if one.remedy:
                click.echo(plain(one.remedy), err=True)
