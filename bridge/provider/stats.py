"""What pods use, as the contract tells it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from bridge import adapter as seam
from bridge.errors import BridgeError
from bridge.provider.backend import Backend
from bridge.provider.facts import identity_to_wire, timestamp
from bridge.provider.record import Record
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.workload import Identity

_log = logging.getLogger(__name__)


async def stats(records: Iterable[Record]) -> pb.GetStatsResponse:
    """The usage of these pods: those that have begun, where their backend knows it. One backend
    that does not answer hides nothing of the others."""
    placed: dict[str, tuple[Backend, dict[str, Identity]]] = {}
    for record in records:
        backend = record.backend
        if backend is None or record.launched_at is None or record.ended or record.gone:
            continue
        _, identities = placed.setdefault(backend.name, (backend, {}))
        identities[record.identity.uid] = record.identity
    response = pb.GetStatsResponse()
    for backend, identities in placed.values():
        adapter = backend.adapter
        if not isinstance(adapter, seam.Stats):
            continue
        try:
            known = await adapter.stats(list(identities.values()))
        except BridgeError as error:
            _log.info("backend %s: stats: %s", backend.name, error)
            continue
        for uid, usages in known.items():
            if uid in identities:
                response.pods.append(_pod(identities[uid], usages))
    return response


def _pod(identity: Identity, usages: Sequence[seam.Usage]) -> pb.PodStats:
    wire = pb.PodStats(pod=identity_to_wire(identity))
    for usage in usages:
        wire.containers.add(
            name=usage.container,
            time=timestamp(usage.time),
            cpu_usage_core_nanoseconds=usage.cpu_nanoseconds,
            memory_working_set_bytes=usage.memory_bytes,
        )
    return wire
