"""Keeps the Node: made or adopted, its status told, made anew where somebody deleted it.

The Node is never deleted by us: Kubernetes would fail its pods. Where somebody else deletes it, the
pod collector does the same after some 40 seconds; a watch of this one object tells us at once, and
costs a quiet node no calls. What the Node says is computed every 10 seconds and when something
changes, and sent only when it differs, or after 5 minutes.

A provider that does not answer is nothing the Node speaks of at once: it may be restarting, and
pods run on. After a while the Node is not ready, until the provider is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

from bridge.agent.provider import ProviderClient
from bridge.errors import BridgeError, Invalid, NotFound, Unavailable, Violation
from bridge.kubelet.client import ApiClient, Conflict, escaped
from bridge.kubelet.node import (
    NOTHING,
    Health,
    NodeSpec,
    Offer,
    labels,
    labels_patch,
    new_node,
    offer_of,
    status,
    status_patch,
    why_foreign,
)
from bridge.kubelet.watch import Changed, Listed, ListWatch
from bridge.pods import Manifest
from bridge.rpc.v1 import provider_pb2 as pb

PERIOD = 10.0
"""Seconds between two looks, as the kubelet's nodeStatusUpdateFrequency."""
REPORT = 300.0
"""Seconds after which the status is sent though nothing changed (nodeStatusReportFrequency)."""
GRACE = 60.0
"""Seconds that a provider may be away before the node is not ready: a restart takes less, and what
comes of NotReady (pods are evicted 300 s later) must not follow from one."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds before the provider, or the API server, is tried again: doubling."""

READY = Health(True, "KubeletReady", "podbridge is posting ready status")

_log = logging.getLogger(__name__)


class Api(Protocol):
    """What this needs of `ApiClient`."""

    async def get(self, path: str) -> Manifest:
        """One object."""

    async def post(self, path: str, body: Manifest) -> Manifest:
        """Creates one."""

    async def patch(self, path: str, body: Manifest) -> Manifest:
        """A strategic merge patch; the object as it is then."""


