"""One virtual node: everything that a kubelet does for it, around the pod loop.

Only the replica that holds the node's Lease acts. It keeps the Node, runs the pod loop, and answers
the API server; when the Lease is lost all of that ends at once, and begins anew with the next one.
Pods run on meanwhile: nothing of theirs is here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bridge.agent.loop import Agent, ProviderNote
from bridge.agent.provider import ProviderClient
from bridge.kubelet.client import ApiClient
from bridge.kubelet.cluster import ApiCluster
from bridge.kubelet.credentials import Credentials
from bridge.kubelet.lease import Lease, LoopBeat
from bridge.kubelet.node import NodeSpec
from bridge.kubelet.replica import Replica
from bridge.kubelet.rotation import Announce
from bridge.kubelet.serving import Serving
from bridge.kubelet.subset import Subset
from bridge.kubelet.upkeep import NodeUpkeep
from bridge.pods import Manifest

Serve = Callable[[ApiCluster, NodeUpkeep, Announce], Serving]
"""Makes a node's API while this replica acts; the last hears what to tell people of the node."""

_log = logging.getLogger(__name__)


class Shim:
    """Keeps one node until cancelled.

    `replica` names this process among those that may act for the node; it is let go at the end.
    `git_version` is the API server's, `api_server` what pods are told of it (host, port), where
    that is not the cluster's own address. `note` hears of the provider as runs do.
    `serve` makes the HTTPS API; without it there is none.
    """

    def __init__(
        self,
        credentials: Credentials,
        client: ApiClient,
        provider: ProviderClient,
        spec: NodeSpec,
        *,
        replica: Replica,
        git_version: str,
        api_server: tuple[str, int] | None = None,
        note: Callable[[ProviderNote], None] = lambda _: None,
        serve: Serve | None = None,
    ) -> None:
        self._credentials, self._client, self._provider = credentials, client, provider
        self._spec = spec
        self._replica = replica
        self._git_version = git_version
        self._api_server = api_server
        self._note = note
        self._serve = serve

    async def run(self) -> None:
        """Acts whenever it holds the Lease. Invalid: a Node of that name is somebody else's, or
        the provider speaks another contract."""
        alive = LoopBeat(asyncio.get_running_loop())
        name, returning = self._replica.identity, self._replica.returning
        lease = Lease(self._credentials, self._spec.name, name, returning=returning, alive=alive)
        lease.start()
        try:
            while True:
                await lease.wait_for(True)
                await self._act(lease)
        finally:
            await lease.aclose()
            self._replica.close()

    def _narrowed(self, upkeep: NodeUpkeep) -> ProviderClient:
        """The provider, as far as it is this node's."""
        if not self._spec.backends:
            return self._provider
        return Subset(self._provider, lambda: upkeep.offer.backends if upkeep.offer else None)

    async def _act(self, lease: Lease) -> None:
        """Until the Lease is lost."""
        spec = self._spec
        upkeep: NodeUpkeep | None = None

        def allocatable() -> dict[str, str]:
            return upkeep.allocatable if upkeep is not None and upkeep.offer is not None else {}

        async with ApiCluster(
            self._client,
            spec.cluster,
            spec.name,
            api_server=self._api_server,
            allocatable=allocatable,
            as_node=lambda: upkeep.node if upkeep is not None else None,
        ) as cluster:

            def registered(node: Manifest) -> None:
                lease.own(node["metadata"]["uid"])

            def tell(kind: str, reason: str, message: str) -> None:
                # As the kubelet has it: about the Node by its name, which stands for its UID too.
                about = {"kind": "Node", "metadata": {"name": spec.name, "uid": spec.name}}
                cluster.recorder.record(about, kind, reason, message)

            upkeep = NodeUpkeep.of(
                self._client,
                self._provider,
                spec,
                self._git_version,
                registered=registered,
                event=tell,
            )
            agent = Agent(cluster, self._narrowed(upkeep), note=self._note)
            cluster.on_references = agent.refers_to_news
            working = [
                asyncio.create_task(agent.run(), name=f"pods of {spec.name}"),
                asyncio.create_task(upkeep.run(), name=f"node {spec.name}"),
            ]
            if self._serve is not None:
                serving = self._serve(cluster, upkeep, tell)
                working.append(asyncio.create_task(serving.run(), name=f"API of {spec.name}"))
            losing = asyncio.create_task(lease.wait_for(False), name=f"lease of {spec.name}")
            try:
                await asyncio.wait([*working, losing], return_when=asyncio.FIRST_COMPLETED)
                for one in working:
                    if one.done():
                        one.result()
            finally:
                for one in (*working, losing):
                    one.cancel()
                await asyncio.gather(*working, losing, return_exceptions=True)
