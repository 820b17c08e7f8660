"""`podbridge version`: what runs here."""

from __future__ import annotations

import platform

import click

import bridge
from bridge.cli.output import format_option

_EXAMPLES = """
\b
Examples:
  podbridge version
  podbridge version -o json
"""


@click.command(epilog=_EXAMPLES)
@format_option("json", "yaml")
def command(output: str | None) -> None:
    """Print versions: ours, the contract's, Python's and the platform's."""
    from bridge.cli.output import print_value
    from bridge.rpc.channel import CONTRACT

    found = {
        "version": bridge.__version__,
        "contract": CONTRACT,
        "python": platform.python_version(),
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }
    if output is not None:
        print_value(found, output)
        return
    for name, value in found.items():
        print(f"{name + ':':<10} {value}")
