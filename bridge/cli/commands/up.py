"""`podbridge up`: a virtual node, with its provider in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import click

from bridge.errors import Invalid, Violation

_EXAMPLES = """
\b
Examples:
  podbridge up --on process --context dev
  podbridge up --node burst --kubeconfig ./kubeconfig

Pods go on running when it stops, and are adopted when it starts again. The node stays too: kubectl
delete node removes it when it is not to come back.
"""

F = TypeVar("F", bound=Callable[..., Any])


def node_options(function: F) -> F:
    """What `up` and `kubelet` have in common."""
    for option in reversed(
        (
            click.option("--kubeconfig", metavar="FILE", help="How to reach the API server."),
            click.option("--context", metavar="NAME", help="Another context of the kubeconfig."),
            click.option("--node", metavar="NAME", help="The node's name (podbridge)."),
            click.option(
                "--no-taint",
                is_flag=True,
                default=None,
                help="Take pods that tolerate no virtual-kubelet.io/provider taint.",
            ),
        )
    ):
        function = option(function)
    return function


def configured(config: str | None, given: dict[str, Any]) -> Any:
    """The configuration with these flags. A flag about the node goes with one node only."""
    from bridge.cli.wiring import load_config

    cluster = {f"cluster__{key}": given[key] for key in ("kubeconfig", "context")}
    found = load_config(config, **cluster)
    node = {"name": given["node"], "no_taint": given["no_taint"]}
    node = {key: value for key, value in node.items() if value is not None}
    if not node:
        return found
    if len(found.nodes) > 1:
        flag = "--node" if "name" in node else "--no-taint"
        words = f"several nodes are configured: {', '.join(one.name for one in found.nodes)}"
        raise Invalid(violations=[Violation(flag, words)])
    return load_config(config, **cluster, **{f"nodes[0]__{key}": one for key, one in node.items()})


@click.command(epilog=_EXAMPLES)
@node_options
@click.option("--on", metavar="BACKENDS", help="Only these backends (names or types).")
@click.pass_obj
def command(obj: dict[str, str | None], /, on: str | None, **given: Any) -> int:
    """Join a cluster as a virtual node, whose pods run on the backends, until stopped."""
    from bridge.cli.joining import join
    from bridge.cli.wiring import Target, choose_backends

    config = configured(obj["config"], given)
    backends = choose_backends(config, on)
    if not backends:
        words = "no backend is configured; name a type, such as --on process"
        raise Invalid(violations=[Violation("--on", words)])
    return asyncio.run(join(config, Target(backends, None, config.max_run)))
