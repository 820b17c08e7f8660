"""`podbridge kubelet`: a virtual node whose provider is another process."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from bridge.cli.commands.up import configured, node_options

_EXAMPLES = """
\b
Examples:
  podbridge provider --on process --listen unix:///run/podbridge.sock
  podbridge kubelet --provider unix:///run/podbridge.sock --context dev

Off this host mutual TLS is required: provider.tls in the configuration.
"""


@click.command(epilog=_EXAMPLES)
@node_options
@click.option("--provider", required=True, metavar="ADDRESS", help="unix:///PATH or HOST:PORT.")
@click.pass_obj
def command(obj: dict[str, str | None], /, provider: str, **given: Any) -> int:
    """Join a cluster as a virtual node, whose pods run at a provider, until stopped."""
    from bridge.cli.joining import join
    from bridge.cli.wiring import Target, read_tls

    config = configured(obj["config"], given)
    return asyncio.run(join(config, Target((), provider, config.max_run, read_tls(config))))
