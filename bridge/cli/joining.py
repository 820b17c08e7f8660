"""Joining a cluster: from the configuration to nodes that are kept until somebody stops it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from bridge.cli.wiring import Target, provider_of
from bridge.errors import BridgeError, Invalid, Unauthorized, Unavailable, Violation

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from bridge.agent.loop import ProviderNote
    from bridge.agent.provider import ProviderClient
    from bridge.config import Cluster, Config, NodeConfig
    from bridge.kubelet.client import ApiClient
    from bridge.kubelet.cluster import ApiCluster
    from bridge.kubelet.credentials import Credentials
    from bridge.kubelet.node import NodeSpec
    from bridge.kubelet.rotation import Announce
    from bridge.kubelet.serving import Certificates, Serving
    from bridge.kubelet.upkeep import NodeUpkeep

FILES = 65_536
"""Files that this process may have open, where it is let."""
REVIEWS = 8
"""Connections to the API server for the questions of who calls the kubelet's API."""
PATIENCE = 10.0
"""Seconds that the API server, and the provider, may take to answer before the command gives up."""


async def join(config: Config, target: Target) -> int:
    """Keeps the configured nodes until SIGINT or SIGTERM. Pods run on when it stops."""
    import resource

    from bridge.config import default_nodes

    # Each follower of a log is one.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES if hard < 0 else min(hard, FILES), hard))

    nodes = default_nodes(config.nodes)
    if config.cluster.identity == "kubeconfig":
        # What is wrong with the input comes before what stands in its way here.
        await _credentials(config.cluster, nodes[0].name)
    for index, one in enumerate(nodes):
        _check_serving(one, f"nodes[{index}]" if config.nodes else "nodes[0]")
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(provider_of(target))
        joined = [await _join(config, one, provider, stack) for one in nodes]
        names = ", ".join(one.name for one in nodes)
        client, git_version = joined[0].client, joined[0].git_version
        server = client.credentials.server
        click.echo(f"joining {server} ({git_version}) as {names}; Ctrl-C leaves")
        return await _keep([run for one in joined for run in one.tasks])


class _Joined(NamedTuple):
    """What keeps one node, not started."""

    client: ApiClient
    git_version: str
    tasks: Sequence[Coroutine[Any, Any, None]]


async def _join(
    config: Config, node: NodeConfig, provider: ProviderClient, stack: AsyncExitStack
) -> _Joined:
    """Looks whether the API server and the provider take us, and makes the node's shim."""
    import bridge
    from bridge.kubelet.certificates import Store
    from bridge.kubelet.certificates import client as client_certificate
    from bridge.kubelet.client import ApiClient
    from bridge.kubelet.discovery import cluster_id
    from bridge.kubelet.replica import replica
    from bridge.kubelet.rotation import CertificateKeeper
    from bridge.kubelet.shim import Shim

    cluster = config.cluster
    credentials = await _credentials(cluster, node.name)
    agent = f"podbridge/{bridge.__version__}"
    client = await stack.enter_async_context(ApiClient(credentials, user_agent=agent))
    # Apart: who asks for reviews may be anybody, and must not hold up what the pods need.
    asking = ApiClient(credentials, user_agent=agent, connections=REVIEWS)
    reviews = await stack.enter_async_context(asking)
    git_version = await _version(client)
    id_ = await cluster_id(client, cluster.id)
    await _answers(provider, id_, node.name)
    folder = _folder(cluster, id_, node.name)
    spec = spec_of(node, id_, credentials)
    await _check_node(client, spec)
    address = cluster.api_server_address
    host, _, port = address.rpartition(":") if address else ("", "", "")
    shim = Shim(
        credentials,
        client,
        provider,
        spec,
        replica=replica(folder, node.name),
        git_version=git_version,
        api_server=(host.strip("[]"), int(port)) if address else None,
        note=_say,
        serve=_Api(cluster, node, spec, client, reviews, provider, folder),
    )
    tasks = [shim.run()]
    if cluster.identity == "node":
        store, wanted = Store(folder, "client"), client_certificate(node.name)
        tasks.append(CertificateKeeper(client, store, wanted, announce=_announce).run())
    return _Joined(client, git_version, tasks)


def _folder(cluster: Cluster, id_: str, node: str) -> Path:
    """Of a node's own state: another cluster may have a node of that name, and other CAs."""
    return cluster.folder(os.environ) / id_ / node


async def _credentials(cluster: Cluster, node: str) -> Credentials:
    """Who we are, as configured."""
    from bridge.kubelet.certificates import Store
    from bridge.kubelet.client import ApiClient
    from bridge.kubelet.credentials import in_cluster, load
    from bridge.kubelet.identity import node_credentials

    if cluster.identity == "service-account":
        return in_cluster()
    if cluster.identity == "kubeconfig":
        return load(cluster.kubeconfig, cluster.context)

    def base() -> Credentials:
        return load(cluster.bootstrap_kubeconfig)

    assert cluster.id is not None, "the configuration asks for it (bridge.config.cluster)"
    store = Store(_folder(cluster, cluster.id, node), "client")
    if store.load() is None:
        # Whoever waits for a certificate waits for an approval, not for a server that is not there.
        async with ApiClient(base()) as client:
            await _version(client)
    return await node_credentials(base, store, node, announce=_announce)


