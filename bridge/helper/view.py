"""What is true of a wrapped pod: what the cloud says of the group, and what the helper says of it.

The helper knows the containers, the cloud knows whether anything is there at all. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from bridge.backoff import backoff_message
from bridge.helper.record import Record
from bridge.helper.wrap import INSTALL, OURS, WATCH
from bridge.workload import ContainerState, Exit, Identity, Observed, Running, State, Waiting

UNKNOWN = "ContainerStatusUnknown"
START_ERROR = "StartError"
_LOST = "its helper ended without a record"
_OWN = range(120, 123)
"""Codes of a helper that never came to its work (helper/main.go)."""
_SAYS = "podbridge-helper: "
"""How its last words begin."""
_NONE: Mapping[str, Exit] = MappingProxyType({})


def is_wrapped(group: Observed) -> bool:
    """Whether the helper is around the containers of what a cloud lists."""
    return any(one.name in (INSTALL, WATCH) for one in group.containers)


def is_over(group: Observed) -> bool:
    """Whether the helper's record is to be read: the container that writes it has ended, or never
    will run."""
    watch, first = group.container(WATCH), group.container(INSTALL)
    if watch is not None and isinstance(watch.state, Exit):
        return True
    return first is not None and isinstance(first.state, Exit) and first.state.code != 0


def is_mute(cloud: ContainerState, said: Record | None) -> bool:
    """Whether this may have been a helper that never came to its work and could tell nobody: what
    it wrote says (`failure`)."""
    told = () if said is None else said.containers
    own = next((one.state for one in told if one.name == cloud.name), None)
    has_ended = isinstance(cloud.state, Exit) and cloud.state.code in _OWN
    return has_ended and (own is None or isinstance(own, Waiting))


def failure(cloud: ContainerState, wrote: bytes) -> Exit | None:
    """How a container ended whose command was not started, by what its helper wrote. None: these
    are not the words of one that never came to its work."""
    if not isinstance(cloud.state, Exit) or cloud.state.code == 0:
        return None
    text = wrote.decode(errors="replace").strip()
    words = next((one for one in reversed(text.splitlines()) if one.startswith(_SAYS)), "")
    if cloud.name == INSTALL:
        words = text
    return Exit(128, cloud.state.finished_at, START_ERROR, message=words) if words else None


def observed(
    group: Observed,
    said: Record | None,
    *,
    final: bool,
    failures: Mapping[str, Exit] = _NONE,
    creating: str = "",
    returning: bool = False,
) -> Observed:
    """The pod. `said`: the helper's latest words, live or, with `final`, its record. `failures`:
    helpers that never came to their work (`failure`), by container. `creating`: for what its
    containers wait until the helper speaks, which it is expected to do any moment; empty: what the
    cloud says has to do.
    `returning`: the helper has spoken to an earlier provider and is expected back: what it said
    there is not contradicted, and of its containers nothing is told."""
    own = [one for one in group.containers if not one.name.startswith(OURS)]
    over = final or is_over(group)
    clouds = {one.name: one for one in own}
    if said is None:
        shown = [
            _unsaid(one, group, failures.get(INSTALL)) if over else _unheard(one, group, creating)
            for one in own
            if over or not returning or not _has_spoken(one)
        ]
    else:
        shown = [_merged(one, clouds.get(one.name), over and not final) for one in said.containers]
        if not over:
            shown = [_awaited(one, said, group.identity) for one in shown]
    shown = [
        replace(one, state=failures[one.name], container_id="", started=None, ready=None)
        if one.name in failures
        else one
        for one in shown
    ]
    lost = over and not final
    first = group.container(INSTALL)
    broken = lost and (
        (first is not None and isinstance(first.state, Exit) and first.state.code != 0)
        or WATCH in failures
    )
    return replace(
        group,
        containers=tuple(shown),
        ended=over and not any(isinstance(one.state, Running) for one in shown),
        failed=(said.failed if said is not None and final else lost) or group.failed,
        reason=said.reason if said is not None and final else "HelperFailed" if broken else "",
        message=said.message if said is not None and final else _words(group, lost, failures),
        disrupted=group.disrupted or (lost and not broken),
        notices=() if said is None else said.notices,
    )


def _words(group: Observed, lost: bool, failures: Mapping[str, Exit]) -> str:
    if not lost:
        return group.message
    if INSTALL in failures:
        return failures[INSTALL].message
    return f"{_LOST}: {failures[WATCH].message}" if WATCH in failures else _LOST


def _merged(said: ContainerState, cloud: ContainerState | None, is_lost: bool) -> ContainerState:
    if cloud is None:
        return said
    known = replace(
        said,
        state=_named(said.state, cloud, said.restart),
        previous=said.previous and _named(said.previous, cloud, said.restart - 1),
        container_id=_id_of(cloud, said.restart),
        image=cloud.image,
        image_id=cloud.image_id,
    )
    if isinstance(said.state, Waiting) and isinstance(cloud.state, Waiting):
        # It is the cloud that it waits for: an image, most of the time.
        return replace(known, state=cloud.state)
    if is_lost and isinstance(said.state, Running):
        at = cloud.state.finished_at if isinstance(cloud.state, Exit) else said.state.started_at
        end = Exit(137, at, UNKNOWN, message=_LOST, started_at=said.state.started_at)
        return replace(known, state=_named(end, cloud, said.restart))
    return known


def _awaited(one: ContainerState, said: Record, identity: Identity) -> ContainerState:
    """A container of a pod that goes on, as the kubelet shows it: between two runs it waits for the
    next, and until its post-start hook is over nothing is told of its run."""
    delay = said.backoffs.get(one.name)
    if delay and isinstance(one.state, Exit):
        words = backoff_message(identity, one.name, delay)
        return replace(one, state=Waiting("CrashLoopBackOff", words), previous=one.state)
    if one.name in said.opening and isinstance(one.state, Running):
        waiting = Waiting("ContainerCreating")
        return replace(one, state=waiting, container_id="", started=None, ready=None)
    return one


def _unsaid(cloud: ContainerState, group: Observed, installing: Exit | None) -> ContainerState:
    """A container of which the helper has said nothing, and will not."""
    at = max(
        (one.state.finished_at for one in group.containers if isinstance(one.state, Exit)),
        default=group.accepted_at or 0.0,
    )
    if installing is not None:
        return replace(cloud, state=replace(installing, finished_at=at))
    return replace(cloud, state=_named(Exit(137, at, UNKNOWN, message=_LOST), cloud, 0))


_S = TypeVar("_S", bound=State)


def _named(state: _S, cloud: ContainerState, run: int) -> _S:
    """A run has a log where it names its container."""
    if isinstance(state, Exit) and state.reason != START_ERROR:
        return replace(state, container_id=_id_of(cloud, run))
    return state


def _id_of(cloud: ContainerState, run: int) -> str:
    """The container of that run. All runs are of one container of the cloud's, and in Kubernetes
    each has its own."""
    return f"{cloud.container_id}.{run}" if run > 0 and cloud.container_id else cloud.container_id


def _has_spoken(cloud: ContainerState) -> bool:
    """Whether a container has, or had, a helper in it."""
    if isinstance(cloud.state, Exit):
        return cloud.state.reason != START_ERROR
    return isinstance(cloud.state, Running)


def _unheard(cloud: ContainerState, group: Observed, creating: str) -> ContainerState:
    """A container of which the helper may still speak. That the cloud's container runs says nothing
    of the pod's, which may wait for others; how it ended is no end, without a message and perhaps
    with another code. But what could not be started has no helper in it."""
    if not _has_spoken(cloud):
        return cloud
    if creating:
        return replace(cloud, state=Waiting(creating))
    if isinstance(cloud.state, Exit):
        at = cloud.state.started_at or group.accepted_at or cloud.state.finished_at
        return replace(cloud, state=Running(at))
    return cloud
