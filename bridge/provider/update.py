"""What may change in a pod that runs, what of that its backend can apply, and applying it."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from bridge import adapter as seam
from bridge.errors import BridgeError, NotFound, OutOfCapacity, Unsupported, Violation
from bridge.pods import Manifest
from bridge.pods.lifecycle import kill_for
from bridge.provider.backend import Backend
from bridge.provider.capabilities import judge, lookup, merged
from bridge.provider.placement import no_room
from bridge.provider.record import Record
from bridge.requests import pod_request
from bridge.workload import Container, Files, Resources, Running, Workload

_APPLIED_HERE = ("spec.activeDeadlineSeconds", "spec.terminationGracePeriodSeconds")
"""Changes that the provider itself carries out."""
_NOT_OURS = ("spec.tolerations", "spec.schedulingGates", "spec.nodeSelector", "spec.affinity")
"""Changes that mean nothing to a pod that is already placed."""
_IMAGE = re.compile(r"spec\.(initContainers|containers)\[\d+\]\.image")
_RESOURCES = re.compile(r"spec\.(initContainers|containers)\[\d+\]\.resources\b.*")
_ADDED = "spec.ephemeralContainers"


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done for an update, all of which the backend can do."""

    workload: Workload
    files: tuple[Files, ...] = ()
    """Volumes with new content."""
    resized: tuple[Container, ...] = ()
    """Containers whose new resources come into force while they run."""
    restarted: tuple[Container, ...] = ()
    """Containers whose new resources need another run."""


def assess(record: Record, adapter: seam.Adapter, manifest: Manifest, workload: Workload) -> Change:
    """What to do so that the pod is as `manifest` and `workload` say. Pure.

    Raises Unsupported with every field that cannot be changed: then nothing is.
    """
    before = record.workload or workload
    old = {one.name: one for one in before.volumes if isinstance(one, Files)}
    files = tuple(
        one for one in workload.volumes if isinstance(one, Files) and one != old.get(one.name)
    )
    resources = _resources(before, workload, adapter)
    refused = []
    for path in _changed("spec", record.manifest.get("spec") or {}, manifest.get("spec") or {}):
        if path == _ADDED:
            refused += _added(record.manifest, manifest, workload, adapter)
        elif not (
            path.startswith(_APPLIED_HERE + _NOT_OURS)
            or (_IMAGE.fullmatch(path) and isinstance(adapter, seam.Containers))
            or (_RESOURCES.fullmatch(path) and resources is not None)
        ):
            words = f"cannot be changed while the pod runs on {adapter.name}"
            refused.append(Violation(path, words))
    if files and _has_begun(record) and not isinstance(adapter, seam.Updates):
        refused.append(Violation("spec.volumes", f"{adapter.name} cannot change a running volume"))
    if refused:
        raise Unsupported(violations=refused)
    resized, restarted = resources or ((), ())
    return Change(workload, files, resized, restarted)


def with_kept_files(workload: Workload, before: Workload | None) -> Workload:
    """The workload with the content that volumes had, where it is not known now what belongs into
    them. Pure."""
    known = {one.name: one for one in (before.volumes if before else ()) if isinstance(one, Files)}
    volumes = tuple(
        known.get(one.name, one) if isinstance(one, Files) and one.is_unknown else one
        for one in workload.volumes
    )
    return replace(workload, volumes=volumes)


async def apply(record: Record, backend: Backend, change: Change) -> None:
    """Brings a change into force, as far as the next steps of the pod do not. Errors as `resize`
    and `update_files` raise them; OutOfCapacity: the operator's limits have no room for its new
    size. After an error it stays as it was, but for files that were replaced already."""
    taken, size = record.size, pod_request(change.workload)
    _count(record, backend, size)
    try:
        adapter = backend.adapter
        if change.files and _has_begun(record) and isinstance(adapter, seam.Updates):
            await adapter.update_files(record.identity, change.files)
        if isinstance(adapter, seam.Resizes):
            await _resize(record, adapter, change)
    except BaseException:
        if record.counted:
            backend.release(size)
            backend.take(taken)
        record.size = taken
        raise
    record.workload = change.workload
    for container in change.restarted:
        state = record.observed.container(container.name) if record.observed else None
        if state is not None and isinstance(state.state, Running):
            kill = kill_for(container, "resize requires restart", again=True)
            record.health_of(state).kill = kill


def _has_begun(record: Record) -> bool:
    """Whether its backend may have it: before that there is nothing to change there."""
    return record.tried or record.launched_at is not None