@dataclass(frozen=True, slots=True)
class _Api:
    """Makes a node's HTTPS API (`bridge.kubelet.shim.Serve`)."""

    cluster: Cluster
    node: NodeConfig
    spec: NodeSpec
    client: ApiClient
    reviews: ApiClient
    provider: ProviderClient
    folder: Path

    def __call__(self, pods: ApiCluster, upkeep: NodeUpkeep, announce: Announce) -> Serving:
        from bridge.kubelet.api.auth import ApiReviews
        from bridge.kubelet.api.server import KubeletApi
        from bridge.kubelet.serving import Serving, cas_from, configuration

        spec, client = self.spec, self.client

        def api(context: Callable[[], ssl.SSLContext]) -> KubeletApi:
            return KubeletApi(
                cluster=spec.cluster,
                node=spec.name,
                pods=pods,
                provider=self.provider,
                reviews=ApiReviews(self.reviews, spec.name),
                context=context,
                address=_anywhere(spec.address),
                port=spec.port,
                problem=lambda: upkeep.problem or pods.problem,
                calls=client.calls,
                configuration=configuration(spec),
            )

        cas = cas_from(self.cluster.client_ca, client)
        return Serving(api, self._certificates(announce), cas, announce)

    def _certificates(self, announce: Announce) -> Certificates:
        from bridge.kubelet.certificates import Store
        from bridge.kubelet.serving import FromCluster, FromFiles

        serving = self.node.serving
        if serving.cert is not None and serving.key is not None:
            return FromFiles(serving.cert, serving.key)
        store = Store(self.folder, "serving")
        name, address = self.spec.name, self.spec.address
        return FromCluster(self.client, store, name, address, serving.self_signed, announce)


def _anywhere(address: str) -> str:
    """Where to listen for what comes to `address`: that one may be another machine's, in front."""
    return "::" if ":" in address else "0.0.0.0"  # noqa: S104 - the API server comes from elsewhere


def _check_serving(node: NodeConfig, where: str) -> None:
    """Invalid for a certificate that is none; Unavailable where another one has the port."""
    from bridge.kubelet.serving import FromFiles

    if node.serving.cert is not None and node.serving.key is not None:
        FromFiles(node.serving.cert, node.serving.key).load()
    family = socket.AF_INET6 if node.address and ":" in node.address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_anywhere(node.address or ""), node.port))
        except OSError as error:
            words = f"port {node.port} for the kubelet's API: {error.strerror or error}"
            raise Unavailable(f"{words}; choose another one: {where}.port") from None


async def _keep(tasks: Sequence[Coroutine[Any, Any, None]]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    nodes = [asyncio.create_task(one, name="node") for one in tasks]
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


def _announce(_: str, __: str, message: str) -> None:
    click.echo(message, err=True)


def spec_of(node: NodeConfig, cluster: str, credentials: Credentials) -> NodeSpec:
    """The node as the shim takes it."""
    from bridge.kubelet.discovery import own_address
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
    )


async def _version(client: ApiClient) -> str:
    """The API server's version, which is also the first look at whether it takes us."""
    from bridge.kubelet.discovery import server_version

    silent = f"the API server at {client.credentials.server} does not answer"
    try:
        async with asyncio.timeout(PATIENCE):
            return await server_version(client)
    except TimeoutError:
        raise Unavailable(silent) from None
    except Unauthorized as error:
        raise _refused(client, error) from None
    except Unavailable as error:
        raise Unavailable(f"{silent}: {error}") from None


async def _check_node(client: ApiClient, spec: NodeSpec) -> None:
    """Invalid where the node's name is somebody else's, whose Lease is renewed: to wait for that
    would never end. Unauthorized where we may not even look at our node."""
    from bridge.kubelet.client import escaped
    from bridge.kubelet.node import why_foreign

    try:
        async with asyncio.timeout(PATIENCE):
            there = await client.get(f"/api/v1/nodes/{escaped(spec.name)}")
    except Unauthorized as error:
        raise _refused(client, error) from None
    except (TimeoutError, BridgeError):
        # Not there yet, or asked again when it is made.
        return
    if why := why_foreign(there, spec):
        words = f'the node "{spec.name}" {why}'
        raise Invalid(violations=[Violation("nodes.name", words)])


def _refused(client: ApiClient, error: BridgeError) -> Unauthorized:
    return Unauthorized(f"the API server refuses {client.credentials.source}: {error}")


async def _answers(provider: ProviderClient, cluster: str, node: str) -> None:
    """Unavailable where the provider does not say what it has."""
    from bridge.rpc.v1 import provider_pb2 as pb

    try:
        async with asyncio.timeout(PATIENCE):
            request = pb.WatchNodeRequest(cluster=cluster, node=node)
            async with aclosing(provider.watch_node(request)) as offers:  # type: ignore[type-var]
                async for _ in offers:
                    return
    except TimeoutError:
        raise Unavailable("the provider does not answer") from None
    except Invalid:
        raise
    except BridgeError as error:
        raise Unavailable(f"the provider does not answer: {error}") from None
