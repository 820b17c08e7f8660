"""What the helper is to start in containers whose pod names no command: their images say it.

Who replaces an image's entry point has to know it. A cloud does not tell it; the image's registry
does (`bridge.registry`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bridge.errors import BridgeError, Unavailable
from bridge.helper.need import needs
from bridge.helper.wrap import Process
from bridge.registry import RegistryClient
from bridge.workload import Container, PullCredential, Workload

LOST = "exec, attach, port-forward, usage and termination messages"
"""What no field asks for, and nobody has without the helper."""


class Unread(Unavailable):
    """An image that the helper would have to know cannot be read; it is asked for again."""

    kind = "ImageInspectError"


@dataclass(frozen=True, slots=True)
class Commands:
    """What was found."""

    processes: Mapping[str, Process]
    """By container, of those whose pod does not say it all."""
    without: str = ""
    """Why the helper cannot be in this pod, which does not need it, and what it then lacks; empty:
    all is known."""


async def commands(registry: RegistryClient, workload: Workload, architecture: str) -> Commands:
    """Asks for the images of all containers that name no command.

    Raises Unread where one cannot be read and the pod asks for what only the helper gives; the
    words name both.
    """
    asked = [one for one in workload.containers if not one.command]
    found = await asyncio.gather(
        *(_process(registry, one, architecture, workload.pull_credentials) for one in asked)
    )
    words = "; ".join(dict.fromkeys(one for one in found if isinstance(one, str)))
    if not words:
        named = zip(asked, found, strict=True)
        return Commands({one.name: made for one, made in named if isinstance(made, Process)})
    words = f"it names no command, and what its image runs cannot be read: {words}"
    if wanted := list(dict.fromkeys(f"{gift} ({path})" for path, gift in needs(workload))):
        raise Unread(f"{words}; the helper has to start it, for the pod asks for {_list(wanted)}")
    return Commands({}, f"without the helper, for {words}; lost: {LOST}")


async def _process(
    registry: RegistryClient,
    container: Container,
    architecture: str,
    credentials: Sequence[PullCredential],
) -> Process | str:
    """What the image runs, or why nobody can say it."""
    try:
        found = await registry.config(
            container.image, architecture=architecture, credentials=credentials
        )
    except BridgeError as error:
        return error.message
    return Process(found.entrypoint, found.cmd, found.stop_signal)


def _list(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
