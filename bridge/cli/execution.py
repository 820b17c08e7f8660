"""A command in a container: whether one can be run there now, and the request for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bridge.agent.request import identity
from bridge.cli.output import hint
from bridge.cli.reading import containers_of, status_of
from bridge.errors import Invalid, NotFound
from bridge.local.session import NODE
from bridge.rpc.v1 import pod_pb2, stream_pb2

if TYPE_CHECKING:
    from bridge.cli.select import Found
    from bridge.pods import Manifest


def start_of(
    found: Found,
    container: str,
    command: Sequence[str],
    *,
    stdin: bool = False,
    tty: bool = False,
    quiet: bool = False,
) -> stream_pb2.ExecStart:
    """The request for a command in a container of that name, or the pod's default one.

    Invalid where the pod is over or has no such container, NotFound where that does not run now.
    """
    pod = found.object
    require_going(pod, "cannot exec into a container in a completed pod")
    names, said = containers_of(pod, container, every=False)
    if said and not quiet:
        hint(said)
    require_running(pod, names[0])
    return stream_pb2.ExecStart(
        pod=who(found),
        container=names[0],
        command=command,
        stdin=stdin,
        stdout=True,
        stderr=not tty,
        tty=tty,
    )


def who(found: Found) -> pod_pb2.PodIdentity:
    """The pod on the wire."""
    return identity(found.state.run.wanted.uid, NODE, found.object)


def require_going(pod: Manifest, words: str) -> None:
    """Invalid, as kubectl says it, where the pod is over."""
    phase = (pod.get("status") or {}).get("phase", "Pending")
    if phase in ("Succeeded", "Failed"):
        raise Invalid(f"{words}; current phase is {phase}")


def require_running(pod: Manifest, container: str) -> None:
    """NotFound, in the kubelet's words and with the reason, where a container does not run now."""
    state = status_of(pod, container).get("state") or {}
    if "running" in state:
        return
    words = f'container not found ("{container}")'
    if ended := state.get("terminated"):
        code = ended.get("exitCode", 0)
        raise NotFound(f"{words}: it has ended with exit code {code}")
    waiting = state.get("waiting") or {"reason": "ContainerCreating"}
    why = ": ".join(part for part in (waiting.get("reason"), waiting.get("message")) if part)
    raise NotFound(f"{words}: it is waiting to start: {why}")
