"""A pod's conditions, as pkg/kubelet/status/generate.go makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bridge.pods import Manifest
from bridge.pods.phase import TERMINAL, is_sidecar
from bridge.pods.resize import IN_PROGRESS, PENDING, Resize

OWNED = frozenset(
    (
        *("PodScheduled", "Ready", "Initialized", "ContainersReady", "PodReadyToStartContainers"),
        *(PENDING, IN_PROGRESS),
    )
)
"""Conditions that are the node's to write; all others are kept as they are."""

_TERMINAL_REASON = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}
_DISRUPTED = "The pod was taken away by the infrastructure that ran it"


@dataclass(frozen=True, slots=True)
class View:
    """What the conditions depend on. `statuses` are init and regular ones, by name."""

    pod: Manifest
    phase: str
    statuses: Mapping[str, Manifest]
    sandbox: bool
    """What the pod's containers share exists."""
    disruption: str | None
    """Why infrastructure took the pod away; None: it did not."""
    generation: int
    now: str
    resize: Resize | None = None


def foreign_conditions(pod: Manifest) -> Manifest:
    """Status by type of the conditions that others write: readiness gates wait for some."""
    told = (pod.get("status") or {}).get("conditions") or ()
    return {one["type"]: one.get("status") for one in told if one["type"] not in OWNED}


def conditions(view: View, before: Sequence[Manifest]) -> list[Manifest]:
    """The new list: foreign ones first, as they were, then the node's own."""
    old = {one["type"]: one for one in before}
    made = [one for one in before if one["type"] not in OWNED]
    disrupted = (old.get("DisruptionTarget") or {}).get("status") == "True"
    if view.disruption is not None and not disrupted:
        value = (True, "TerminationByKubelet", view.disruption or _DISRUPTED)
        made = [one for one in made if one["type"] != "DisruptionTarget"]
        made.append(_condition(view, old, "DisruptionTarget", value))
    containers = _containers_ready(view)
    gates = _gates(view.pod, made) if containers[0] else ""
    ready = (False, "ReadinessGatesNotReady", gates) if gates else containers
    made.append(_condition(view, old, "PodReadyToStartContainers", (view.sandbox, "", "")))
    made.append(_condition(view, old, "Initialized", _initialized(view, old)))
    made.append(_condition(view, old, "Ready", ready))
    made.append(_condition(view, old, "ContainersReady", containers))
    made.append(_condition(view, old, "PodScheduled", (True, "", "")))
    if view.resize is not None and view.phase not in TERMINAL:
        kind, why, message = view.resize.condition
        one = _condition(view, old, kind, (True, why, message))
        made.append({**one, "observedGeneration": view.resize.generation})
    return made


_Value = tuple[bool, str, str]
"""(true, reason, message)."""


def _condition(view: View, old: Mapping[str, Manifest], kind: str, value: _Value) -> Manifest:
    true, reason, message = value
    status = "True" if true else "False"
    before = old.get(kind)
    since = view.now
    if before is not None and before.get("status") == status:
        since = before.get("lastTransitionTime") or view.now
    made: Manifest = {"type": kind, "status": status, "lastTransitionTime": since}
    if view.generation:
        made["observedGeneration"] = view.generation
    if reason:
        made["reason"] = reason
    if message:
        made["message"] = message
    return made


def _containers_ready(view: View) -> _Value:
    spec, statuses = view.pod["spec"], view.statuses
    if view.phase in TERMINAL:
        return False, _TERMINAL_REASON[view.phase], ""
    unready, unknown = [], []
    sidecars = [one for one in spec.get("initContainers") or () if is_sidecar(one)]
    for container in [*sidecars, *spec["containers"]]:
        status = statuses.get(container["name"])
        if status is None:
            unknown.append(container["name"])
        elif not status.get("ready"):
            unready.append(container["name"])
    message = _lists(("unknown", unknown), ("unready", unready))
    return not message, "ContainersNotReady" if message else "", message


def _initialized(view: View, old: Mapping[str, Manifest]) -> _Value:
    spec, statuses = view.pod["spec"], view.statuses
    incomplete, unknown = [], []
    for container in spec.get("initContainers") or ():
        status = statuses.get(container["name"])
        if status is None:
            unknown.append(container["name"])
        elif not status.get("started" if is_sidecar(container) else "ready"):
            incomplete.append(container["name"])
    if view.phase == "Succeeded" and not unknown:
        return True, "PodCompleted", ""
    for container in spec["containers"]:
        state = (statuses.get(container["name"]) or {}).get("state") or {}
        if "running" in state or "terminated" in state:
            return True, "", ""
    message = _lists(("unknown", unknown), ("incomplete", incomplete))
    # A pod that was initialized stays so.
    if not message or (old.get("Initialized") or {}).get("status") == "True":
        return True, "", ""
    return False, "ContainersNotInitialized", message


def _lists(*named: tuple[str, list[str]]) -> str:
    return ", ".join(
        f"containers with {kind} status: [{' '.join(names)}]" for kind, names in named if names
    )


def _gates(pod: Manifest, made: Sequence[Manifest]) -> str:
    known = {one["type"]: one.get("status") for one in made}
    problems = []
    for gate in pod["spec"].get("readinessGates") or ():
        kind = gate["conditionType"]
        if kind not in known:
            problems.append(
                f'corresponding condition of pod readiness gate "{kind}" does not exist.'
            )
        elif known[kind] != "True":
            problems.append(
                f'the status of pod readiness gate "{kind}" is not "True", but {known[kind]}'
            )
    return ", ".join(problems)
