"""`podbridge doctor`: what is wrong between here, the API server and the provider."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from bridge.cli.output import format_option
from bridge.errors import BridgeError, Invalid

if TYPE_CHECKING:
    from bridge.cli.wiring import Target
    from bridge.config import Cluster, Config, NodeConfig
    from bridge.kubelet.client import ApiClient
    from bridge.kubelet.credentials import Credentials
    from bridge.kubelet.findings import Finding

_EXAMPLES = """
\b
Examples:
  podbridge doctor
  podbridge doctor --kubeconfig admin.kubeconfig --on process
  podbridge doctor --provider unix:///run/podbridge.sock -o json

Nothing is changed. Exit code 0: all is well; 1: something is not; 2: the input is wrong.
"""
_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


@click.command(epilog=_EXAMPLES)
@click.option("--kubeconfig", metavar="FILE", help="How to reach the API server.")
@click.option("--context", metavar="NAME", help="Another context of the kubeconfig.")
@click.option("--node", metavar="NAME", help="The node's name (podbridge).")
@click.option("--on", metavar="BACKENDS", help="Only these backends (names or types).")
@click.option("--provider", metavar="ADDRESS", help="unix:///PATH or HOST:PORT; else in process.")
@click.option(
    "--alive",
    is_flag=True,
    help="Only whether podbridge up or kubelet is alive on this machine: for a liveness probe.",
)
@format_option("json", "yaml")
@click.pass_obj
def command(
    obj: dict[str, str | None],
    /,
    on: str | None,
    provider: str | None,
    alive: bool,
    output: str | None,
    **given: str | None,
) -> int:
    """Say what is wrong between here, the API server and the provider, and what to do."""
    from bridge.cli.commands.up import configured
    from bridge.cli.wiring import Target, choose_backends, read_tls

    # Whoever looks as somebody else says so by a kubeconfig.
    config = configured(obj["config"], {**given, "no_taint": None})
    if alive:
        return _report(_alive(config), output)
    backends = () if provider is not None else choose_backends(config, on)
    tls = read_tls(config) if provider is not None else None
    target = Target(backends, provider, config.max_run, tls)
    return _report(asyncio.run(_examined(config, obj["config"], target)), output)


def _report(findings: Sequence[Finding], output: str | None) -> int:
    """Prints them; the exit code."""
    from bridge.cli.output import coloured, plain, print_value

    well = all(one.level != "problem" for one in findings)
    if output is not None:
        plain_ = [{k: getattr(one, k) for k in one.__slots__} for one in findings]
        print_value({"ok": well, "findings": plain_}, output)
        return 0 if well else 1
    width = max(len(one.look) for one in findings)
    for one in findings:
        level = f"{one.level:<9}"
        level = click.style(level, fg=_COLOURS[one.level]) if coloured() else level
        print(f"{level}{one.look:<{width}}  {plain(' '.join(one.message.split()))}")
        if one.advice:
            print(f"{'':<9}{'':<{width}}  -> {plain(one.advice)}")
    return 0 if well else 1


def _alive(config: Config) -> list[Finding]:
    """Whether a process keeps each node from this machine, and its API, if it is open, answers."""
    from bridge.config import default_nodes
    from bridge.kubelet.alive import looked_at

    folder = config.cluster.folder(os.environ)
    return [looked_at(folder, one.name, one.port) for one in default_nodes(config.nodes)]


# What is looked at.


async def _examined(config: Config, file: str | None, target: Target) -> list[Finding]:
    """All findings, in the order in which they are read; the looks run side by side."""
    cluster, provider = await asyncio.gather(_cluster(config), _provider(config, target))
    return [_configuration(config, file, target), *cluster, *provider]


def _configuration(config: Config, file: str | None, target: Target) -> Finding:
    from bridge.config import CONFIG_VARIABLE, default_nodes, find
    from bridge.kubelet.findings import Finding

    where = file or os.environ.get(CONFIG_VARIABLE) or find(os.environ) or "no file"
    nodes = ", ".join(one.name for one in default_nodes(config.nodes))
    if target.provider is None and not target.backends:
        words = f"{where}: no backend is configured, so that no provider was looked at"
        advice = "configure one, name a type (--on process), or a provider (--provider ADDRESS)"
        return Finding("configuration", "note", words, advice)
    places = target.provider or ", ".join(one.name for one in target.backends)
    return Finding("configuration", "ok", f"{where}: nodes {nodes}; pods run at {places}")


async def _provider(config: Config, target: Target) -> list[Finding]:
    from bridge.cli.wiring import NOBODY, onlooker_of
    from bridge.config import default_nodes
    from bridge.kubelet import diagnosis

    if target.provider is None and not target.backends:
        return []
    node = default_nodes(config.nodes)[0]

    async def look() -> Sequence[Finding]:
        async with onlooker_of(target) as onlooker:
            return await diagnosis.provider(onlooker, config.cluster.id or NOBODY, node.name)

    return await diagnosis.bounded("provider", look)


class _Way(NamedTuple):
    """To the API server, for one node."""

    node: NodeConfig
    client: ApiClient
    findings: list[Finding]


async def _cluster(config: Config) -> list[Finding]:
    """Everything about the API server and the nodes."""
    from bridge.config import default_nodes
    from bridge.kubelet import diagnosis
    from bridge.kubelet.discovery import server_version

    ways = [await _way(config.cluster, one) for one in default_nodes(config.nodes)]
    try:
        found = [finding for one in ways for finding in one.findings]
        client = ways[0].client
        credentials = client.credentials

        async def answers() -> Sequence[Finding]:
            return [diagnosis.version(credentials.server, await server_version(client))]

        first = await diagnosis.bounded("API server", answers)
        found += [_with_server(one, credentials) for one in first]
        if any(one.level == "problem" and "answers: " not in one.message for one in first):
            # Every other look would say the same.
            return found
        looks = [
            diagnosis.bounded("clock", partial(diagnosis.clock, credentials)),
            *(_node(config.cluster, one) for one in ways),
            diagnosis.bounded("metrics-server", partial(diagnosis.metrics, client)),
        ]
        return found + [one for some in await asyncio.gather(*looks) for one in some]
    finally:
        for one in ways:
            await one.client.close()


def _with_server(finding: Finding, credentials: Credentials) -> Finding:
    """An error says by itself neither which server it is about, nor who asked."""
    from dataclasses import replace

    if finding.level != "problem" or finding.message.startswith(credentials.server):
        return finding
    message = f"{credentials.server}: {finding.message}"
    return replace(finding, message=message, advice=f"we are {credentials.source}")


async def _way(cluster: Cluster, node: NodeConfig) -> _Way:
    """Who we are for a node; no certificate is asked for. Invalid: nothing says how."""
    from bridge.kubelet.certificates import Store
    from bridge.kubelet.client import ApiClient
    from bridge.kubelet.credentials import in_cluster, load
    from bridge.kubelet.findings import Finding
    from bridge.kubelet.identity import node_credentials

    if cluster.identity != "node" or cluster.kubeconfig is not None:
        made = in_cluster() if cluster.identity == "service-account" else None
        made = made or load(cluster.kubeconfig, cluster.context)
        return _Way(node, ApiClient(made), [])

    def base() -> Credentials:
        return load(cluster.bootstrap_kubeconfig)

    look = f"client certificate of {node.name}"
    store = Store(cluster.folder(os.environ) / str(cluster.id) / node.name, "client")
    try:
        pair = store.load()
        if pair is not None and time.time() < pair.not_after:
            return _Way(node, ApiClient(await node_credentials(base, store, node.name)), [])
        words = f"there is none in {store.path}" if pair is None else "it has expired"
    except Invalid as error:
        words = error.message
    advice = "podbridge up asks for one; until then this looks with bootstrap_kubeconfig"
    finding = Finding(look, "problem", words, advice)
    return _Way(node, ApiClient(base()), [finding])


async def _node(cluster: Cluster, way: _Way) -> list[Finding]:
    """Everything about one node."""
    from bridge.kubelet import diagnosis, permissions
    from bridge.kubelet.reachability import certificate, endpoint, reached

    client, name = way.client, way.node.name
    spec = await _spec(cluster, way)
    there: dict[str, Any] = {}

    async def rights() -> Sequence[Finding]:
        identity, user = await diagnosis.who(client)
        if identity.level == "problem":
            return [identity]
        knows_cas = cluster.client_ca is not None
        asked = permissions.needed(
            name, user, knows_cluster=cluster.id is not None, knows_cas=knows_cas
        )
        return [identity, *await permissions.permissions(client, name, asked)]

    async def object_() -> Sequence[Finding]:
        found = await diagnosis.find_node(client, name)
        there.update(found or {})
        return diagnosis.node(found, spec)

    async def api() -> Sequence[Finding]:
        address, port = endpoint(there)
        if not address or not port:
            return []
        pair = await asyncio.gather(
            reached(client, name, address, port), certificate(name, address, port)
        )
        return [one for some in pair for one in some]

    async def object_and_api() -> list[Finding]:
        found = await diagnosis.bounded(f"node {name}", object_)
        return found + await diagnosis.bounded(f"API of {name}", api)

    found = await asyncio.gather(
        diagnosis.bounded("identity", rights),
        object_and_api(),
        diagnosis.bounded(f"lease of {name}", partial(diagnosis.lease, client.credentials, name)),
        diagnosis.bounded(
            f"certificate requests of {name}", partial(diagnosis.requests, client, name)
        ),
    )
    return [one for some in found for one in some]


async def _spec(cluster: Cluster, way: _Way) -> Any:
    """What the Node should be. Its cluster is empty where that cannot be known."""
    from bridge.kubelet.diagnosis import LIMIT
    from bridge.kubelet.discovery import cluster_id
    from bridge.kubelet.node import NodeSpec

    try:
        async with asyncio.timeout(LIMIT):
            found = await cluster_id(way.client, cluster.id)
    except (BridgeError, TimeoutError):
        # Told by the permissions.
        found = ""
    return NodeSpec(found, way.node.name, "")
