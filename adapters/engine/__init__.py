"""Docker or Podman, through the Docker API: pods in real containers on one machine.

A pod is a pause container, which holds the network, IPC and UTS namespaces, and one container for
each run of each of its containers. All of them carry the pod's identity in labels, and nothing is
recorded anywhere else: a provider that starts again lists them and goes on. What the provider does
itself, and so only while it lives, is the kill at the end of a grace, and the hard stop: an engine
has no timer of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from adapters.engine import addresses, discovery, own_image
from adapters.engine.adapter import Adapter
from adapters.engine.deprived import Deprived
from adapters.engine.options import Options
from bridge.errors import BridgeError
from bridge.workload import HelperUse

__all__ = ["VARIANTS", "Adapter", "Options", "make", "present", "take"]

VARIANTS: Mapping[str, type[Adapter | Deprived]] = {"": Adapter, "helper: always": Deprived}
"""What options make of the backend, in their words."""


def make(name: str, options: Options) -> Adapter | Deprived:
    """The adapter that these options ask for."""
    bare = options.helper is HelperUse.NEVER
    return Adapter(name, options) if bare else Deprived(name, options)


async def take(adapter: Adapter | Deprived, name: str, layer: bytes) -> str:
    """Gives the engine an image of one layer, a tar; the address by which its containers reach this
    machine. `name`: with a tag. Errors as of the engine's calls."""
    repository, _, tag = name.rpartition(":")
    await own_image.take(adapter.client, repository, tag, layer)
    return await addresses.gateway(adapter.client)


def present() -> str:
    """The address of an engine that this machine has without any configuration; empty: none."""
    try:
        return discovery.find("", os.environ)
    except BridgeError:
        return ""
