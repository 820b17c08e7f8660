"""In-place resize: what a pod asks for, what its containers have, and what its status says between.

The record of what containers have is the status itself (`resources` of each container), as a
kubelet's is its checkpoint: whoever starts anew goes on from there. Reasons, conditions and words
are those of pkg/kubelet/allocation and pkg/kubelet/events/resize.go in 1.36. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bridge import quantity
from bridge.pods import Manifest

PENDING, IN_PROGRESS = "PodResizePending", "PodResizeInProgress"
"""Conditions: the node has not granted what is asked for; it has, and that is not in force yet."""

_RESIZABLE = ("cpu", "memory")
_KINDS = ("requests", "limits")


@dataclass(frozen=True, slots=True)
class Resize:
    """A resize that is not over: its one condition."""

    state: Literal["Deferred", "Infeasible", "InProgress", "Error"]
    """Deferred: later perhaps; Infeasible: never; Error: what is granted cannot be put in force."""
    generation: int
    """Of the pod that asks for it."""
    message: str = ""
    awaits: Mapping[str, int] = field(default_factory=dict)
    """Containers that have yet to run anew, and their restart counts when they were told to."""

    @property
    def is_held(self) -> bool:
        """Whether the containers have to do with what they have for now."""
        return self.state != "InProgress"

    @property
    def may_come(self) -> bool:
        """Whether it is worth another try."""
        return self.state in ("Deferred", "Error")

    @property
    def condition(self) -> tuple[str, str, str]:
        """Type, reason and message."""
        kind = PENDING if self.state in ("Deferred", "Infeasible") else IN_PROGRESS
        return kind, "" if self.state == "InProgress" else self.state, self.message


def in_force(pod: Manifest) -> Manifest:
    """The pod with what its containers have, by their statuses, in place of what it asks for: the
    pod itself, the same object, where that is the same. Containers that never ran have what they
    ask for."""
    if int(pod["metadata"].get("generation") or 0) < 2:
        # Nothing of its spec ever changed.
        return pod
    spec, status = pod["spec"], pod.get("status") or {}
    changed = {}
    for kind, statuses in (
        ("initContainers", "initContainerStatuses"),
        ("containers", "containerStatuses"),
    ):
        told = {one["name"]: one.get("resources") for one in status.get(statuses) or ()}
        made = [_had(one, told.get(one["name"])) for one in spec.get(kind) or ()]
        if any(one is not other for one, other in zip(made, spec.get(kind) or (), strict=True)):
            changed[kind] = made
    return {**pod, "spec": {**spec, **changed}} if changed else pod


def _had(container: Manifest, told: Manifest | None) -> Manifest:
    asked = container.get("resources") or {}
    if told is None or all(_same(asked.get(kind), told.get(kind)) for kind in _KINDS):
        return container
    resources = dict(asked)
    for kind in _KINDS:
        amounts = {k: v for k, v in (asked.get(kind) or {}).items() if k not in _RESIZABLE}
        amounts |= {k: v for k, v in (told.get(kind) or {}).items() if k in _RESIZABLE}
        resources.pop(kind, None)
        if amounts:
            resources[kind] = amounts
    return {**container, "resources": resources}


def _same(one: Mapping[str, str] | None, other: Mapping[str, str] | None) -> bool:
    """Whether they name the same amounts, however written ("1" is "1000m")."""
    one, other = one or {}, other or {}
    return all(
        one.get(name) == other.get(name)
        or (
            name in one
            and name in other
            and quantity.parse(one[name]) == quantity.parse(other[name])
        )
        for name in _RESIZABLE
    )


def anew(pod: Manifest, given: Manifest) -> Sequence[str]:
    """Of the containers that a resize makes of `given` into `pod`, those that get it by another
    run, as their resizePolicy asks for."""
    return [
        container["name"]
        for kind in ("initContainers", "containers")
        for container, had in zip(
            pod["spec"].get(kind) or (), given["spec"].get(kind) or (), strict=True
        )
        if container is not had and _restarts(container, had)
    ]


def _restarts(container: Manifest, had: Manifest) -> bool:
    policies = {
        one["resourceName"]
        for one in container.get("resizePolicy") or ()
        if one.get("restartPolicy") == "RestartContainer"
    }
    new, old = container.get("resources") or {}, had.get("resources") or {}
    return any(
        (new.get(kind) or {}).get(name) != (old.get(kind) or {}).get(name)
        for kind in _KINDS
        for name in policies
    )


def event(pod: Manifest, what: str, message: str = "") -> tuple[str, str, str]:
    """Type, reason and message of the kubelet's event about a resize: `what` is Deferred,
    Infeasible, Started, Error or Completed."""
    summary: dict[str, Any] = {}
    for kind in ("initContainers", "containers"):
        if found := [*_summaries(pod["spec"].get(kind) or ())]:
            summary[kind] = found
    summary["generation"] = pod["metadata"].get("generation") or 0
    if message:
        summary["error"] = message
    normal = what in ("Started", "Completed")
    words = what.lower() if normal or what == "Error" else what
    text = f"Pod resize {words}: {json.dumps(summary, separators=(',', ':'))}"
    return "Normal" if normal else "Warning", f"Resize{what}", text


def _summaries(containers: Sequence[Manifest]) -> Iterator[Manifest]:
    for one in containers:
        yield {"name": one["name"], "resources": one.get("resources") or {}}


def is_about_resources(path: str) -> bool:
    """Whether the field at that path is what a resize changes."""
    return path.startswith("spec.resources") or (
        path.startswith(("spec.containers[", "spec.initContainers[")) and "].resources" in path
    )