class NodeUpkeep:
    """One Node. `run` never ends by itself."""

    def __init__(
        self,
        api: Api,
        provider: ProviderClient,
        spec: NodeSpec,
        git_version: str,
        *,
        follow: Callable[[], AsyncGenerator[Listed | Changed, None]],
        registered: Callable[[Manifest], None] = lambda _: None,
        event: Callable[[str, str, str], None] = lambda *_: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`git_version` is the API server's. `follow` lists and watches the one Node.

        `registered` hears each Node that is ours from now on: at the start, and whenever it was
        made anew (with another UID). `event` tells people about the node: type, reason, message.
        """
        self.offer: Offer | None = None
        """What the provider offered last; None until it was heard."""
        self.problem = ""
        """Why the API server does not take what we say; empty: it does."""
        self._api, self._provider, self._spec = api, provider, spec
        self._git_version = git_version
        self._follow, self._registered, self._event = follow, registered, event
        self._clock = clock
        self._path = f"/api/v1/nodes/{escaped(spec.name)}"
        self._node: Manifest | None = None
        self._listed = False
        self._uid = ""
        self._wake = asyncio.Event()
        self._away_since: float | None = None
        self._away = ""
        self._ours: set[str] = set()
        self._sent_at = float("-inf")
        self._refused: tuple[Manifest, Manifest] | None = None
        self._ready: bool | None = None

    @classmethod
    def of(
        cls,
        client: ApiClient,
        provider: ProviderClient,
        spec: NodeSpec,
        git_version: str,
        *,
        registered: Callable[[Manifest], None] = lambda _: None,
        event: Callable[[str, str, str], None] = lambda *_: None,
    ) -> NodeUpkeep:
        """With a real API server."""
        watch = ListWatch(client, "/api/v1/nodes", fields=f"metadata.name={spec.name}")
        return cls(
            client,
            provider,
            spec,
            git_version,
            follow=watch.follow,
            registered=registered,
            event=event,
        )

    @property
    def node(self) -> Manifest | None:
        """The Node as Kubernetes has it, as far as we have heard."""
        return self._node

    @property
    def allocatable(self) -> dict[str, str]:
        """What pods may take, as quantities."""
        return dict((self.offer or NOTHING).allocatable)

    def health(self) -> Health:
        """Whether pods can be run here now."""
        since, now = self._away_since, asyncio.get_running_loop().time()
        if since is not None and now - since >= GRACE:
            return Health(False, "ProviderNotReady", f"the provider does not answer: {self._away}")
        if self.offer is None:
            return Health(False, "ProviderNotReady", "the provider was not heard yet")
        if lacking := set(self._spec.backends) - {one.name for one in self.offer.backends}:
            names = ", ".join(sorted(lacking))
            return Health(False, "BackendMissing", f"the provider has no backend {names}")
        if unready := self.offer.unready:
            # Pods that run elsewhere, or run on, must not be evicted for it.
            words = "; ".join(f"{one.name}: {one.message or 'not ready'}" for one in unready)
            return Health(True, READY.reason, f"{READY.message}; {words}")
        return READY

    async def run(self) -> None:
        """Keeps the Node. Raises Invalid where a Node of that name is somebody else's."""
        self._lost_provider("it was not heard yet")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch_provider(), name="node: provider")
                group.create_task(self._watch_node(), name="node: watch")
                group.create_task(self._keep(), name="node: upkeep")
        except ExceptionGroup as group_:
            invalid = group_.subgroup(Invalid)
            if invalid is None:
                raise
            raise invalid.exceptions[0] from None

    async def _watch_provider(self) -> None:
        request = pb.WatchNodeRequest(cluster=self._spec.cluster, node=self._spec.name)
        pause = FIRST_PAUSE
        while True:
            try:
                async for response in self._provider.watch_node(request):
                    pause = FIRST_PAUSE
                    self._heard(offer_of(response, self._spec.backends))
                self._lost_provider("it ended the watch")
            except BridgeError as error:
                self._lost_provider(str(error))
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    def _heard(self, offer: Offer) -> None:
        if self._away_since is not None and self.offer is not None:
            _log.info("node %s: the provider is back", self._spec.name)
        self.offer, self._away_since, self._away = offer, None, ""
        self._wake.set()

    def _lost_provider(self, why: str) -> None:
        if self._away_since is None:
            self._away_since = asyncio.get_running_loop().time()
            if self.offer is not None:
                _log.warning("node %s: the provider is away: %s", self._spec.name, why)
        self._away = why

    async def _watch_node(self) -> None:
        async with aclosing(self._follow()) as changes:
            async for change in changes:
                if isinstance(change, Listed):
                    self._listed = True
                    self._seen(change.items[0] if change.items else None)
                elif change.type == "DELETED":
                    self._seen(None)
                else:
                    self._seen(change.object)
                self._wake.set()

    def _seen(self, node: Manifest | None) -> None:
        if node is not None and self._node is not None and _is_older(node, self._node):
            # The watch tells late what our own call has answered already.
            return
        if node is None and self._node is not None:
            _log.warning("node %s was deleted: it is made anew", self._spec.name)
        self._node = node

    async def _keep(self) -> None:
        pause = FIRST_PAUSE
        while True:
            self._wake.clear()
            try:
                await self._step()
            except Invalid as error:
                if not self._uid:
                    raise
                self._say(error)
                wait, pause = pause, min(LONGEST_PAUSE, pause * 2)
            except BridgeError as error:
                self._say(error)
                wait, pause = pause, min(LONGEST_PAUSE, pause * 2)
            else:
                self._well()
                wait, pause = PERIOD, FIRST_PAUSE
            if self.problem:
                await asyncio.sleep(wait)
            else:
                # Not wait_for: Python 3.11's loses a cancellation that comes with the event.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()

    def _say(self, error: BridgeError) -> None:
        if not self.problem:
            _log.warning("node %s: %s", self._spec.name, error)
        self.problem = str(error)

    def _well(self) -> None:
        if self.problem:
            _log.info("node %s: the API server has it again", self._spec.name)
            self.problem = ""

    async def _step(self) -> None:
        """One look: makes, adopts, or mends the Node."""
        health = self.health()
        if not self._listed or (self.offer is None and self._away_since is None):
            return
        if self.offer is None and not self._waited():
            # Nothing to offer yet. A Node that is there stays as it is.
            return
        if self._node is None:
            await self._create(health)
        node = self._node
        if node is None:
            return
        if str(node["metadata"].get("uid", "")) != self._uid:
            self._adopt(node)
        if self.offer is not None:
            await self._mend_metadata(node)
        await self._report(self._node or node, health)
        self._tell(health)

    def _waited(self) -> bool:
        since = self._away_since
        return since is not None and asyncio.get_running_loop().time() - since >= GRACE

    async def _create(self, health: Health) -> None:
        offer = self.offer or NOTHING
        body = new_node(self._spec, offer, health, self._clock(), self._git_version)
        try:
            self._node = await self._api.post("/api/v1/nodes", body)
        except Conflict:
            # Somebody made it, or the answer to our own call was lost.
            try:
                self._node = await self._api.get(self._path)
            except NotFound:
                raise Unavailable("the node comes and goes") from None
            return
        self._sent_at = asyncio.get_running_loop().time()
        self._ours |= set(offer.capacity)
        _log.info("node %s is registered", self._spec.name)

    def _adopt(self, node: Manifest) -> None:
        if why := why_foreign(node, self._spec):
            self._uid = ""
            raise Invalid(
                violations=[Violation("nodes.name", f'the node "{self._spec.name}" {why}')]
            )
        self._uid = str(node["metadata"].get("uid", ""))
        self._refused = None
        self._registered(node)

    async def _mend_metadata(self, node: Manifest) -> None:
        patch: Manifest = {}
        offer = self.offer or NOTHING
        if change := labels_patch(node, labels(self._spec, offer)):
            patch["metadata"] = {"labels": change}
        if not (node.get("spec") or {}).get("providerID"):
            # It can be set once, and never be changed.
            patch["spec"] = {"providerID": self._spec.provider_id}
        if patch:
            await self._patch(self._path, patch)

    async def _report(self, node: Manifest, health: Health) -> None:
        there = node.get("status") or {}
        offer = self.offer
        if offer is None:
            # Never heard: what the Node says of its capacity may still be right.
            offer = Offer(there.get("capacity") or {}, there.get("allocatable") or {})
            if not offer.capacity:
                offer = NOTHING
        now = asyncio.get_running_loop().time()
        wanted = status(self._spec, offer, health, self._clock(), self._git_version, previous=there)
        due = now - self._sent_at >= REPORT
        patch = status_patch(there, wanted, self._ours, heartbeat=due)
        if not patch or (not due and self._is_refused(wanted, patch)):
            return
        patch = status_patch(there, wanted, self._ours, heartbeat=True)
        if (answer := await self._patch(f"{self._path}/status", {"status": patch})) is None:
            return
        self._sent_at = now
        left = status_patch(answer.get("status") or {}, wanted, self._ours)
        self._refused = (_timeless(wanted), _timeless(left)) if left else None
        self._ours |= set(offer.capacity)

    def _is_refused(self, wanted: Manifest, patch: Manifest) -> bool:
        """Whether just this was sent before and the API server did not keep it: a field that it
        does not know (declaredFeatures behind a gate) must not be sent every 10 seconds."""
        return self._refused == (_timeless(wanted), _timeless(patch))

    async def _patch(self, path: str, body: Manifest) -> Manifest | None:
        try:
            answer = await self._api.patch(path, body)
        except NotFound:
            self._node = None
            self._wake.set()
            return None
        self._node = answer
        return answer

    def _tell(self, health: Health) -> None:
        if self._ready is not None and self._ready != health.ready:
            kind = "Normal" if health.ready else "Warning"
            reason = "NodeReady" if health.ready else "NodeNotReady"
            self._event(kind, reason, f"Node {self._spec.name} status is now: {reason}")
        elif self._ready is None:
            self._event("Normal", "Starting", "Starting podbridge.")
        self._ready = health.ready


def _is_older(one: Manifest, other: Manifest) -> bool:
    """Of two versions of the same Node. Versions are numbers that grow (KEP-5504)."""
    first, second = one["metadata"], other["metadata"]
    if first.get("uid") != second.get("uid"):
        return False
    try:
        return int(first["resourceVersion"]) < int(second["resourceVersion"])
    except (KeyError, ValueError):
        return False


def _timeless(part: Manifest) -> Manifest:
    """Without the conditions' times: what is left says whether two are the same."""
    conditions = [
        {key: value for key, value in one.items() if not key.startswith("last")}
        for one in part.get("conditions") or ()
    ]
    return {**part, "conditions": conditions}
