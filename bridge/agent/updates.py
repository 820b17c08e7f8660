"""Brings a changed pod to the provider, and what it asks for anew through the node's and the
backend's say: granted, put off, or never.

A resize that is not granted holds nothing else up: the provider is then told of the pod with what
its containers have (`bridge.pods.resize.in_force`), and of everything else as it is now.
"""

from __future__ import annotations

from dataclasses import replace

from bridge.agent.cluster import Cluster
from bridge.agent.provider import ProviderClient
from bridge.agent.request import Builder
from bridge.errors import Invalid, OutOfCapacity, Unsupported
from bridge.pods import Manifest, resize
from bridge.pods.resize import IN_PROGRESS, PENDING, Resize
from bridge.rpc.v1 import pod_pb2


class Updater:
    """Sends what has changed of pods that the provider has taken on."""

    def __init__(self, cluster: Cluster, provider: ProviderClient, builder: Builder) -> None:
        self._cluster = cluster
        self._provider = provider
        self._builder = builder

    async def bring(
        self,
        pod: Manifest,
        who: pod_pb2.PodIdentity,
        facts: pod_pb2.PodFacts | None,
        *,
        filled: bool,
        again: bool = False,
    ) -> Resize | None:
        """Has the pod applied as it is now; what is left of a resize afterwards, None where
        nothing is. `filled` as in `Builder.update`; `again`: only the resize is tried once more.
        Raises `bridge.errors`.
        """
        given = resize.in_force(pod)
        if given is pod:
            if not again:
                await self._update(pod, who, filled)
            return None
        found = await self._resize(pod, given, who, facts, filled)
        if found is not None and found.is_held and not again:
            await self._update(given, who, filled)
        await self._tell(pod, found)
        return found

    async def completed(self, pod: Manifest) -> None:
        """The last container of a resize runs with what was asked for."""
        await self._cluster.event(pod, *resize.event(pod, "Completed"))

    async def _resize(
        self,
        pod: Manifest,
        given: Manifest,
        who: pod_pb2.PodIdentity,
        facts: pod_pb2.PodFacts | None,
        filled: bool,
    ) -> Resize | None:
        generation = int(pod["metadata"].get("generation") or 0)
        if (lacking := self._cluster.lacks(pod)) is not None:
            return Resize(lacking[0], generation, lacking[1])
        try:
            await self._update(pod, who, filled)
        except OutOfCapacity as error:
            return Resize("Deferred", generation, error.message)
        except Unsupported as error:
            if all(resize.is_about_resources(one.field) for one in error.violations):
                return Resize("Infeasible", generation, error.message)
            raise
        except Invalid as error:
            return Resize("Error", generation, error.message)
        if _recorded(pod, IN_PROGRESS) == ("", generation):
            # Granted in an earlier life of ours: whatever was to start anew has been told to.
            return None
        runs = {
            one.name: one.restart_count
            for one in (facts.containers if facts is not None else ())
            if one.WhichOneof("state") == "running"
        }
        awaited = {name: runs[name] for name in resize.anew(pod, given) if name in runs}
        return Resize("InProgress", generation, awaits=awaited) if awaited else None

    async def _update(self, pod: Manifest, who: pod_pb2.PodIdentity, filled: bool) -> None:
        request = await self._builder.update(pod, who, filled=filled)
        await self._provider.update_pod(request)

    async def _tell(self, pod: Manifest, found: Resize | None) -> None:
        """An event for what is news: what the pod's status says of this resize was told."""
        generation = int(pod["metadata"].get("generation") or 0)
        going = _recorded(pod, IN_PROGRESS)
        if found is not None and found.state in ("Deferred", "Infeasible"):
            if _recorded(pod, PENDING) != (found.state, generation):
                await self._cluster.event(pod, *resize.event(pod, found.state, found.message))
            return
        if going is None or going[1] != generation:
            await self._cluster.event(pod, *resize.event(pod, "Started"))
        if found is None:
            await self.completed(pod)
        elif found.state == "Error" and going != ("Error", generation):
            await self._cluster.event(pod, *resize.event(pod, "Error", found.message))


def _recorded(pod: Manifest, kind: str) -> tuple[str, int] | None:
    """Reason and generation of the condition of this type that the pod's status has."""
    for one in (pod.get("status") or {}).get("conditions") or ():
        if one["type"] == kind:
            return one.get("reason") or "", int(one.get("observedGeneration") or 0)
    return None


def passed(found: Resize | None, facts: pod_pb2.PodFacts) -> Resize | None:
    """What is left of a resize by these facts: containers that it awaited may run anew by now."""
    if found is None or found.state != "InProgress":
        return found
    counts = {one.name: one for one in facts.containers}
    awaited = {
        name: count
        for name, count in found.awaits.items()
        if (one := counts.get(name)) is not None
        and (one.restart_count <= count or one.WhichOneof("state") != "running")
    }
    return replace(found, awaits=awaited) if awaited else None