async def put_in_force(record: Record, adapter: seam.Adapter) -> None:
    """Of a pod that was found running: nobody knows what of its wanted state is in force, so that
    all that can be changed is ordered again. Raises what is worth another try.

    A container that is to be restarted for another size is left as it is: whether its size is
    another one is not known.
    """
    workload, seen = record.workload, record.observed
    if workload is None or seen is None or seen.ended or record.ended:
        return
    files = [one for one in workload.volumes if isinstance(one, Files) and not one.is_unknown]
    if files and isinstance(adapter, seam.Updates):
        await _try(record, adapter.update_files(record.identity, files))
    for container in workload.containers:
        state = seen.container(container.name)
        running = state is not None and isinstance(state.state, Running)
        if running and not container.resize_restarts and isinstance(adapter, seam.Resizes):
            await _try(record, adapter.resize(record.identity, container))


async def _try(record: Record, call: Awaitable[None]) -> None:
    try:
        await call
    except NotFound:
        return  # It has just ended.
    except BridgeError as error:
        if not error.permanent:
            raise
        _log.warning("pod %s is adopted as it was: %s", record.identity.uid, error)


def _count(record: Record, backend: Backend, size: Resources) -> None:
    """Takes the pod's new size from the backend's limits, in place of the old one."""
    if record.counted:
        for name, limit in backend.limits.items():
            amount = size.requests.get(name, 0)
            if amount > max(limit, record.size.requests.get(name, 0)):
                words = f"asks for {amount} of {name}; {backend.name} has {limit} in all"
                raise Unsupported(violations=[Violation("spec.resources", words)])
        backend.release(record.size)
        more = any(
            size.requests.get(name, 0) > record.size.requests.get(name, 0)
            for name in backend.limits
        )
        lacking = no_room(backend.place, size)
        if more and lacking:
            backend.take(record.size)
            raise OutOfCapacity(lacking)
        backend.take(size)
    record.size = size


async def _resize(record: Record, adapter: seam.Resizes, change: Change) -> None:
    done: list[str] = []
    for container in change.resized:
        state = record.observed.container(container.name) if record.observed else None
        if state is None or not isinstance(state.state, Running):
            continue
        try:
            await adapter.resize(record.identity, container)
        except NotFound:
            # It has just ended: its next run has the new size.
            continue
        except BridgeError:
            for name in reversed(done):
                if record.workload is not None:
                    with suppress(BridgeError):
                        await adapter.resize(record.identity, record.workload.container(name))
            raise
        done.append(container.name)


def _resources(
    before: Workload, after: Workload, adapter: seam.Adapter
) -> tuple[tuple[Container, ...], tuple[Container, ...]] | None:
    """The containers with new resources: those to resize, and those to start anew. None: the
    backend can do neither with one of them."""
    old = {one.name: one.resources for one in before.containers}
    resized, restarted = [], []
    for container in after.containers:
        known = old.get(container.name)
        if known is None or known == container.resources:
            continue
        differ = _differing(known, container.resources)
        if differ & container.resize_restarts and isinstance(adapter, seam.Containers):
            restarted.append(container)
        elif isinstance(adapter, seam.Resizes):
            resized.append(container)
        elif not _means_nothing(adapter):
            return None
    return tuple(resized), tuple(restarted)


def _differing(one: Resources, other: Resources) -> set[str]:
    both = ((one.requests, other.requests), (one.limits, other.limits))
    return {name for old, new in both for name in {*old, *new} if old.get(name) != new.get(name)}


def _means_nothing(adapter: seam.Adapter) -> bool:
    """Whether resources are not enforced here, as its own table says: any are in force at once."""
    said = lookup(merged(adapter), "spec.containers[].resources.limits")
    return said is not None and said.level is seam.Level.APPROXIMATED


def _added(
    before: Manifest, after: Manifest, workload: Workload, adapter: seam.Adapter
) -> list[Violation]:
    """What is wrong with ephemeral containers that are new."""
    old = before["spec"].get("ephemeralContainers") or []
    new = after["spec"].get("ephemeralContainers") or []
    if new[: len(old)] != old:
        return [Violation(_ADDED, "can only be added to")]
    if not isinstance(adapter, seam.Containers):
        return [Violation(_ADDED, f"{adapter.name} cannot add containers to a pod")]
    found = judge(adapter, after, workload).violations
    return [one for one in found if one.field.startswith(_ADDED)]


def _changed(path: str, before: Any, after: Any) -> Iterator[str]:
    """The paths of the outermost values that differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            yield from _changed(f"{path}.{name}", before.get(name), after.get(name))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _changed(f"{path}[{index}]", one, other)
    elif before != after:
        yield path
