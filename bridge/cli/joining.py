"""Joining a cluster: from the configuration to nodes that are kept until somebody stops it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.cli.wiring import Target, provider_of
from bridge.errors import BridgeError, Invalid, Unauthorized, Unavailable, Violation

if TYPE_CHECKING:
    from bridge.agent.loop import ProviderNote
    from bridge.agent.provider import ProviderClient
    from bridge.config import Config, NodeConfig
    from bridge.kubelet.client import ApiClient
    from bridge.kubelet.credentials import Credentials
    from bridge.kubelet.node import NodeSpec
    from bridge.kubelet.shim import Shim

PATIENCE = 10.0
"""Seconds that the API server, and the provider, may take to answer before the command gives up."""


async def join(config: Config, target: Target) -> int:
    """Keeps the configured nodes until SIGINT or SIGTERM. Pods run on when it stops."""
    import bridge
    from bridge.config import default_nodes
    from bridge.kubelet.client import ApiClient
    from bridge.kubelet.credentials import in_cluster, load
    from bridge.kubelet.identity import cluster_id, replica
    from bridge.kubelet.shim import Shim

    cluster = config.cluster
    _only_what_there_is(config)
    path = Path(cluster.kubeconfig) if cluster.kubeconfig is not None else None
    if cluster.identity == "service-account":
        credentials = in_cluster()
    else:
        credentials = load(path, cluster.context)
    address = cluster.api_server_address
    host, _, port = address.rpartition(":") if address else ("", "", "")
    async with (
        ApiClient(credentials, user_agent=f"podbridge/{bridge.__version__}") as client,
        provider_of(target) as provider,
    ):
        git_version = await _version(client)
        id_ = await cluster_id(client, cluster.id)
        await _answers(provider, id_)
        shims = [
            Shim(
                credentials,
                client,
                provider,
                spec_of(one, id_, credentials),
                replica=replica(cluster.folder(os.environ) / one.name, one.name),
                git_version=git_version,
                api_server=(host.strip("[]"), int(port)) if address else None,
                note=_say,
            )
            for one in default_nodes(config.nodes)
        ]
        names = ", ".join(one.name for one in default_nodes(config.nodes))
        click.echo(f"joining {credentials.server} ({git_version}) as {names}; Ctrl-C leaves")
        return await _keep(shims)


def _only_what_there_is(config: Config) -> None:
    """Refuses what can be configured, and this command cannot do yet."""
    wrong = []
    if config.cluster.identity == "node":
        words = "found node; allowed: kubeconfig or service-account: give a kubeconfig that has the"
        wrong.append(Violation("cluster.identity", f"{words} node's certificate"))
    wrong += [
        Violation(f"nodes[{index}].serving", "there is no kubelet's API to serve yet: leave it out")
        for index, one in enumerate(config.nodes)
        if one.serving != type(one.serving)()
    ]
    if wrong:
        raise Invalid(violations=wrong)


async def _keep(shims: Sequence[Shim]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    nodes = [asyncio.create_task(one.run(), name="shim") for one in shims]
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait([*nodes, stopping], return_when=asyncio.FIRST_COMPLETED)
        for one in nodes:
            if one.done():
                one.result()
    finally:
        for task in (*nodes, stopping):
            task.cancel()
        await asyncio.gather(*nodes, stopping, return_exceptions=True)
    click.echo("left; the nodes and their pods stay")
    return 0


def _say(note: ProviderNote) -> None:
    words = f"lost: {note.message}" if note.what == "lost" else "back"
    click.echo(f"the provider is {words}", err=True)


def spec_of(node: NodeConfig, cluster: str, credentials: Credentials) -> NodeSpec:
    """The node as the shim takes it."""
    from bridge.kubelet.identity import own_address
    from bridge.kubelet.node import NodeSpec

    return NodeSpec(
        cluster=cluster,
        name=node.name,
        address=node.address or own_address(credentials.server, os.environ),
        port=node.port,
        backends=node.backends,
        labels=node.labels,
        taint=not node.no_taint,
        region=node.region or "",
        zone=node.zone or "",
        architecture=node.architecture or "",
        capacity_type=node.capacity_type or "",
        declared=(),
    )


async def _version(client: ApiClient) -> str:
    """The API server's version, which is also the first look at whether it takes us."""
    from bridge.kubelet.identity import server_version

    silent = f"the API server at {client.credentials.server} does not answer"
    try:
        async with asyncio.timeout(PATIENCE):
            return await server_version(client)
    except TimeoutError:
        raise Unavailable(silent) from None
    except Unauthorized as error:
        source = client.credentials.source
        raise Unauthorized(f"the API server refuses {source}: {error}") from None
    except Unavailable as error:
        raise Unavailable(f"{silent}: {error}") from None


async def _answers(provider: ProviderClient, cluster: str) -> None:
    """Unavailable where the provider does not say what it has."""
    from bridge.local.session import NODE
    from bridge.rpc.v1 import provider_pb2 as pb

    try:
        async with asyncio.timeout(PATIENCE):
            request = pb.WatchNodeRequest(cluster=cluster, node=NODE)
            async with aclosing(provider.watch_node(request)) as offers:  # type: ignore[type-var]
                async for _ in offers:
                    return
    except TimeoutError:
        raise Unavailable("the provider does not answer") from None
    except Invalid:
        raise
    except BridgeError as error:
        raise Unavailable(f"the provider does not answer: {error}") from None
